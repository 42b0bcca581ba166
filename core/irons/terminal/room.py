"""Writing to what may be set not to block, where the writer waits until there is room.

OpenSSH's client, and others, set what they write to not to block. That holds for all who share the open file, such as a pipe that several commands
of a shell write to.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


def wait_for_room() -> None:
    """Have what is written to stdout and stderr wait until there is room: Python would lose what it has."""
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _waiting(sys.stdout)
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _waiting(sys.stderr)


def write_all(descriptor: int, data: bytes) -> None:
    """Write bytes to a descriptor, however long that takes. Raises `OSError`."""
    while data:
        data = data[_write_some(descriptor, data) :]


def _waiting(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Waiting(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Waiting(io.FileIO):
    """A descriptor that is written to, however long that takes."""

    def write(self, data: Buffer, /) -> int:
        # Not all of it: what is interrupted between two pieces would be written again.
        return _write_some(self.fileno(), data)


def _write_some(descriptor: int, data: Buffer) -> int:
    while True:
        try:
            return os.write(descriptor, data)
        except BlockingIOError:
            import select

            select.select([], [descriptor], [])
