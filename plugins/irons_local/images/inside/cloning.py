"""A copy of a sandbox's changes that shares their blocks, where the file system can do that (`FICLONE`).

Runs by `linux.userns_main` in namespace B. It follows no link, and copies what an overlay's upper directory is made of:
files, directories, links, whiteouts and extended attributes. Sockets are left out.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

from irons_local.errors import EngineError
from irons_local.linux import syscalls
from irons_local.linux.disk_room import Room
from irons_local.linux.userns_main import Say

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REPORT_EVERY = 10_000


def is_possible(directory: Path) -> bool:
    """True where files below a directory can share blocks; tried with two unnamed files."""
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


def _unnamed(directory: Path) -> int:
    return os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)


def clone(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Copy a directory, for `userns_main`.

    Args:
        request: `source` and `target` (descriptors of directories; `target` is empty).
        say: called with the progress.

    Raises:
        EngineError: there is no room, or the directory cannot be copied.
    """
    os.umask(0)
    try:
        _Clone(request["source"], request["target"], say).run()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EngineError("limit", "the disk is full: the image does not fit") from error
        name = f" {error.filename}" if isinstance(error.filename, str) else ""
        raise EngineError("failed", f"the files cannot be copied:{name} {error.strerror}") from error
    except RecursionError as error:
        raise EngineError("failed", "the files cannot be copied: their directories are too deep") from error
    return {}


class _Clone:
    def __init__(self, source: int, target: int, say: Say) -> None:
        self._source = source
        self._target = target
        self._say = say
        self._links: dict[tuple[int, int], str] = {}
        self._room = Room(target, "the image")
        self._count = 0

    def run(self) -> None:
        self._directory(self._source, self._target, "")

    def _directory(self, source: int, target: int, below: str) -> None:
        with os.scandir(source) as entries:
            for entry in entries:
                self._room.take_entry()
                self._count += 1
                if self._count % _REPORT_EVERY == 0:
                    self._say("copying", None)
                self._entry(entry, source, target, below + entry.name)
        _copy_attributes(source, target, os.fstat(source))

    def _entry(self, entry: os.DirEntry[str], source: int, target: int, path: str) -> None:
        found = entry.stat(follow_symlinks=False)
        name, mode = entry.name, found.st_mode
        if stat.S_ISDIR(mode):
            os.mkdir(name, 0o700, dir_fd=target)
            with _Both(name, source, target, _DIRECTORY, _DIRECTORY) as (old, new):
                self._directory(old, new, f"{path}/")
        elif found.st_nlink > 1 and self._links.setdefault((found.st_dev, found.st_ino), path) != path:
            first = self._links[found.st_dev, found.st_ino]
            # Its way leads through directories that were made here, so through no link.
            os.link(first, name, src_dir_fd=self._target, dst_dir_fd=target, follow_symlinks=False)
        elif stat.S_ISREG(mode):
            reading = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            writing = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with _Both(name, source, target, reading, writing) as (old, new):
                syscalls.clone(new, old)
                _copy_attributes(old, new, found)
        elif stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            _own_by_name(name, target, found)
        elif not stat.S_ISSOCK(mode):
            os.mknod(name, mode, found.st_rdev, dir_fd=target)
            _own_by_name(name, target, found)


class _Both:
    """The same name, opened in two directories."""

    def __init__(self, name: str, source: int, target: int, reading: int, writing: int) -> None:
        self._old = os.open(name, reading, dir_fd=source)
        try:
            self._new = os.open(name, writing, 0o600, dir_fd=target)
        except OSError:
            os.close(self._old)
            raise

    def __enter__(self) -> tuple[int, int]:
        return self._old, self._new

    def __exit__(self, *_: object) -> None:
        os.close(self._old)
        os.close(self._new)


def _own_by_name(name: str, target: int, found: os.stat_result) -> None:
    os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_attributes(source: int, target: int, found: os.stat_result) -> None:
    # In this order: a change of owner clears the set-user-id bit and the capabilities.
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source):
        os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
