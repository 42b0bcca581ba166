"""Putting what a sandbox sent below one directory here: through no link, never outside, within bounds, holes kept.

Every path is walked from the directory's descriptor, a component at a time and without following links. A file is written under
a name of its own and renamed when it is whole, so it replaces a link and never writes through one.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from irons_plugins.run.tar_reader import ArchiveEnd, Data, EntryKind, Event, FileEnd, TarEntry

MOST_ENTRIES = 1_000_000
DEEPEST = 256
"""Components of a path."""

LARGEST_FILE = 2**44
"""Bytes of one file, holes included."""

RESERVE = 256 << 20
"""Bytes of the disk that stay free."""

_LOOK_EVERY = 64 << 20
_PAGE = 4096
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_BROUGHT = ".git"
"""A repository's own files: git here would run hooks and programs that they name."""


class PlacingError(Exception):
    """What came is refused, or cannot be written; the message is one line."""


@dataclass
class Placed:
    """What was put in place.

    Attributes:
        files: files, links among them.
        size: bytes of data, holes not counted.
        left_out: how many entries were left out, by the reason.
    """

    files: int = 0
    size: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, why: str) -> None:
        """Count one more."""
        self.left_out[why] = self.left_out.get(why, 0) + 1


class Placer:
    """Writes the entries of one archive below a directory.

    Args:
        target: the directory; it is opened once, and everything is relative to it.
        below: the components that every entry's path must begin with; empty for what is brought as the directory itself.
        most: bytes of data that may come.
    """

    def __init__(self, target: Path, below: tuple[str, ...], most: int) -> None:
        self.placed = Placed()
        self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._below = below
        self._most = most
        self._entries = self._unlooked = 0
        self._file: _File | None = None
        self._parent: tuple[tuple[str, ...], int] | None = None
        mask = os.umask(0)
        os.umask(mask)
        self._mask = mask

    def take(self, event: Event) -> None:
        """Carry out one event of the archive.

        Raises:
            PlacingError: it is refused, or the disk has no room.
            OSError: it cannot be written.
        """
        if isinstance(event, TarEntry):
            self._entry(event)
        elif isinstance(event, Data):
            self._data(event)
        elif isinstance(event, FileEnd) and self._file is not None:
            file, self._file = self._file, None
            file.finish(self._mask)
            self.placed.files += 1
        elif isinstance(event, ArchiveEnd):
            self.close()

    def close(self) -> None:
        """Remove what is not whole, and close what is open."""
        if self._file is not None:
            self._file.abandon()
            self._file = None
        self._leave_parent()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _entry(self, entry: TarEntry) -> None:
        self._entries += 1
        if self._entries > MOST_ENTRIES:
            raise PlacingError(f"more than {MOST_ENTRIES:,} files arrived")
        path = checked_path(entry.name)
        if path[: len(self._below)] != self._below[: len(path)]:
            raise PlacingError(f"{shown(entry.name)} came, and was not asked for")
        if any(part.casefold() == _NOT_BROUGHT for part in path[len(self._below) :]):
            self.placed.leave_out(f"of {_NOT_BROUGHT}")
        elif len(path) < len(self._below) or entry.kind is EntryKind.DIRECTORY:
            if path:
                self._in_parent((*path, ""))
        elif not path:
            raise PlacingError("a file came where a directory was asked for")
        elif entry.kind is EntryKind.FILE:
            if entry.size > LARGEST_FILE:
                raise PlacingError(f"{shown(entry.name)} claims to have {entry.size} bytes")
            self._file = _File(self._in_parent(path), path[-1], entry)
        elif entry.kind is EntryKind.SYMLINK:
            self._symlink(entry, path)
        elif entry.kind is EntryKind.HARDLINK:
            self._hardlink(entry, path)
        else:
            self.placed.leave_out("devices, pipes and sockets")

    def _data(self, event: Data) -> None:
        self.placed.size += len(event.data)
        if self.placed.size > self._most:
            raise PlacingError(f"more than {self._most:,} bytes came")
        self._unlooked += len(event.data)
        if self._unlooked >= _LOOK_EVERY:
            self._unlooked = 0
            room = os.fstatvfs(self._root)
            if room.f_bavail * room.f_frsize < RESERVE:
                raise PlacingError("the disk has less than 256 MiB left")
        if self._file is not None:
            self._file.write(event)

    def _symlink(self, entry: TarEntry, path: tuple[str, ...]) -> None:
        if not stays_inside(entry.link, len(path) - len(self._below) - 1):
            self.placed.leave_out("links that lead out")
            return
        directory = self._in_parent(path)
        own = _own_name()
        os.symlink(entry.link, own, dir_fd=directory)
        _put(directory, own, path[-1])
        self.placed.files += 1

    def _hardlink(self, entry: TarEntry, path: tuple[str, ...]) -> None:
        source = checked_path(entry.link)
        if source[: len(self._below)] != self._below or not source:
            raise PlacingError(f"{shown(entry.name)} is a link to what was not asked for")
        if any(part.casefold() == _NOT_BROUGHT for part in source):
            self.placed.leave_out(f"of {_NOT_BROUGHT}")
            return
        own = _own_name()
        directory = os.dup(self._in_parent(source))
        try:
            try:
                found = os.stat(source[-1], dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                self.placed.leave_out("links to what was left out")
                return
            if not stat.S_ISREG(found.st_mode):
                self.placed.leave_out("links to what is not a file")
                return
            os.link(source[-1], own, src_dir_fd=directory, dst_dir_fd=self._root, follow_symlinks=False)
        finally:
            os.close(directory)
        try:
            os.rename(own, path[-1], src_dir_fd=self._root, dst_dir_fd=self._in_parent(path))
        finally:
            # A rename over another name of the same file leaves both.
            with suppress(FileNotFoundError):
                os.unlink(own, dir_fd=self._root)
        self.placed.files += 1

    def _in_parent(self, path: tuple[str, ...]) -> int:
        """A descriptor of the directory that a path lies in, made where it is missing; valid until the next call."""
        wanted = path[:-1]
        if not wanted:
            return self._root
        if self._parent is not None and self._parent[0] == wanted:
            return self._parent[1]
        self._leave_parent()
        here = os.dup(self._root)
        try:
            for part in wanted:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o777, dir_fd=here)
                try:
                    there = os.open(part, _DIRECTORY, dir_fd=here)
                except OSError as error:
                    raise PlacingError(f"{'/'.join(wanted)!r}: {part!r} is not a directory here") from error
                os.close(here)
                here = there
        except BaseException:
            os.close(here)
            raise
        self._parent = wanted, here
        return here

    def _leave_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None


