"""What a copy of a directory in namespace B is made of: a directory and its copy, a file and its copy, data and attributes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple, Self

from irons_local.disk_room import Room
from irons_local.linux import syscalls

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MARKS = (syscalls.OPAQUE_OF_ROOT, "trusted.overlay.redirect")
_PIECE = 16 << 20


def is_possible(directory: Path | int) -> bool:
    """True where files below a directory, given by its path or a descriptor, can share blocks; tried with two unnamed files."""
    made: list[int] = []
    try:
        made.append(_unnamed(directory))
        made.append(_unnamed(directory))
        os.write(made[0], b"x")
        syscalls.clone(made[1], made[0])
    except OSError:
        return False
    finally:
        for descriptor in made:
            os.close(descriptor)
    return True


def _unnamed(directory: Path | int) -> int:
    flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
    if isinstance(directory, int):
        return os.open(".", flags, 0o600, dir_fd=directory)
    return os.open(directory, flags, 0o600)


class Pair(NamedTuple):
    """Descriptors of a directory and of its copy."""

    old: int
    new: int

    def down(self, name: str) -> Pair:
        """The directory of that name in both, in the place of these; `..` goes up."""
        old = os.open(name, DIRECTORY, dir_fd=self.old)
        try:
            new = os.open(name, DIRECTORY, dir_fd=self.new)
        except OSError:
            os.close(old)
            raise
        self.close()
        return Pair(old, new)

    def close(self) -> None:
        """Close both."""
        os.close(self.old)
        os.close(self.new)


def copy_marks(source: int, target: int) -> None:
    """Copy from a directory to its copy what the overlay of the machine's root says of directories.

    Only the machine's root can read that, so it does this itself: by descriptors, through no link.

    Args:
        source: descriptor of the directory.
        target: descriptor of its copy.

    Raises:
        OSError: it cannot be read or written.
    """
    here = Pair(os.dup(source), os.dup(target))
    try:
        waiting = [_marked(here)]
        while waiting:
            if waiting[-1]:
                name = waiting[-1].pop()
                here = here.down(name)
                waiting.append(_marked(here))
            else:
                waiting.pop()
                here = here.down("..") if waiting else here
    finally:
        here.close()


def _marked(here: Pair) -> list[str]:
    """Copy the marks of one directory; gives the names of the directories in it."""
    for name in os.listxattr(here.old):
        if name in _MARKS:
            os.setxattr(here.new, name, os.getxattr(here.old, name))
    with os.scandir(here.old) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


class Both:
    """A file, opened, and its copy."""

    def __init__(self, name: str, here: Pair) -> None:
        self.old = os.open(name, _READING, dir_fd=here.old)
        try:
            self.new = os.open(name, _WRITING, 0o600, dir_fd=here.new)
        except OSError:
            os.close(self.old)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.old)
        os.close(self.new)


class Contents:
    """Gives files the data of others.

    Args:
        room: what may be written.
        shares: share blocks.
        may_copy: copy data where blocks cannot be shared.
    """

    def __init__(self, room: Room, *, shares: bool, may_copy: bool) -> None:
        self._room = room
        self._shares = shares
        self._may_copy = may_copy

    def give(self, old: int, new: int, size: int) -> None:
        """Give a new file the data of an old one, holes included.

        Raises:
            OSError: it cannot be read or written.
            EngineError: the disk is full.
        """
        if self._shares:
            try:
                syscalls.clone(new, old)
            except OSError:
                # One file may be of a kind that shares none, such as one without copy-on-write.
                if not self._may_copy:
                    raise
            else:
                return
        at = 0
        while at < size:
            try:
                at = os.lseek(old, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            end = min(os.lseek(old, at, os.SEEK_HOLE), size)
            at = self._copy(old, new, at, end)
        os.ftruncate(new, size)

    def _copy(self, old: int, new: int, at: int, end: int) -> int:
        """Copy what lies between two positions; gives where it ends, which is `end` unless the file has become shorter."""
        os.lseek(new, at, os.SEEK_SET)
        while at < end:
            piece = min(end - at, _PIECE)
            self._room.take(piece)
            done = os.sendfile(new, old, at, piece)
            if not done:
                break
            at += done
        return max(at, end)


def own_by_name(name: str, target: int, found: os.stat_result) -> None:
    """Give an entry that cannot be opened the owner and the times of another; raises OSError."""
    os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def copy_attributes(source: int, target: int, found: os.stat_result) -> None:
    """Give a file or directory the owner, mode, extended attributes and times of another, whose status is `found`; raises OSError."""
    # In this order: a change of owner clears the set-user-id bit and the capabilities.
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    there = os.listxattr(source)
    for name in os.listxattr(target):
        # A list for access may be there before it is copied: from the directory's default for new files.
        if name not in there and name.startswith(("user.", "system.posix_acl_")):
            os.removexattr(target, name)
    for name in there:
        # btrfs lists these to whoever cannot read them; `copy_marks` copies those that matter.
        if not name.startswith("trusted."):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
