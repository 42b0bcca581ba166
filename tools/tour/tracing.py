"""Records calls of the stops in the process that it is begun in, by the interpreter's profile hook."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

from tools.tour.stops import STOPS, Call

FILE = "tour"
"""The file of a process's calls, in its working directory: a line each, the stop and the time."""


def codes(stops: tuple[int, ...]) -> dict[CodeType, int]:
    """Return the code of each of these stops, with its index; imports their modules."""
    return {STOPS[index].code(): index for index in stops}


def begin(watched: dict[CodeType, int]) -> None:
    """Record calls of these functions from now on, in this thread and in those to come.

    Raises:
        OSError: the file cannot be made.
    """
    fd = os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def hook(frame: FrameType, event: str, _: object) -> None:
        index = watched.get(frame.f_code)
        if index is not None and event == "call":
            os.write(fd, b"%d %d\n" % (index, time.monotonic_ns()))

    threading.setprofile(hook)
    sys.setprofile(hook)


def read(file: Path) -> Iterator[Call]:
    """Read the calls that a process recorded; none where it has not begun.

    Raises:
        OSError: the file cannot be read.
    """
    lines = file.read_text("ascii").splitlines(keepends=True) if file.exists() else []
    for line in lines:
        if line.endswith("\n"):
            stop, at = line.split()
            yield Call(int(stop), int(at))
