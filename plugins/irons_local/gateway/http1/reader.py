"""The request side of an HTTP/1 connection, without I/O: heads one after the other, and exactly the body each announces."""

from __future__ import annotations

from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.chunks import Chunks
from irons_local.gateway.http1.heads import MAX_HEAD, Head, parse_head

MAX_BLANK = 16
_END = b"\r\n\r\n"


class RequestReader:
    """Takes a client's bytes as they come.

    Args:
        first: bytes that were already read.
    """

    __slots__ = ("_chunks", "_data", "_left", "_searched")

    def __init__(self, first: bytes = b"") -> None:
        self._data = bytearray(first)
        self._searched = 0
        self._left = 0
        self._chunks: Chunks | None = None

    @property
    def waiting(self) -> bool:
        """True where more was read than was asked for yet."""
        return bool(self._data)

    def feed(self, data: bytes) -> None:
        """Take more bytes."""
        self._data += data

    def rest(self) -> bytes:
        """Take what was read beyond the last request."""
        rest = bytes(self._data)
        self._data.clear()
        return rest

    def begun(self) -> bool:
        """Drop empty lines before a request (RFC 9112, section 2.2); True where something else follows.

        Raises:
            BadRequestError: there are too many of them.
        """
        blank = 0
        while blank <= MAX_BLANK and self._data[blank : blank + 2] == b"\r\n":
            blank += 2
        if blank > MAX_BLANK:
            raise BadRequestError("it begins with empty lines")
        del self._data[:blank]
        return bool(self._data) and self._data != b"\r"

    def head(self) -> Head | None:
        """Take the head that has `begun`; None where more must come first.

        Raises:
            BadRequestError: it is malformed or too large.
        """
        at = self._data.find(_END, self._searched)
        if at < 0:
            if len(self._data) > MAX_HEAD:
                raise BadRequestError("its head is too large")
            self._searched = max(0, len(self._data) - 3)
            return None
        self._searched = 0
        raw = bytes(self._data[: at + 4])
        del self._data[: at + 4]
        return parse_head(raw)

    def expect(self, head: Head) -> None:
        """Next comes the body that `head` announces."""
        self._left, self._chunks = head.length or 0, Chunks() if head.length is None else None

    @property
    def whole(self) -> bool:
        """True once all of the body has been taken."""
        return self._chunks.done if self._chunks is not None else not self._left

    def part(self) -> bytes:
        """Take what has come of the body, in the framing in which it goes on; nothing where more must come first.

        Raises:
            BadRequestError: its framing is malformed.
        """
        if self._chunks is not None:
            return self._chunks.feed(self._data)
        part = bytes(self._data[: self._left])
        del self._data[: len(part)]
        self._left -= len(part)
        return part
