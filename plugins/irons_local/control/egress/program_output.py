"""What a program writes into a pipe: its beginning is kept, and nothing waits for whoever else has the pipe."""

from __future__ import annotations

import asyncio
import os
from typing import Final, Self

_PIECE: Final = 16_384


class ProgramOutput:
    """A pipe whose end `writes` a program gets, read while it runs.

    Args:
        kept: bytes of the beginning that are kept.
        most: bytes that it may have at most.
        much: set once there are more; nothing is read any more.

    Attributes:
        writes: the end for the program.
    """

    def __init__(self, kept: int, most: int, much: asyncio.Event) -> None:
        self._kept, self._left, self._much = kept, most, much
        self._reads, self.writes = os.pipe()
        os.set_blocking(self._reads, False)
        self._data = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reads, self._take)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pipe, whoever still writes into it."""
        self._loop.remove_reader(self._reads)
        os.close(self._reads)
        os.close(self.writes)

    def rest(self) -> str:
        """Take what is there by now; gives what is kept."""
        while self._take():
            pass
        return self._data.decode("utf-8", "replace")

    def _take(self) -> bool:
        """Take a piece; False where there is none to take."""
        if self._much.is_set():
            self._loop.remove_reader(self._reads)
            return False
        try:
            # It does not end: our own copy of the other end is open.
            more = os.read(self._reads, _PIECE)
        except BlockingIOError:
            return False
        self._data = (self._data + more)[: self._kept]
        self._left -= len(more)
        if self._left < 0:
            self._much.set()
        return True
