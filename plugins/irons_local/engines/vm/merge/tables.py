"""What the tables of a disk say about each of its clusters (QEMU's docs/interop/qcow2.txt, "Cluster mapping").

A QEMU writes them, or who broke out of it: what is read is checked, and bounded by the size that the machine's disk has.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from irons_local.engines.vm.qcow2 import CLUSTER, HEAD, read_header

ENTRIES = CLUSTER // 8
"""How many clusters one table of the second level maps."""

COPIED = 1 << 63
NOTHING = 1
"""The flag of a cluster that reads as zeros."""

_PLACE = ((1 << 56) - 1) & ~(CLUSTER - 1)
ABSENT, ZEROS, DATA = 0, 1, 2
"""A cluster is in no layer, or reads as zeros, or is in the layer of that number less `DATA`."""


class DamagedError(Exception):
    """A disk says what no disk of irons says."""


class Table(NamedTuple):
    """What one table of the second level of several disks over one another says.

    Attributes:
        kinds: for each cluster `ABSENT`, `ZEROS`, or `DATA` and the number of the disk that has it.
        places: for each cluster where it is in that disk.
    """

    kinds: bytearray
    places: array[int]


class Disk:
    """One disk, to read.

    Args:
        descriptor: the file.
        most: bytes that its guest sees at most.

    Raises:
        DamagedError: it is not a disk of irons.
        OSError: it cannot be read.
    """

    def __init__(self, descriptor: int, most: int) -> None:
        try:
            told = read_header(os.pread(descriptor, HEAD, 0))
        except ValueError as error:
            raise DamagedError(str(error)) from error
        if not 0 < told.size <= most or told.size % 512:
            raise DamagedError(f"it says that it has {told.size} bytes")
        self.descriptor = descriptor
        self.size = told.size
        self.tables = tables_of(told.size)
        if told.entries < self.tables:
            raise DamagedError("its table is too short")
        self._first = _words(descriptor, told.tables_at, self.tables)

    def table(self, number: int) -> array[int] | None:
        """The entries of a table of the second level; None where it says nothing.

        Raises:
            DamagedError: it has a place where no table can be.
            OSError: it cannot be read.
        """
        entry = self._first[number] if number < self.tables else 0
        if entry & ~(COPIED | _PLACE):
            raise DamagedError("a table of it has an unknown mark")
        place = entry & _PLACE
        return _words(self.descriptor, place, ENTRIES) if place else None


def tables_of(size: int) -> int:
    """How many tables of the second level a disk of a size has."""
    return -(-size // (CLUSTER * ENTRIES))


def _words(descriptor: int, place: int, count: int) -> array[int]:
    words = array("Q")
    # What lies behind the end of the file reads as zeros.
    words.frombytes(os.pread(descriptor, 8 * count, place).ljust(8 * count, b"\0"))
    if sys.byteorder == "little":
        words.byteswap()
    return words


def seen(disks: Sequence[Disk], number: int) -> Table | None:
    """What disks over one another say in one table of the second level; None where they say nothing.

    Args:
        disks: topmost first.
        number: which table.

    Raises:
        DamagedError: an entry has a mark that irons does not know, such as of a compressed cluster.
        OSError: one cannot be read.
    """
    tables = [disk.table(number) for disk in disks]
    first = number * ENTRIES
    count = min(ENTRIES, -(-disks[0].size // CLUSTER) - first)
    # Behind its end a disk reads as zeros, and hides those below.
    ends = [min(max(-(-disk.size // CLUSTER) - first, 0), count) for disk in disks]
    if not any(tables) and min(ends) == count:
        return None
    kinds, places = bytearray(ENTRIES), array("Q", bytes(8 * ENTRIES))
    for cluster in range(count):
        for layer, table in enumerate(tables):
            if cluster >= ends[layer]:
                kinds[cluster] = ZEROS
                break
            entry = table[cluster] if table is not None else 0
            if not entry:
                continue
            if entry & ~(COPIED | _PLACE | NOTHING):
                raise DamagedError("a cluster of it has an unknown mark")
            if entry & NOTHING:
                kinds[cluster] = ZEROS
                break
            if entry & _PLACE:
                kinds[cluster] = DATA + layer
                places[cluster] = entry & _PLACE
                break
    return Table(kinds, places) if any(kinds) else None
