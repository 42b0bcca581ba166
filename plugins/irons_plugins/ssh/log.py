"""What OpenSSH says of itself, read while it runs: the sandbox has a say in how much that is, so only its end is kept."""

from __future__ import annotations

import os
import select
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from irons.text import clean

KEPT = 1 << 16
"""Bytes that are kept."""

_BEGINS = b"debug1: Sending command: "


class Log:
    """A named pipe for `ssh -E`, read by a thread; OpenSSH must log at DEBUG1.

    Args:
        path: Where the pipe is made; nothing may be there.

    Attributes:
        path: The pipe.
        began: When OpenSSH sent its command (monotonic seconds); None before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began: float | None = None
        self._tail = b""
        os.mkfifo(path, 0o600)
        self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # While this is open the pipe has no end, whoever comes and goes.
        self._held = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._over, self._told = os.pipe()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        """Begin to read."""
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Read what is there, and no more."""
        os.close(self._told)
        self._reader.join()
        for descriptor in (self._over, self._held, self._pipe):
            os.close(descriptor)

    def lines(self) -> list[str]:
        """Return the last lines, fit for a terminal; all of them once this has ended."""
        lines = (clean(line.strip(), limit=300) for line in self._tail.decode(errors="replace").splitlines())
        return [line for line in lines if line]

    def _read(self) -> None:
        over = False
        while not over:
            ready, _, _ = select.select([self._pipe, self._over], [], [])
            over = self._over in ready
            while data := self._some():
                if self.began is None and _BEGINS in self._tail[-len(_BEGINS) :] + data:
                    self.began = time.monotonic()
                self._tail = (self._tail + data)[-KEPT:]

    def _some(self) -> bytes:
        try:
            return os.read(self._pipe, KEPT)
        except BlockingIOError:
            return b""
