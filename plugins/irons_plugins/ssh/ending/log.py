"""What OpenSSH logs, read while it runs: the sandbox has a say in how much that is, so only its end is kept."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from irons.text import clean

KEPT = 1 << 16
"""Bytes that are kept."""


class SshLog:
    """A pipe for `ssh -E`, read by a thread. It has no name in the file system: nothing is left where this process is killed.

    Args:
        heard: Called with each line as it comes, in the thread that reads.

    Attributes:
        path: What OpenSSH opens.
    """

    def __init__(self, heard: Callable[[str], None] | None = None) -> None:
        self._tail = b""
        self._heard = heard
        self._line = b""
        # While the writing end is open here the pipe has no end, whoever comes and goes.
        self._pipe, self._held = os.pipe()
        os.set_blocking(self._pipe, False)
        # OpenSSH closes what it inherits, so it is given the way to a descriptor of this process.
        self.path = f"/proc/{os.getpid()}/fd/{self._held}"
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
        return [line for line in map(_cleaned, self._tail.splitlines()) if line]

    def _read(self) -> None:
        over = False
        while not over:
            ready, _, _ = select.select([self._pipe, self._over], [], [])
            over = self._over in ready
            while data := self._some():
                self._tail = (self._tail + data)[-KEPT:]
                if self._heard is not None:
                    *lines, self._line = (self._line + data)[-KEPT:].split(b"\n")
                    for line in lines:
                        self._heard(_cleaned(line))

    def _some(self) -> bytes:
        try:
            return os.read(self._pipe, KEPT)
        except BlockingIOError:
            return b""


def _cleaned(line: bytes) -> str:
    return clean(line.decode(errors="replace").strip(), limit=300)
