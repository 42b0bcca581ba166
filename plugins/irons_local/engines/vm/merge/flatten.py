"""Writing what several disks show over one another into one new disk, and comparing them. Runs in namespace B.

What a guest controls: the content of the disks; who broke out of its QEMU also their tables. They are read as data, bounded by
the size of the machine's disk and by the room on the host's.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from irons_local.disk_room import Room
from irons_local.engines.vm.merge.tables import (
    COPIED,
    DATA,
    ENTRIES,
    NOTHING,
    ZEROS,
    DamagedError,
    Disk,
    Table,
    seen,
    tables_of,
)
from irons_local.engines.vm.qcow2 import CLUSTER, Header, header
from irons_local.errors import EngineError
from irons_local.linux.userns_main import Say

_NICE = 10
_COUNTED = CLUSTER // 2
"""How many clusters one block of refcounts counts."""

_PIECE = 16 << 20
_MOST_LAYERS = 250
_ONE = struct.pack(">H", 1)


def flatten(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """Write one disk of several, for `userns_main`, and compare it with them.

    Args:
        request: `disks` (descriptors, topmost first), `target` (that of an empty file), `size` (bytes that a guest of them sees at most).

    Raises:
        EngineError: there is no room, or a disk is not one of irons.
        OSError: one cannot be read, or the new one cannot be written, or is not what was written.
    """
    os.nice(_NICE)
    target = request["target"]
    try:
        disks = [Disk(descriptor, request["size"]) for descriptor in request["disks"]]
        _check(disks)
        _write(disks, target)
        os.fsync(target)
        # What is compared comes from the disk, and not from the memory that it was written to.
        os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
        _compare(disks, Disk(target, request["size"]))
    except DamagedError as error:
        raise EngineError("image", f"a disk is refused: {error}") from error
    return {}


def _check(disks: Sequence[Disk]) -> None:
    if len(disks) > _MOST_LAYERS:
        raise DamagedError("there are too many")
    if any(disk.size % CLUSTER for disk in disks) and len({disk.size for disk in disks}) > 1:
        # A cluster of which one disk has a part only would be in two of them.
        raise DamagedError("the sizes of the disks differ by parts of clusters")


class _Run(NamedTuple):
    """Neighbours of one disk, in the order in which the guest has them.

    Attributes:
        layer: the disk.
        place: where they are.
        length: how many clusters.
    """

    layer: int
    place: int
    length: int


def _runs(table: Table) -> Iterator[_Run]:
    layer, place, count = -1, 0, 0
    for kind, at in zip(table.kinds, table.places, strict=True):
        if kind < DATA:
            continue
        if kind - DATA == layer and at == place + count * CLUSTER:
            count += 1
            continue
        if count:
            yield _Run(layer, place, count)
        layer, place, count = kind - DATA, at, 1
    if count:
        yield _Run(layer, place, count)


def _write(disks: Sequence[Disk], target: int) -> None:
    size = disks[0].size
    found = {number: table for number in range(tables_of(size)) if (table := seen(disks, number)) is not None}
    entries = tables_of(size)
    first_level = -(-entries * 8 // CLUSTER)
    data = sum(sum(kind >= DATA for kind in table.kinds) for table in found.values())
    used, blocks, counts = _laid(1 + first_level + len(found) + data)
    room = Room(target, "the merged disk")
    room.take(used * CLUSTER)
    tables_at = (1 + counts + blocks) * CLUSTER
    at = tables_at + first_level * CLUSTER
    first = array("Q", bytes(8 * entries))
    for number, table in found.items():
        first[number] = at | COPIED
        second = array("Q", bytes(8 * ENTRIES))
        place = at + CLUSTER
        for cluster, kind in enumerate(table.kinds):
            if kind == ZEROS:
                second[cluster] = NOTHING
            elif kind >= DATA:
                second[cluster] = place | COPIED
                place += CLUSTER
        _put(target, _bytes(second), at)
        at += CLUSTER
        for run in _runs(table):
            _copy(disks[run.layer].descriptor, target, run.place, at, run.length * CLUSTER)
            at += run.length * CLUSTER
    if at != used * CLUSTER:
        raise OSError("the merged disk has another length than was planned")
    _put(target, _bytes(first), tables_at)
    _put(target, _bytes(array("Q", ((1 + counts + block) * CLUSTER for block in range(blocks)))), CLUSTER)
    _put(target, _ONE * used, (1 + counts) * CLUSTER)
    os.ftruncate(target, used * CLUSTER)
    # Last: a file without it is not a disk.
    _put(target, header(Header(size, entries, tables_at, CLUSTER, counts)), 0)


def _laid(others: int) -> tuple[int, int, int]:
    """How many clusters a disk has with those that count all of them: all, the blocks of refcounts, and the table of these."""
    blocks = counts = 1
    while True:
        used = others + blocks + counts
        needed = -(-used // _COUNTED)
        table = -(-needed * 8 // CLUSTER)
        if needed <= blocks and table <= counts:
            return used, blocks, counts
        blocks, counts = max(needed, blocks), max(table, counts)


def _bytes(words: array[int]) -> bytes:
    big = array("Q", words)
    if sys.byteorder == "little":
        big.byteswap()
    return big.tobytes()


def _put(target: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(target, view, place)
        view, place = view[done:], place + done


def _copy(source: int, target: int, old: int, new: int, size: int) -> None:
    """Copy a part of a file; what lies behind its end reads as zeros, and stays a hole."""
    end = new + size
    with suppress(OSError):
        # Without a copy where the file system shares blocks; one that cannot do it says so.
        while new < end:
            done = os.copy_file_range(source, target, min(end - new, _PIECE), old, new)
            if not done:
                return
            old, new = old + done, new + done
    while new < end:
        data = os.pread(source, min(end - new, _PIECE), old)
        if not data:
            return
        _put(target, data, new)
        old, new = old + len(data), new + len(data)


def _compare(disks: Sequence[Disk], made: Disk) -> None:
    """Refuse a disk that does not show what others do over one another. Raises OSError where it does not."""
    if made.size != disks[0].size:
        raise OSError("the merged disk has another size")
    for number in range(made.tables):
        wanted, found = seen(disks, number), seen([made], number)
        if wanted is None or found is None:
            if wanted is not found:
                raise OSError("the merged disk lacks a table, or has one more")
            continue
        for cluster, (kind, other) in enumerate(zip(wanted.kinds, found.kinds, strict=True)):
            if min(kind, DATA) != other:
                raise OSError("the merged disk has a cluster of another kind")
            if kind >= DATA and not _same(
                disks[kind - DATA].descriptor, made.descriptor, wanted.places[cluster], found.places[cluster]
            ):
                raise OSError("the merged disk has a cluster with another content")


def _same(one: int, other: int, place: int, at: int) -> bool:
    return os.pread(one, CLUSTER, place).ljust(CLUSTER, b"\0") == os.pread(other, CLUSTER, at).ljust(
        CLUSTER, b"\0"
    )
