"""Commands as a shell starts them in the background of a script (`&`, nohup): SIGINT is ignored when they begin."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

IGNORING = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
"""What goes before such a command."""

HEARD = (signal.SIGINT, signal.SIGQUIT)
"""The signals that a shell without job control makes a background command ignore."""

JOBS = ("foreground", "background")
"""Names for the two ways in which a test starts a command."""


def job(way: str, argv: Sequence[str]) -> list[str]:
    """The words that start a command in one of the two ways of `JOBS`."""
    return [*(IGNORING if way == "background" else ()), *argv]


@contextmanager
def interruptible() -> Iterator[None]:
    """Let what is started in the block receive INT and QUIT, also where this run is a background job that ignores them."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in HEARD}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
