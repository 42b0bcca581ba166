"""What may be written to a disk that others need too: the gateway cannot let anything pass without room for its records."""

from __future__ import annotations

import os
import stat

from irons.text import size_text
from irons_local.errors import EngineError

RESERVE = 256 << 20
"""Bytes that stay free on a disk, at most; on a small one a twentieth of it."""

_PART = 20
_FILES = 8192
_LOOK_EVERY = 64 << 20
_ENTRY = 16 << 10


class Room:
    """The room on one file system, looked at again and again while something is written there.

    Args:
        descriptor: a file or directory on it; where it is a pipe, whoever reads it looks after the room.
        what: what is written, for the error.
    """

    def __init__(self, descriptor: int, what: str) -> None:
        mode = os.fstat(descriptor).st_mode
        self._descriptor = descriptor if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else None
        self._what = what
        self._left = 0

    def take(self, size: int) -> None:
        """Count what is about to be written.

        Args:
            size: bytes.

        Raises:
            EngineError: too little would stay free.
        """
        self._left -= size
        if self._left < 0 and self._descriptor is not None:
            self._look(self._descriptor, size)

    def take_entry(self) -> None:
        """Count a file, directory or link of any size; raises like `take`."""
        self.take(_ENTRY)

    def _look(self, descriptor: int, size: int) -> None:
        found = os.fstatvfs(descriptor)
        free = found.f_bavail * found.f_frsize
        reserve = min(RESERVE, found.f_blocks * found.f_frsize // _PART)
        if free - reserve < size or (
            found.f_files > 0 and found.f_favail < min(_FILES, found.f_files // _PART)
        ):
            kept = f"{size_text(reserve)} must stay free for the sandboxes that run"
            raise EngineError("limit", f"the disk is full: {self._what} does not fit, and {kept}")
        self._left = min(free - reserve - size, _LOOK_EVERY)