class _File:
    """One file on its way, under a name of its own."""

    def __init__(self, directory: int, name: str, entry: TarEntry) -> None:
        self._directory = os.dup(directory)
        self._name = name
        self._entry = entry
        self._own = _own_name()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._own, flags, 0o600, dir_fd=self._directory)
        except BaseException:
            os.close(self._directory)
            raise

    def write(self, event: Data) -> None:
        """Write a part; pages of zeros become holes."""
        data, begin, here = event.data, 0, 0
        while here < len(data):
            end = min(len(data), here + _PAGE - (event.at + here) % _PAGE)
            # Only a page that begins with a zero is looked at whole.
            if not data[here] and data.count(0, here, end) == end - here:
                self._write(data, begin, here, event.at)
                begin = end
            here = end
        self._write(data, begin, here, event.at)

    def _write(self, data: bytes, begin: int, end: int, at: int) -> None:
        view, at = memoryview(data)[begin:end], at + begin
        while view:
            written = os.pwrite(self._descriptor, view, at)
            view, at = view[written:], at + written

    def finish(self, mask: int) -> None:
        """Give the file its size, mode, time and name."""
        try:
            os.ftruncate(self._descriptor, self._entry.size)
            os.fchmod(self._descriptor, (0o777 if self._entry.mode & 0o111 else 0o666) & ~mask)
            with suppress(OSError, OverflowError):
                os.utime(self._descriptor, (self._entry.mtime, self._entry.mtime))
            _put(self._directory, self._own, self._name)
        except BaseException:
            self.abandon()
            raise
        self._close()

    def abandon(self) -> None:
        """Remove it."""
        with suppress(OSError):
            os.unlink(self._own, dir_fd=self._directory)
        self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            os.close(self._directory)
            self._descriptor = -1


def checked_path(name: bytes) -> tuple[str, ...]:
    """The components of a path that an archive names.

    Raises:
        PlacingError: it is absolute, climbs, or is longer or deeper than a path may be.
    """
    parts = tuple(os.fsdecode(part) for part in name.split(b"/") if part not in (b"", b"."))
    if name.startswith(b"/") or ".." in parts or b"\0" in name:
        raise PlacingError(f"{shown(name)} leads out of the directory")
    if len(parts) > DEEPEST or len(name) > 4096 or any(len(os.fsencode(part)) > 255 for part in parts):
        raise PlacingError(f"{shown(name)} is too long")
    return parts


def stays_inside(link: bytes, depth: int) -> bool:
    """Whether a symbolic link `depth` directories below what is brought can lead to nothing outside it.

    Only a link that first climbs and then descends is sure to: after a name, which may be a link itself, `..` is anywhere.
    """
    parts = [part for part in link.split(b"/") if part not in (b"", b".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == b"..":
        climbs += 1
    if any(os.fsdecode(part).casefold() == _NOT_BROUGHT for part in parts):
        return False
    return bool(link) and not link.startswith(b"/") and b".." not in parts[climbs:] and climbs <= depth


def shown(name: bytes) -> str:
    """A name of the sandbox's, fit for a message."""
    return ascii(os.fsdecode(name[:200]))


def _own_name() -> str:
    return f".irons-{secrets.token_hex(8)}"


def _put(directory: int, own: str, name: str) -> None:
    """Give a file or link its name, in the place of a file or link, never of a directory."""
    try:
        os.rename(own, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with suppress(OSError):
            os.unlink(own, dir_fd=directory)
        raise
