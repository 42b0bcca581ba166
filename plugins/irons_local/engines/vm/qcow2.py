"""An empty disk that keeps only what differs from another one: qcow2, version 3 (QEMU's docs/interop/qcow2.txt).

It names no backing file: whoever starts QEMU names the one that it is read over, each time.
"""

from __future__ import annotations

import struct

CLUSTER_BITS = 16
_CLUSTER = 1 << CLUSTER_BITS
_REFCOUNT_ORDER = 4
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_HEADER_SIZE = 104
_ENTRY = 8


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
    header = _HEADER.pack(
        b"QFI\xfb",
        3,
        *(0, 0),
        CLUSTER_BITS,
        size,
        0,
        entries,
        3 * _CLUSTER,
        _CLUSTER,
        1,
        *(0, 0),
        *(0, 0, 0),
        _REFCOUNT_ORDER,
        _HEADER_SIZE,
    )
    # Clusters: header, refcount table, refcount block, table of the first level.
    return b"".join(
        (
            header.ljust(_CLUSTER, b"\0"),
            struct.pack(">Q", 2 * _CLUSTER).ljust(_CLUSTER, b"\0"),
            (struct.pack(">H", 1) * used).ljust(_CLUSTER, b"\0"),
            bytes(l1_clusters * _CLUSTER),
        )
    )
