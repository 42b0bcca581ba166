"""A small text file of the host's, read again when it has changed."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

Found = TypeVar("Found")


class Reread(Generic[Found]):
    """What a file holds; safe to ask from several threads.

    Args:
        path: where it is.
        parse: reads its contents; a file that is missing, unreadable or not a regular file counts as empty.
        most: bytes that are read at most, and one more, which tells that there are more.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], Found], most: int) -> None:
        self._path = path
        self._parse = parse
        self._most = most
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._found = parse(b"")

    def __call__(self) -> Found:
        """What it holds now."""
        with self._lock:
            try:
                self._refresh()
            except OSError:
                self._seen, self._found = None, self._parse(b"")
            return self._found

    def _refresh(self) -> None:
        # Without O_NONBLOCK a FIFO in its place would hold the thread.
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen != self._seen:
                self._found = self._parse(self._read(fd) if stat.S_ISREG(found.st_mode) else b"")
                self._seen = seen
        finally:
            os.close(fd)

    def _read(self, fd: int) -> bytes:
        data = b""
        while len(data) <= self._most and (more := os.read(fd, self._most + 1 - len(data))):
            data += more
        return data
