"""The sizes of a layer's files and its seal, made once: a save does not wait for them. Runs by `linux.userns_main` in namespace A.

The seal is a sum of hashes, one of each entry: its place, kind, mode, owner, size, second of change and, of a link, where it leads.
It is the same after a copy that keeps those, such as from a backup, and another where anyone changed, added or removed a file.
Archives keep whole seconds. They are enough, as a layer is sealed seconds after its last change.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from typing import Any

from irons_local.linux.userns_main import Say

_SECOND = 1_000_000_000
_BLOCK = 512
_HASH = 16
_NICE = 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def count(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """Add up the files below a directory, for `userns_main`, giving way to others who need the processor.

    Args:
        request: `tree` (descriptor of the directory).

    Returns:
        `size`, the bytes of the files without their holes; `used`, those of all blocks; `seal`, hexadecimal.

    Raises:
        OSError: a directory cannot be read.
    """
    os.nice(_NICE)
    counted = _Count()
    counted.tree(request["tree"])
    return {"size": counted.size, "used": counted.used, "seal": counted.seal}


def seals(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """Make the seals of layers, for `userns_main`.

    Args:
        request: descriptors of their directories, by layer.

    Returns:
        Their seals, by layer; None of one whose files cannot be read.
    """
    return {layer: _seal(tree) for layer, tree in request.items()}


def _seal(tree: int) -> str | None:
    counted = _Count()
    try:
        counted.tree(tree)
    except OSError:
        return None
    return counted.seal


class _Count:
    def __init__(self) -> None:
        self.size = self.used = self._sum = 0
        self._seen: set[int] = set()

    @property
    def seal(self) -> str:
        return f"{self._sum % (1 << 8 * _HASH):0{2 * _HASH}x}"

    def tree(self, top: int) -> None:
        """Count what is below a directory, with one descriptor open however deep it goes.

        `..` is the way back: a layer's directories stay where they are.
        """
        here = os.dup(top)
        try:
            waiting = [(b"", self._entries(here, b""))]
            while waiting:
                place, names = waiting[-1]
                if names:
                    name = names.pop()
                    here = _moved(here, name)
                    place = _hash(place, os.fsencode(name))
                    waiting.append((place, self._entries(here, place)))
                else:
                    waiting.pop()
                    here = _moved(here, "..") if waiting else here
        finally:
            os.close(here)

    def _entries(self, directory: int, place: bytes) -> list[str]:
        """Count the entries of one directory, of whose path `place` is the hash; gives the names of those that are directories."""
        inner = []
        with os.scandir(directory) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                leads = os.readlink(entry.name, dir_fd=directory) if entry.is_symlink() else ""
                self._add(found, _hash(place, os.fsencode(entry.name), _told(found), os.fsencode(leads)))
                if stat.S_ISDIR(found.st_mode):
                    inner.append(entry.name)
        return inner

    def _add(self, found: os.stat_result, entry: bytes) -> None:
        self._sum += int.from_bytes(entry, "big")
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            if found.st_ino in self._seen:
                return
            self._seen.add(found.st_ino)
        used = found.st_blocks * _BLOCK
        self.used += used
        if stat.S_ISREG(found.st_mode):
            self.size += min(found.st_size, used)


def _told(found: os.stat_result) -> bytes:
    """What the seal has of an entry next to its place and its name."""
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    told = (found.st_mode, found.st_uid, found.st_gid, found.st_rdev, size, found.st_mtime_ns // _SECOND)
    return struct.pack("<IIIQQq", *told)


def _hash(*parts: bytes) -> bytes:
    made = hashlib.blake2b(digest_size=_HASH)
    for part in parts:
        made.update(struct.pack("<I", len(part)) + part)
    return made.digest()


def _moved(here: int, name: str) -> int:
    """The descriptor of a directory in `here`, in the place of that of `here`."""
    there = os.open(name, _DIRECTORY, dir_fd=here)
    os.close(here)
    return there
