"""An empty disk that keeps only what differs from another one: qcow2, version 3 (QEMU's docs/interop/qcow2.txt).

It names no backing file: whoever starts QEMU names the one that it is read over, each time.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
_CLUSTER = CLUSTER
_REFCOUNT_ORDER = 4
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_HEADER_SIZE = 104
_ENTRY = 8
_MARKED = 3
"""Of the features that a reader must know: QEMU marks a disk that was not closed, or that it found damaged."""

_DATA_FILE = 4
HEAD = _HEADER.size
"""Bytes that `foreign` looks at."""


class Header(NamedTuple):
    """What the header of a disk of ours says.

    Attributes:
        size: bytes that the guest sees.
        entries: how many the table of the first level has.
        tables_at: where that is.
        counts_at: where the refcount table is.
        counts: clusters that it takes.
    """

    size: int
    entries: int
    tables_at: int
    counts_at: int
    counts: int


def header(told: Header) -> bytes:
    """The header of a disk."""
    return _HEADER.pack(
        b"QFI\xfb",
        3,
        *(0, 0),
        CLUSTER_BITS,
        told.size,
        0,
        told.entries,
        told.tables_at,
        told.counts_at,
        told.counts,
        *(0, 0),
        *(0, 0, 0),
        _REFCOUNT_ORDER,
        _HEADER_SIZE,
    )


def read_header(head: bytes) -> Header:
    """What the header of a disk says whose tables irons can read.

    Raises:
        ValueError: it is not a disk of irons, with why.
    """
    why = foreign(head)
    if why:
        raise ValueError(why)
    _, _, _, _, bits, size, _, entries, tables_at, counts_at, counts, *_ = _HEADER.unpack(head[:HEAD])
    if bits != CLUSTER_BITS:
        raise ValueError("its clusters have another size")
    return Header(size, entries, tables_at, counts_at, counts)


def empty(size: int) -> bytes:
    """The whole file of an empty disk.

    Args:
        size: bytes that the guest sees, a multiple of 512.

    Raises:
        ValueError: it is not, or is larger than one refcount block can count the tables of.
    """
    if size <= 0 or size % 512:
        raise ValueError(f"{size} bytes are not whole sectors")
    # One table of the second level covers a cluster of entries, each of which is a cluster of the disk.
    entries = -(-size // (_CLUSTER * (_CLUSTER // _ENTRY)))
    l1_clusters = -(-entries * _ENTRY // _CLUSTER)
    used = 3 + l1_clusters
    if used > _CLUSTER * 8 >> _REFCOUNT_ORDER:
        raise ValueError(f"{size} bytes are too many")
    head = header(Header(size, entries, 3 * _CLUSTER, _CLUSTER, 1))
    # Clusters: header, refcount table, refcount block, table of the first level.
    return b"".join(
        (
            head.ljust(_CLUSTER, b"\0"),
            struct.pack(">Q", 2 * _CLUSTER).ljust(_CLUSTER, b"\0"),
            (struct.pack(">H", 1) * used).ljust(_CLUSTER, b"\0"),
            bytes(l1_clusters * _CLUSTER),
        )
    )


def foreign(head: bytes) -> str:
    """What the beginning of a disk says that neither `empty` nor QEMU writes there; "" where it says nothing.

    Who broke out of the guest can write it. QEMU would open some of it by itself.

    Args:
        head: the first `HEAD` bytes.
    """
    if len(head) < HEAD:
        return "it has no header"
    magic, version, backing, length, _, _, crypt, *_, features, _, _, _, _ = _HEADER.unpack(head[:HEAD])
    if (magic, version) != (b"QFI\xfb", 3):
        return "it is not in the format qcow2, version 3"
    if backing or length:
        return "it names a file to be read over"
    if features & _DATA_FILE:
        return "it names a file that has its data"
    if crypt:
        return "it is encrypted"
    if features & ~_MARKED:
        return "it has features that no disk of irons has"
    return ""
