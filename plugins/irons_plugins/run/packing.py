"""Sending files as a tar stream (GNU format, which every tar reads): links as links, nothing of the owner's identity."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import IO

from irons_plugins.run.choosing import Chosen

_CHUNK = 1 << 20


def pack(chosen: Chosen, into: IO[bytes]) -> None:
    """Write the chosen files as an archive.

    What has gone since it was chosen is left out. A file that shrinks while it is read is filled up with zeros.

    Raises:
        OSError: the reader is gone, or a file cannot be read.
    """
    with tarfile.open(
        fileobj=into,
        mode="w|",
        format=tarfile.GNU_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
        bufsize=_CHUNK,
    ) as archive:
        for name in chosen.names:
            _add(archive, chosen.root, os.fsdecode(name))


def _add(archive: tarfile.TarFile, root: Path, name: str) -> None:
    info = tarfile.TarInfo(name)
    path = root / name
    try:
        state = path.lstat()
        if stat.S_ISLNK(state.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.fspath(path.readlink())
            archive.addfile(info)
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            return
        info.size, info.mtime = state.st_size, int(state.st_mtime)
        info.mode = 0o755 if state.st_mode & 0o111 else 0o644
        archive.addfile(info, _Whole(file, state.st_size))


class _Whole(io.RawIOBase):
    """A file as it was announced: of exactly so many bytes, even where it changes while it is read."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        """Read as much as is asked for, up to the announced size."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = bytearray()
        while len(data) < wanted:
            part = self._file.read(wanted - len(data))
            if not part:
                data += bytes(wanted - len(data))
                break
            data += part
        self._left -= wanted
        return bytes(data)
