"""Archives for the kernel to unpack at boot: the `newc` format of cpio(5) (initramfs-buffer-format.rst)."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import NamedTuple

_TRAILER = "TRAILER!!!"
_ALIGNED = 4


class CpioEntry(NamedTuple):
    """One member of an archive.

    Attributes:
        path: where it is, relative to the root.
        mode: type and permissions, as st_mode has them.
        data: a file's bytes, or where a symbolic link leads.
        device: major and minor number of a device node.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str) -> CpioEntry:
    """A directory."""
    return CpioEntry(path, stat.S_IFDIR | 0o755)


def file(path: str, data: bytes, mode: int = 0o644) -> CpioEntry:
    """A regular file."""
    return CpioEntry(path, stat.S_IFREG | mode, data)


def character_device(path: str, major: int, minor: int) -> CpioEntry:
    """A character device."""
    return CpioEntry(path, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[CpioEntry]) -> bytes:
    """The archive of some entries, parents before what is in them; root owns all of it."""
    parts = [_member(number, entry) for number, entry in enumerate(entries, 1)]
    return b"".join((*parts, _member(0, CpioEntry(_TRAILER, 0))))


def _member(number: int, entry: CpioEntry) -> bytes:
    name = entry.path.encode() + b"\0"
    major, minor = entry.device
    fields = (
        *(number, entry.mode, 0, 0, 1, 0, len(entry.data)),
        *(0, 0, major, minor, len(name), 0),
    )
    head = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(head + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNED)
