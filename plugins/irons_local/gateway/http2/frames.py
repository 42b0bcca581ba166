"""HTTP/2 frames (RFC 9113, section 4): cut out of bytes as they come, and written.

Without I/O. Bytes of a frame that is only passed on come out as they come in; a frame that is read comes out whole.
"""

from __future__ import annotations

from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = 9
MAX_WHOLE = 65_536
"""Bytes of a frame that is read whole at most."""
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITIZED = 0x4, 0x8, 0x20
NO_ERROR, PROTOCOL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM = 0x0, 0x1, 0x5, 0x6, 0x7
COMPRESSION_ERROR, ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED = 0x9, 0xB, 0xD
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, ENABLE_CONNECT_PROTOCOL = (
    1,
    2,
    3,
    4,
    8,
)


class Http2Error(Exception):
    """A connection that ends for what was sent on it.

    Attributes:
        code: the error code of its GOAWAY.
    """

    def __init__(self, reason: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.code = code


class Piece(NamedTuple):
    """A frame, or some bytes of one.

    Attributes:
        kind: its type.
        stream: its stream.
        length: bytes of its whole payload.
        raw: the bytes; with the frame's head where `first`. Those of a frame that is passed are not copied out.
        first: they begin the frame.
        last: they end it.
    """

    kind: int
    flags: int
    stream: int
    length: int
    raw: bytes | memoryview
    first: bool
    last: bool

    @property
    def payload(self) -> bytes:
        """The payload of a frame that is whole."""
        return bytes(self.raw[HEAD:])


class Frames:
    """Cuts one direction of a connection into frames.

    Args:
        passed: the types whose bytes come out as they come in.
        passes_unknown: so do those of types that are not known.
    """

    def __init__(self, *passed: int, passes_unknown: bool = False) -> None:
        self._passed = frozenset(passed)
        self._passes_unknown = passes_unknown
        self._data = b""
        self._at = 0
        self._open: Piece | None = None
        self._left = 0

    @property
    def between(self) -> bool:
        """True where every frame that has begun to come out has ended."""
        return self._open is None

    @property
    def partial(self) -> bool:
        """True where bytes were fed that have not come out."""
        return self._at < len(self._data)

    @property
    def waiting(self) -> int:
        """How many bytes were fed that have not come out."""
        return len(self._data) - self._at

    def feed(self, data: bytes) -> None:
        """Take more bytes."""
        self._data = self._data[self._at :] + data if self.partial else data
        self._at = 0

    def take(self, most: int) -> list[Piece]:
        """Cut as many frames as there are, and `most` at most.

        Raises:
            Http2Error: a frame that is read is too large.
        """
        found: list[Piece] = []
        data, at, end = self._data, self._at, len(self._data)
        view = memoryview(data)
        if self._open is not None and at < end:
            stop = min(at + self._left, end)
            self._left -= stop - at
            found.append(self._open._replace(raw=view[at:stop], last=not self._left))
            at = stop
            if not self._left:
                self._open = None
        while end - at >= HEAD and len(found) < most:
            length = int.from_bytes(data[at : at + 3], "big")
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + HEAD], "big") & 0x7FFF_FFFF
            stop = at + HEAD + length
            passed = kind in self._passed or (kind > CONTINUATION and self._passes_unknown)
            if stop <= end:
                raw = view[at:stop] if passed else data[at:stop]
                found.append(Piece(kind, flags, stream, length, raw, True, True))
                at = stop
            elif passed:
                # Padding begins with its length, which is looked at with the head.
                if end - at == HEAD:
                    break
                piece = Piece(kind, flags, stream, length, view[at:], True, False)
                found.append(piece)
                self._open, self._left = piece._replace(raw=b"", first=False), stop - end
                at = end
            elif length > MAX_WHOLE:
                raise Http2Error("a frame is too large", FRAME_SIZE_ERROR)
            else:
                break
        if len(found) < most:
            # What came out is not kept, however long the rest is waited for.
            self._data, self._at = data[at:], 0
        else:
            self._at = at
        return found


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """The bytes of a frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items())
    return frame(SETTINGS, 0, 0, payload)


def read_settings(payload: bytes) -> dict[int, int]:
    """What a SETTINGS frame says; the later of two values of one setting holds.

    Raises:
        Http2Error: its size is wrong.
    """
    if len(payload) % 6:
        raise Http2Error("a SETTINGS frame has the wrong size", FRAME_SIZE_ERROR)
    return {
        int.from_bytes(payload[at : at + 2], "big"): int.from_bytes(payload[at + 2 : at + 6], "big")
        for at in range(0, len(payload), 6)
    }


def go_away(last: int, code: int, reason: str) -> bytes:
    """A GOAWAY frame.

    Args:
        last: the last stream that a server has heard of.
        code: the error code.
        reason: for people.
    """
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + reason.encode()[:1024])


def number(kind: int, stream: int, value: int) -> bytes:
    """A frame whose payload is one number: RST_STREAM or WINDOW_UPDATE."""
    return frame(kind, 0, stream, value.to_bytes(4, "big"))


def block(piece: Piece) -> bytes:
    """The piece of a header block in a whole HEADERS or CONTINUATION frame.

    Raises:
        Http2Error: its padding is longer than it.
    """
    payload = piece.payload
    if piece.kind == CONTINUATION:
        return payload
    padding = 0
    if piece.flags & PADDED:
        if not payload:
            raise Http2Error("a HEADERS frame is malformed", FRAME_SIZE_ERROR)
        padding, payload = payload[0], payload[1:]
    skipped = 5 if piece.flags & PRIORITIZED else 0
    if skipped + padding > len(payload):
        raise Http2Error("a HEADERS frame is malformed")
    return payload[skipped : len(payload) - padding]


def looks_like_settings(data: bytes) -> bool:
    """True where bytes begin as every HTTP/2 server does: with a SETTINGS frame."""
    if len(data) < HEAD:
        return False
    length = int.from_bytes(data[:3], "big")
    return not length % 6 and length <= MAX_WHOLE and data[3:HEAD] == bytes((SETTINGS, 0, 0, 0, 0, 0))
