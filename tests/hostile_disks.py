"""Disks that name a file of the host, as a guest's root, or who broke out of a guest, may write them (QEMU's docs/interop/qcow2.txt)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

BOOT_BLOCK = 1024
"""Bytes before an ext4 file system: a guest's root can write there and go on."""

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_CLUSTER_BITS = 9
_CLUSTER = 1 << _CLUSTER_BITS
_SIZE = _CLUSTER * (_CLUSTER // 8)
"""What one table of the second level covers."""

_BACKING_FORMAT, _DATA_FILE = 0xE2792ACA, 0x44415441


def _disk(extension: tuple[int, bytes], *, name: bytes = b"", features: int = 0, crypt: int = 0) -> bytes:
    """A whole disk of `BOOT_BLOCK` bytes, none of which is written: all is read from what it names."""
    kind, text = extension
    head = _HEADER.size
    extensions = struct.pack(">II", kind, len(text)) + text.ljust(-(-len(text) // 8) * 8, b"\0") + bytes(8)
    place = head + len(extensions)
    header = _HEADER.pack(
        b"QFI\xfb",
        3,
        *(place if name else 0, len(name)),
        _CLUSTER_BITS,
        _SIZE,
        crypt,
        1,
        *(_CLUSTER, _CLUSTER, 1),
        *(0, 0),
        *(features, 0, 2 if features else 0),
        4,
        head,
    )
    first = header + extensions + name
    assert len(first) <= _CLUSTER
    return first.ljust(BOOT_BLOCK, b"\0")


def over(path: str) -> bytes:
    """A disk that is read over a file."""
    return _disk((_BACKING_FORMAT, b"raw"), name=path.encode())


def outside(path: str) -> bytes:
    """A disk that has its data in a file of its own."""
    return _disk((_DATA_FILE, path.encode()), features=4)


def described(path: str) -> bytes:
    """A disk that is read over what JSON describes."""
    return over(f'json:{{"driver":"raw","file":{{"driver":"file","filename":"{path}"}}}}')


def encrypted(path: str) -> bytes:
    """A disk that is encrypted, and names nothing."""
    del path
    return _disk((0, b""), crypt=1)


HOSTILE: Mapping[str, Callable[[str], bytes]] = {
    "read over a file": over,
    "with data in a file": outside,
    "read over a description": described,
    "encrypted": encrypted,
}
"""By what is wrong with it, what makes such a disk that names a path."""
