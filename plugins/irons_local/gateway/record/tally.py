"""Counts that go on while nothing is written to the log: a small file next to each run.

A repeat of a refusal is counted here before it is answered. Each count has a place of 16 bytes that is written over
in one `pwrite(2)`: which event of the run it is of, and how often it happened so far. What was written stays in the
kernel's hands when this process is killed. The log itself gets the count now and then, and when the event is over;
whoever reads the log of a killed process to its end takes the greater of the two, so it cannot be counted twice.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

_PLACE = struct.Struct("<QQ")


class CounterFile:
    """The counts of one run's events.

    Args:
        path: the file; made when the first count comes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._places: dict[int, int] = {}
        self._free: list[int] = []

    def put(self, conn: int, count: int) -> None:
        """Record how often an event happened so far.

        Args:
            conn: the event's number in its run.
            count: all of it, not what came on top.

        Raises:
            OSError: it could not be written.
        """
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o640)
        place = self._places.get(conn)
        if place is None:
            place = self._places[conn] = self._free.pop() if self._free else len(self._places)
        os.pwrite(self._fd, _PLACE.pack(conn, count), place * _PLACE.size)

    def drop(self, conn: int) -> None:
        """The log has the last count of this event: its place is for others."""
        place = self._places.pop(conn, None)
        if place is not None:
            self._free.append(place)

    def close(self) -> None:
        """Let go of the file, which stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
