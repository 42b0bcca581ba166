"""A tar archive from a sandbox, read as what an attacker may have written: sans-io, strict, in bounded memory.

Formats: ustar (POSIX.1-1988), the pax headers `path`, `linkpath` and `size` (POSIX.1-2001), and GNU's long names and sparse files
(tar(5), `L`, `K`, `S`). An archive that is not one of these, or contradicts itself, is refused; nothing in it is repaired or guessed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import Enum

from irons.record import NamedTuple

BLOCK = 512
LONGEST_NAME = 8192
"""Bytes of a path: twice what the kernel takes, so that the refusal can name it."""

LONGEST_EXTENSION = 65_536
"""Bytes of a pax header."""

MOST_REGIONS = 65_536
"""Regions of data in one sparse file."""

EXTENSIONS_AT_FIRST = 16 << 20
EXTENSIONS_OF_EACH = 16 << 10
"""Bytes of headers that say more of entries, in the whole archive: so many, and so many more for each entry that came."""

AFTER = 1 << 20
"""Bytes that may follow the end, where writers fill up their last record."""

LARGEST = 2**60
"""Bytes that a file may claim to have."""


class TarError(Exception):
    """The archive is not one that is read here; the message is one line."""


class EntryKind(Enum):
    """What an entry is; everything that is not a file, a directory or a link is `OTHER`, and has no data."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    OTHER = "other"


class Region(NamedTuple):
    """A part of a file that has data."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One member of the archive, of which nothing is checked but its form.

    Attributes:
        kind: what it is.
        name: its path, as it was written.
        link: what a link leads to.
        mode: its permission bits.
        mtime: seconds since 1970.
        size: bytes of a file, holes included.
    """

    kind: EntryKind
    name: bytes
    link: bytes = b""
    mode: int = 0
    mtime: int = 0
    size: int = 0


class Data(NamedTuple):
    """A part of the data of the file whose entry came last."""

    at: int
    data: bytes


class FileEnd(NamedTuple):
    """The file whose entry came last is whole."""


class ArchiveEnd(NamedTuple):
    """The archive is whole; what follows is not looked at, and there cannot be much of it."""


Event = TarEntry | Data | FileEnd | ArchiveEnd

_KINDS = {
    b"0": EntryKind.FILE,
    b"\0": EntryKind.FILE,
    b"7": EntryKind.FILE,
    b"S": EntryKind.FILE,
    b"1": EntryKind.HARDLINK,
    b"2": EntryKind.SYMLINK,
    b"5": EntryKind.DIRECTORY,
}
_LONG = {b"L": "name", b"K": "link"}
_PAX = {b"path": "name", b"linkpath": "link"}


