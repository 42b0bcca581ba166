"""A chunked body (RFC 9112, section 7.1), framed again from what was understood of it.

Without I/O. Chunk extensions and leading zeros are dropped, chunks and trailers stay as they are. What goes on together
is sent with one write, however small its chunks are.
"""

from __future__ import annotations

import re

from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.heads import MAX_FIELDS, MAX_HEAD, parse_trailer

MAX_LINE = 1024
PIECE = 65_536
"""Bytes of one chunk that go on together."""
TOGETHER = 256
"""Chunks that go on together at most: a fraction of a millisecond's work."""
_SIZE = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,12})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_MALFORMED = "the chunks of its body are malformed"


class Chunks:
    """Where one body has got to.

    Attributes:
        done: its end, with the trailers, has gone on.
    """

    __slots__ = ("_left", "_lines", "_size", "_within", "done")

    def __init__(self) -> None:
        self._left = 0
        self._within = False
        self._lines: list[bytes] | None = None
        self._size = 0
        self.done = False

    def feed(self, data: bytearray) -> bytes:
        """Take from the front of `data` what can go on.

        Args:
            data: what has come and was not taken yet; what is taken is removed from it.

        Returns:
            The bytes that go on, a bounded number of them; nothing where more must come first.

        Raises:
            BadRequestError: the framing is malformed.
        """
        out: list[bytes] = []
        at = size = 0
        for _ in range(TOGETHER):
            if self._lines is not None or size >= PIECE:
                break
            if not self._within:
                at, found = self._begin(data, at)
            else:
                at, found = self._go_on(data, at)
            if not found:
                break
            out.append(found)
            size += len(found)
        del data[:at]
        if self._lines is not None and size < PIECE:
            out.append(self._trailer(data, self._lines))
        return b"".join(out)

    def _begin(self, data: bytearray, at: int) -> tuple[int, bytes]:
        """The line with a chunk's size; the last one's goes on with the trailers."""
        end = data.find(b"\r\n", at)
        if (end if end >= 0 else len(data)) - at > MAX_LINE:
            raise BadRequestError(_MALFORMED)
        if end < 0:
            return at, b""
        match = _SIZE.fullmatch(data, at, end)
        if match is None:
            raise BadRequestError(_MALFORMED)
        self._left = int(match["size"], 16)
        if not self._left:
            self._lines = []
            return end + 2, b""
        self._within = True
        return end + 2, b"%x\r\n" % self._left

    def _go_on(self, data: bytearray, at: int) -> tuple[int, bytes]:
        """More of a chunk, or what ends it."""
        if self._left:
            part = bytes(data[at : at + min(self._left, PIECE)])
            self._left -= len(part)
            return at + len(part), part
        end = bytes(data[at : at + 2])
        if not b"\r\n".startswith(end):
            raise BadRequestError(_MALFORMED)
        if len(end) < 2:
            return at, b""
        self._within = False
        return at + 2, end

    def _trailer(self, data: bytearray, lines: list[bytes]) -> bytes:
        """The lines of the trailer section, once the empty line has come."""
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            line = bytes(data[at:end])
            at = end + 2
            if not line:
                self.done = True
                break
            lines.append(line)
            self._size += len(line)
            if self._size > MAX_HEAD or len(lines) > MAX_FIELDS:
                raise BadRequestError("its trailer is too large")
        del data[:at]
        if not self.done:
            if len(data) > MAX_HEAD:
                raise BadRequestError("its trailer is too large")
            return b""
        fields = parse_trailer(b"\r\n".join(lines))
        return b"0\r\n" + b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n"
