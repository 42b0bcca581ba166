"""Until when OpenSSH may run for a program that has a time limit."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from irons_plugins.ssh.execute.remote_script import GRACE

if TYPE_CHECKING:
    from irons_plugins.ssh.openssh.marks import Marks

CONNECT = 30
"""Seconds that OpenSSH may take to connect; the limit of `--timeout` runs from then on."""

ENDING = 5.0
"""Seconds for ending what an interrupted call has started, and for writing what stdout has room for again."""

LATE = 2.0
"""Seconds that the sandbox has for saying that the time was up."""


def time_limit(
    marks: Marks, limit: float | None, check: Callable[[], None] | None, full: Callable[[], bool]
) -> Callable[[], float]:
    """Return what tells when OpenSSH is ended, in monotonic seconds; it is to be asked again and again.

    The program has its time from when it was started. OpenSSH ends later only where something that the program left there holds on to
    it, or where the reader of stdout is slow. For the reader it is given time, as it would lose what it has not written yet.

    Args:
        marks: What the sandbox's part reports.
        limit: Seconds that the program has; None for no limit.
        check: Called each time; what it raises ends the program.
        full: Tells whether stdout has no room now.
    """
    seconds = math.inf if limit is None else limit + GRACE
    at_most = time.monotonic() + CONNECT + ENDING + seconds
    was_full = -math.inf

    def until() -> float:
        nonlocal was_full
        if check is not None:
            check()
        if full():
            was_full = time.monotonic()
        ends = at_most if marks.began is None else min(at_most, marks.began + seconds + LATE)
        over = marks.end is not None and marks.end.killed != "time"
        return max(ends, was_full + ENDING) if over else ends

    return until


def has_no_room(stream: TextIO) -> bool:
    """Tell whether a pipe, a socket or a terminal takes nothing now, since its reader is slow."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError, AttributeError):
        return False
    return not poll.poll(0)
