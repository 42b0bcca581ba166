"""Writing what the disks of a machine show over one another as one raw file with holes. Runs in namespace B.

What a guest controls: the content of the disks; who broke out of its QEMU also their tables. They are read as data. No more is written
than the disks take on the host, so that a small disk cannot fill that of the person who exports it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Any

from irons_local.disk_room import Room
from irons_local.engines.vm.merge.tables import (
    ABSENT,
    DATA,
    ENTRIES,
    DamagedError,
    Disk,
    Table,
    seen,
    tables_of,
)
from irons_local.engines.vm.qcow2 import CLUSTER
from irons_local.errors import EngineError
from irons_local.linux.userns_main import Say

_MOST_LAYERS = 250
_PIECE = 1 << 20
_BLOCK = 512


def write(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Write the file, for `userns_main`.

    Args:
        request: `disks` (descriptors, topmost first), `base` (that of the raw disk below them), `target` (that of an empty file), `size`
            (bytes that the guest sees).
        say: called with the progress.

    Raises:
        EngineError: there is no room, or a disk is not one of irons.
        OSError: one cannot be read, or the file cannot be written.
    """
    files, size = request["disks"], request["size"]
    try:
        disks = [Disk(descriptor, size) for descriptor in files]
        if len(disks) > _MOST_LAYERS:
            raise DamagedError("there are too many layers")
        target = _Target(request["target"], (*files, request["base"]))
        os.ftruncate(request["target"], size)
        count = tables_of(size)
        for number in range(count):
            say("writing the disk", number / count)
            for kind, place, at, length in _runs(disks, number, size):
                source = request["base"] if kind == ABSENT else files[kind - DATA]
                target.copy(source, place, at, length)
        os.fsync(request["target"])
    except DamagedError as error:
        raise EngineError("image", f"a disk is refused: {error}") from error
    return {}


def _runs(disks: Sequence[Disk], number: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Where the clusters of one table are that are not zeros: kind, place in its file, place on the disk, and bytes."""
    table = seen(disks, number) if disks else None
    first = number * ENTRIES * CLUSTER
    end = min(first + ENTRIES * CLUSTER, size)
    if table is None:
        yield ABSENT, first, first, end - first
        return
    for cluster in range(-(-(end - first) // CLUSTER)):
        at = first + cluster * CLUSTER
        kind = table.kinds[cluster]
        if kind == ABSENT or kind >= DATA:
            yield kind, _place(table, cluster, at), at, min(CLUSTER, end - at)


def _place(table: Table, cluster: int, at: int) -> int:
    return at if table.kinds[cluster] == ABSENT else table.places[cluster]


class _Target:
    """The file that is written.

    Args:
        descriptor: its.
        sources: the files that it is made of.
    """

    def __init__(self, descriptor: int, sources: Sequence[int]) -> None:
        self._descriptor = descriptor
        self._room = Room(descriptor, "the exported disk")
        self._left = sum(os.fstat(source).st_blocks * _BLOCK for source in sources)

    def copy(self, source: int, place: int, at: int, length: int) -> None:
        """Copy bytes of a file, and leave a hole for what is one there, or zeros."""
        end = place + length
        here = place
        while here < end:
            try:
                here = os.lseek(source, here, os.SEEK_DATA)
                until = min(os.lseek(source, here, os.SEEK_HOLE), end)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    # Only a hole follows.
                    return
                raise
            while here < until:
                piece = os.pread(source, min(_PIECE, until - here), here)
                if not piece:
                    return
                for offset in range(0, len(piece), CLUSTER):
                    self._put(piece[offset : offset + CLUSTER], at + here - place + offset)
                here += len(piece)

    def _put(self, data: bytes, at: int) -> None:
        if not data.strip(b"\0"):
            return
        self._left -= len(data)
        if self._left < 0:
            raise DamagedError("it has more in it than it takes on the disk")
        self._room.take(len(data))
        while data:
            done = os.pwrite(self._descriptor, data, at)
            data, at = data[done:], at + done
