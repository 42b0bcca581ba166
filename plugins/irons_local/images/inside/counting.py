"""The sizes of a layer's files, counted once: a save does not wait for them. Runs by `linux.userns_main` in namespace A."""

from __future__ import annotations

import os
import stat
from typing import Any

from irons_local.linux.userns_main import Say

_BLOCK = 512
_NICE = 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def count(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """Add up the files below a directory, for `userns_main`, giving way to others who need the processor.

    Args:
        request: `tree` (descriptor of the directory).

    Returns:
        `size`, the bytes of the files without their holes, and `used`, those of all blocks.

    Raises:
        OSError: a directory cannot be read.
    """
    os.nice(_NICE)
    counted = _Count()
    counted.tree(request["tree"])
    return {"size": counted.size, "used": counted.used}


class _Count:
    def __init__(self) -> None:
        self.size = self.used = 0
        self._seen: set[int] = set()

    def tree(self, top: int) -> None:
        """Count what is below a directory, with one descriptor open however deep it goes.

        `..` is the way back: a layer's directories stay where they are.
        """
        here = os.dup(top)
        try:
            waiting = [self._entries(here)]
            while waiting:
                if waiting[-1]:
                    here = _moved(here, waiting[-1].pop())
                    waiting.append(self._entries(here))
                else:
                    waiting.pop()
                    here = _moved(here, "..") if waiting else here
        finally:
            os.close(here)

    def _entries(self, directory: int) -> list[str]:
        """Count the entries of one directory; gives the names of those that are directories."""
        inner = []
        with os.scandir(directory) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                    if found.st_ino in self._seen:
                        continue
                    self._seen.add(found.st_ino)
                used = found.st_blocks * _BLOCK
                self.used += used
                if stat.S_ISREG(found.st_mode):
                    self.size += min(found.st_size, used)
                elif stat.S_ISDIR(found.st_mode):
                    inner.append(entry.name)
        return inner


def _moved(here: int, name: str) -> int:
    """The descriptor of a directory in `here`, in the place of that of `here`."""
    there = os.open(name, _DIRECTORY, dir_fd=here)
    os.close(here)
    return there
