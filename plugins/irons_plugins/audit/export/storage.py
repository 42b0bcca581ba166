"""A file that is written and its cursor file, as the few steps that a kill may come between."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from irons.errors import UsageError


class Storage(Protocol):
    """The output and the cursor of one export. Each step has happened wholly, in part or not at all where the process ends."""

    def size(self) -> int:
        """Return the bytes of the output."""
        ...

    def truncate(self, length: int) -> None:
        """Cut the output to so many bytes, durably."""
        ...

    def append(self, data: bytes) -> None:
        """Write bytes to the end of the output."""
        ...

    def sync(self) -> None:
        """Return once all that was appended is durable."""
        ...

    def load_cursor(self) -> bytes | None:
        """Return the text of the cursor; None where there is none."""
        ...

    def store_cursor(self, text: bytes) -> None:
        """Replace the text of the cursor, as a whole and durably."""
        ...


class CursorFile:
    """A cursor in a file, replaced by a rename.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load_cursor(self) -> bytes | None:
        """Return the text of the cursor; None where there is no file."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{self._path} cannot be read: {error.strerror}") from None

    def store_cursor(self, text: bytes) -> None:
        """Replace the text of the cursor, as a whole and durably."""
        fresh = self._path.with_name(f".{self._path.name}.new")
        try:
            descriptor = os.open(
                fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            try:
                _write(descriptor, text)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            fresh.replace(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise UsageError(f"{self._path} cannot be written: {error.strerror}") from None


class FileStorage(CursorFile):
    """An output file, which this process alone writes, and a cursor file.

    Args:
        to: The output; made where it is missing.
        cursor: The cursor file.

    Raises:
        UsageError: The output cannot be opened, is not a plain file, or another export writes it.
    """

    def __init__(self, to: Path, cursor: Path) -> None:
        super().__init__(cursor)
        self._to = to
        self._descriptor = open_output(to)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise UsageError(
                f"another export writes {to}", hint="give each export a file and a cursor of its own"
            ) from None
        sync_directory(to.parent)

    def size(self) -> int:
        """Return the bytes of the output."""
        return os.fstat(self._descriptor).st_size

    def truncate(self, length: int) -> None:
        """Cut the output to so many bytes, durably."""
        os.ftruncate(self._descriptor, length)
        os.fsync(self._descriptor)

    def append(self, data: bytes) -> None:
        """Write bytes to the end of the output."""
        try:
            _write(self._descriptor, data)
        except OSError as error:
            raise UsageError(f"{self._to} cannot be written: {error.strerror}") from None

    def sync(self) -> None:
        """Return once all that was appended is durable."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the output."""
        os.close(self._descriptor)


def open_output(to: Path) -> int:
    """Open a plain file to append to, made for its owner alone where it is missing; returns its descriptor.

    Raises:
        UsageError: It cannot be opened, or is not a plain file.
    """
    try:
        descriptor = os.open(to, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise UsageError(f"{to} cannot be written: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{to} is not a plain file", hint="without --to the records go to stdout")
    return descriptor


def sync_directory(directory: Path) -> None:
    """Make a new name in a directory durable, where its file system can."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
