"""ELF programs and libraries of 64 bits: what they need, and how to run one next to libraries that are not the system's.

Source: the System V ABI (gABI 4.1), chapters 4 (object files) and 5 (program loading and dynamic linking).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

_MAGIC = b"\x7fELF\x02\x01"
"""Class 64, least significant byte first."""
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 15, 29
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ENTRY = struct.Struct("<QQ")
_SEGMENTS_AT_MOST = 256
_NAME_AT_MOST = 4096
ORIGIN = b"$ORIGIN"


class ElfError(ValueError):
    """The file is not a program of the expected form; the message says what is missing."""


class Segment(NamedTuple):
    """A part of the file as the loader sees it: kind, place in the file, address in memory, size in the file."""

    kind: int
    offset: int
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Elf:
    """One file.

    Attributes:
        data: its bytes.
        segments: its program headers.
        entries: its dynamic section as (tag, value), the unused entries at its end included; empty where it is static.
    """

    data: bytes
    segments: tuple[Segment, ...]
    entries: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, data: bytes) -> Elf:
        """Read the headers.

        Raises:
            ElfError: it is not an ELF file of 64 bits, or its headers lead out of it.
        """
        if not data.startswith(_MAGIC):
            raise ElfError("it is not a program of 64 bits")
        try:
            (start,) = struct.unpack_from("<Q", data, 32)
            size, count = struct.unpack_from("<HH", data, 54)
            if size != _SEGMENT.size or count > _SEGMENTS_AT_MOST:
                raise ElfError("its program headers are invalid")
            segments = []
            for index in range(count):
                kind, _, offset, address, _, length, _, _ = _SEGMENT.unpack_from(data, start + index * size)
                if kind in (_PT_DYNAMIC, _PT_INTERP) and offset + length > len(data):
                    raise ElfError("a segment extends beyond the file")
                segments.append(Segment(kind, offset, address, length))
        except (struct.error, OverflowError) as error:
            raise ElfError("its headers are cut off") from error
        dynamic = next((each for each in segments if each.kind == _PT_DYNAMIC), None)
        entries: tuple[tuple[int, int], ...] = ()
        if dynamic is not None:
            whole = dynamic.size - dynamic.size % _ENTRY.size
            body = data[dynamic.offset : dynamic.offset + whole]
            entries = tuple((tag, value) for tag, value in _ENTRY.iter_unpack(body))
        return cls(data, tuple(segments), entries)

    @property
    def interpreter(self) -> str:
        """The path of the loader that the program asks for; "" where it asks for none."""
        segment = self._segment(_PT_INTERP)
        if segment is None:
            return ""
        return (
            self.data[segment.offset : segment.offset + segment.size]
            .partition(b"\0")[0]
            .decode("utf-8", "surrogateescape")
        )

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the libraries that it needs itself.

        Raises:
            ElfError: a name lies outside of the file.
        """
        used = self._used()
        table = next((value for tag, value in used if tag == _DT_STRTAB), None)
        if table is None:
            return ()
        return tuple(self._text(self._offset(table) + value) for tag, value in used if tag == _DT_NEEDED)

    def beside(self, interpreter: str) -> bytes:
        """Return the program changed so that it runs by another loader, with the libraries in its own directory.

        The loader's path takes the place of the one that is there. The directory is a DT_RPATH, which leads also what
        its libraries need; it takes one of the entries that linkers leave free, and its text lies after the path.

        Args:
            interpreter: the path of the loader.

        Raises:
            ElfError: there is no room, or the program brings a search path of its own.
        """
        segment, dynamic = self._segment(_PT_INTERP), self._segment(_PT_DYNAMIC)
        if segment is None or dynamic is None:
            return self.data
        path = interpreter.encode() + b"\0"
        text = path + ORIGIN + b"\0"
        if len(text) > segment.size:
            raise ElfError("there is no room for the path of another loader")
        used = self._used()
        if any(tag == _DT_RUNPATH for tag, _ in used):
            raise ElfError("it has a search path of its own")
        # One more entry must stay free: the table ends with it.
        if len(used) + 1 >= len(self.entries):
            raise ElfError("there is no room for a search path")
        table = next((value for tag, value in used if tag == _DT_STRTAB), None)
        if table is None:
            raise ElfError("it has no table of strings")
        # Counted from the table of strings, which may lie after it: the loader adds without looking at the sign.
        place = (segment.address + len(path) - table) % (1 << 64)
        data = bytearray(self.data)
        data[segment.offset : segment.offset + segment.size] = text.ljust(segment.size, b"\0")
        at = dynamic.offset + len(used) * _ENTRY.size
        data[at : at + _ENTRY.size] = _ENTRY.pack(_DT_RPATH, place)
        return bytes(data)

    def _segment(self, kind: int) -> Segment | None:
        return next((each for each in self.segments if each.kind == kind), None)

    def _used(self) -> tuple[tuple[int, int], ...]:
        tags = [tag for tag, _ in self.entries]
        return self.entries[: tags.index(_DT_NULL)] if _DT_NULL in tags else self.entries

    def _offset(self, address: int) -> int:
        for segment in self.segments:
            if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
                return segment.offset + address - segment.address
        raise ElfError("an address lies outside the file")

    def _text(self, at: int) -> str:
        text, end, _ = self.data[at : at + _NAME_AT_MOST].partition(b"\0")
        if not end:
            raise ElfError("a name extends beyond the file")
        return text.decode("utf-8", "surrogateescape")