class TarReader:
    """Takes the archive's bytes as they come, and gives what they mean."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._steps = self._read()
        self._wanted = next(self._steps)
        self._events: list[Event] = []
        self._over = False
        self._after = self._extensions = self._entries = 0

    def feed(self, data: bytes) -> list[Event]:
        """Take more bytes; give the events that they complete.

        Raises:
            TarError: the archive is refused.
        """
        if self._over:
            self._after += len(data)
            if self._after > AFTER:
                raise TarError("it has data after its end")
            return []
        self._buffer += data
        while not self._over and len(self._buffer) >= max(1, self._wanted):
            self._step()
        events, self._events = self._events, []
        return events

    def finish(self) -> None:
        """Say that no more bytes come.

        Raises:
            TarError: the archive is not whole.
        """
        if not self._over:
            raise TarError("the archive ends in the middle")

    def _step(self) -> None:
        try:
            self._wanted = self._steps.send(None)
        except StopIteration:
            self._over = True
            self._events.append(ArchiveEnd())

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _read(self) -> Generator[int, None, None]:
        """Read header after header; yields how many bytes must be there before it goes on."""
        long: dict[str, bytes] = {}
        size: int | None = None
        while True:
            yield BLOCK
            block = self._take(BLOCK)
            if not any(block):
                return
            header = _Header(block)
            if header.type in _LONG:
                yield from self._await(_padded(header.size), LONGEST_NAME)
                long[_LONG[header.type]] = self._take(_padded(header.size))[: header.size].rstrip(b"\0")
                continue
            if header.type in (b"x", b"g"):
                yield from self._await(_padded(header.size), LONGEST_EXTENSION)
                told = _extension(self._take(_padded(header.size))[: header.size])
                if header.type == b"x":
                    long |= {_PAX[key]: value for key, value in told.items() if key in _PAX}
                    size = _decimal(told[b"size"]) if b"size" in told else None
                continue
            yield from self._member(header, long, header.size if size is None else size)
            long, size = {}, None

    def _count_extension(self, size: int) -> None:
        """Count what is not an entry and no data, of which there could be any amount."""
        self._extensions += size
        if self._extensions > EXTENSIONS_AT_FIRST + EXTENSIONS_OF_EACH * self._entries:
            raise TarError("more headers than its entries need")

    def _await(self, size: int, most: int) -> Generator[int, None, None]:
        if size > _padded(most):
            raise TarError(f"a header of {size} bytes")
        self._count_extension(BLOCK + size)
        yield size

    def _member(self, header: _Header, long: dict[str, bytes], stored: int) -> Generator[int, None, None]:
        kind = _KINDS.get(header.type, EntryKind.OTHER)
        self._entries += 1
        regions, size = [Region(0, stored)], stored
        if header.type == b"S":
            regions, size = yield from self._sparse(header, stored)
        self._events.append(
            TarEntry(
                kind,
                long.get("name", header.name),
                long.get("link", header.link),
                header.mode & 0o7777,
                header.mtime,
                size if kind is EntryKind.FILE else 0,
            )
        )
        if kind is not EntryKind.FILE and stored:
            raise TarError("data of what is not a file")
        for region in regions:
            at, left = region
            while left:
                yield 1
                data = self._take(min(left, len(self._buffer)))
                if kind is EntryKind.FILE:
                    self._events.append(Data(at, data))
                at, left = at + len(data), left - len(data)
        if kind is EntryKind.FILE:
            self._events.append(FileEnd())
        if stored % BLOCK:
            yield BLOCK - stored % BLOCK
            self._take(BLOCK - stored % BLOCK)

    def _sparse(self, header: _Header, stored: int) -> Generator[int, None, tuple[list[Region], int]]:
        """Read the map of a sparse file in GNU's old format; returns its regions and its whole size."""
        regions = list(_regions(header.block[386:482]))
        size, more = _number(header.block[483:495]), header.block[482]
        while more:
            if len(regions) > MOST_REGIONS:
                raise TarError(f"a sparse file of more than {MOST_REGIONS} regions")
            self._count_extension(BLOCK)
            yield BLOCK
            block = self._take(BLOCK)
            regions += _regions(block[:504])
            more = block[504]
        end = 0
        for start, length in regions:
            if start < end or start + length > size:
                raise TarError("a sparse file whose regions overlap or go beyond its end")
            end = start + length
        if size > LARGEST or sum(length for _, length in regions) != stored:
            raise TarError("a sparse file whose size contradicts its regions")
        return regions, size


class _Header:
    """One header block whose checksum is right."""

    def __init__(self, block: bytes) -> None:
        told = _number(block[148:156])
        if told != sum(block) - sum(block[148:156]) + 8 * 0x20:
            raise TarError("what came is not a tar archive")
        self.block = block
        self.type = block[156:157]
        self.name = _text(block[:100])
        if block[257:263] == b"ustar\0" and block[345]:
            self.name = _text(block[345:500]) + b"/" + self.name
        self.link = _text(block[157:257])
        self.mode = _number(block[100:108])
        self.size = _number(block[124:136])
        self.mtime = min(_number(block[136:148], signed=True), 2**40)
        if self.size > LARGEST:
            raise TarError(f"an entry of {self.size} bytes")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, *, signed: bool = False) -> int:
    """A number of a header: octal digits, or GNU's base 256."""
    if field[0] == 0x80 or (signed and field[0] == 0xFF):
        return int.from_bytes(field[1:] if field[0] == 0x80 else field, signed=field[0] == 0xFF)
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise TarError("an invalid number")
    return int(digits, 8)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise TarError("an invalid size")
    return int(text)


def _regions(table: bytes) -> Iterator[Region]:
    """The regions of a sparse file's table: 24 bytes each, the first empty one ends it."""
    for at in range(0, len(table) - 23, 24):
        if not table[at]:
            return
        yield Region(_number(table[at : at + 12]), _number(table[at + 12 : at + 24]))


def _extension(text: bytes) -> dict[bytes, bytes]:
    """The records of a pax header, one after another: LENGTH, a space, KEY=VALUE, a line feed."""
    found: dict[bytes, bytes] = {}
    while text:
        length, space, _ = text[:20].partition(b" ")
        if not space or not length.isdigit() or not len(length) < int(length) <= len(text):
            raise TarError("an invalid pax header")
        record, text = text[: int(length)], text[int(length) :]
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if not equals or record[-1:] != b"\n":
            raise TarError("an invalid pax header")
        if key.startswith(b"GNU.sparse."):
            raise TarError("a sparse file in the pax format, which is not read here")
        found[key] = value
    return found


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
