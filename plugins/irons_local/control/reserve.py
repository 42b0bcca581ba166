"""Disk space that is set aside for the last steps: stopping and destroying sandboxes where the disk is full.

SQLite needs room to record even that a sandbox is gone. The room lies in a few files, which are removed one by one when
a step needs it. They are made again only when twice their size is free: a reserve never fills a disk.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

PIECES = 4
PIECE = 4 << 20
"""Bytes of one piece; a stop or a destroy writes some kilobytes."""
SIZE = PIECES * PIECE

_log = logging.getLogger(__name__)


class Reserve:
    """The files of the reserve.

    Args:
        directory: where they are; made when the first of them is.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def is_whole(self) -> bool:
        """True while no piece of it is missing."""
        return all(path.exists() for path in self._paths())

    def fill(self) -> bool:
        """Make the missing pieces, where twice the reserve's size is free; returns whether it is whole."""
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            for path in self._paths():
                if not path.exists():
                    if _free(self._directory) < 2 * SIZE:
                        return False
                    _allocate(path)
        except OSError as error:
            _log.warning("the disk reserve cannot be made: %s", error.strerror)
            return False
        return True

    def give(self) -> bool:
        """Remove one piece, so that its room is free; returns whether there was one."""
        for path in self._paths():
            try:
                path.unlink()
            except OSError:
                continue
            _log.warning("the disk is full: %d MiB of the reserve are given up", PIECE >> 20)
            return True
        return False

    def _paths(self) -> list[Path]:
        return [self._directory / str(number) for number in range(PIECES)]


def _free(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _allocate(path: Path) -> None:
    """Make one piece, whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, PIECE)
    except OSError:
        with suppress(OSError):
            fresh.unlink()
        raise
    finally:
        os.close(descriptor)
    fresh.rename(path)
