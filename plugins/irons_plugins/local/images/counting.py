"""The sizes of a layer's files, counted once: a save does not wait for them. Runs by `engines.inside` in namespace A."""

from __future__ import annotations

import os
import stat
from typing import Any

from irons_plugins.local.engines.inside import Say

_BLOCK = 512
_NICE = 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def count(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """Add up the files below a directory, for `inside`, giving way to others who need the processor.

    Args:
        request: `tree` (descriptor of the directory).

    Returns:
        `size`, the bytes of the files without their holes, and `used`, those of all blocks.

    Raises:
        OSError: a directory cannot be read.
    """
    os.nice(_NICE)
    counted = _Count()
    counted.directory(request["tree"])
    return {"size": counted.size, "used": counted.used}


class _Count:
    def __init__(self) -> None:
        self.size = self.used = 0
        self._seen: set[int] = set()

    def directory(self, descriptor: int) -> None:
        with os.scandir(descriptor) as entries:
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
                    inner = os.open(entry.name, _DIRECTORY, dir_fd=descriptor)
                    try:
                        self.directory(inner)
                    finally:
                        os.close(inner)
