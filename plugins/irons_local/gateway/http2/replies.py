"""What the gateway itself answers on a stream of HTTP/2.

Header blocks of literals alone (RFC 7541, section 6.2.2): they neither use nor change the state that the server's
own header blocks and the client's decoder share.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

from irons_local.gateway.http2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, frame

PERMISSION_DENIED, UNAVAILABLE = 7, 14


class Words(NamedTuple):
    """How a request is refused.

    Attributes:
        status: of HTTP.
        code: of gRPC.
        reason: one line.
        page: the body.
        retry_after: seconds after which another try may pass; 0 where none would.
    """

    status: int
    code: int
    reason: str
    page: str
    retry_after: int = 0


def reply(stream: int, words: Words, *, grpc: bool, room: int, table: int) -> tuple[bytes, int]:
    """The frames of an answer, and how many bytes of the client's windows they use.

    Args:
        stream: which one it ends.
        words: what it says.
        grpc: in gRPC's trailers.
        room: bytes of body that the client's windows have room for; a page that does not fit is left out.
        table: the largest table that the client allows. One below the default must be acknowledged first
            (RFC 7541, section 4.2), by whichever header block comes first.
    """
    begun = _integer(table, 5, 0x20) if table < 4096 else b""
    if grpc:
        fields = [
            (b":status", b"200"),
            (b"content-type", b"application/grpc"),
            (b"grpc-status", b"%d" % words.code),
            (b"grpc-message", quote(words.reason, safe=" !\"#$&'()*+,-./:;<=>?@[]^_`{|}~").encode()),
        ]
        return _headers(stream, END_STREAM, begun + _literals(fields)), 0
    body = words.page.encode("utf-8", "replace")
    body = body if len(body) <= room else b""
    fields = [
        (b":status", b"%d" % words.status),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"content-length", b"%d" % len(body)),
        *([(b"x-irons-denied", b"1")] if words.status == 403 else []),
        *([(b"retry-after", b"%d" % words.retry_after)] if words.retry_after else []),
    ]
    head = _headers(stream, 0 if body else END_STREAM, begun + _literals(fields))
    return head + (frame(DATA, END_STREAM, stream, body) if body else b""), len(body)


def _headers(stream: int, flags: int, block: bytes) -> bytes:
    return frame(HEADERS, END_HEADERS | flags, stream, block)


def _literals(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def _text(value: bytes) -> bytes:
    return _integer(len(value), 7, 0) + value


def _integer(value: int, bits: int, flags: int) -> bytes:
    """An integer (RFC 7541, section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((flags | value,))
    out = bytearray((flags | most,))
    value -= most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
