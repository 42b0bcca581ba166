"""Requests of HTTP/2 (RFC 9113, section 8): header lists, decoded within bounds and held against a strict grammar."""

from __future__ import annotations

import re
from typing import NamedTuple

import hpack

from irons_local.gateway.http1.authority import (
    PROXY,
    Authority,
    BadRequestError,
    NotSpokenError,
    parse_authority,
)
from irons_local.gateway.http2.frames import COMPRESSION_ERROR, Http2Error
from irons_policy.hostnames import Host

MAX_TABLE = 8192
"""Bytes that a connection's table is announced to have; what is kept here for it is three times as much."""
MAX_LIST = 65_536
"""Bytes of a header list, counted as RFC 9113, section 10.5.1, does."""
MAX_FIELDS = 256
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PATH = re.compile(rb"/[\x21\x22\x24-\x7e\x80-\xff]*")
_SCHEME = re.compile(rb"https?")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_UPDATES = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}")
"""More updates of the table's size than the two that may begin a block (RFC 7541, section 4.2)."""
_CONNECTION = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_NEVER_TRAILERS = _CONNECTION | {b"host", b"content-length", b"te", b"trailer", b"expect"}

Field = tuple[bytes, bytes]


class Request(NamedTuple):
    """A request as understood.

    Attributes:
        named: every authority in it: `:authority`, and `host` where there is one.
        length: bytes of body that it announces; None where it does not.
        grpc: it is answered by gRPC's trailers.
    """

    named: tuple[Authority, ...]
    length: int | None
    grpc: bool

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts of `named`."""
        return tuple(each.host for each in self.named)


class Lists:
    """Decodes the header blocks of one direction of a connection, all of them in order (RFC 7541)."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=MAX_LIST)
        self._decoder.max_allowed_table_size = MAX_TABLE

    def decode(self, block: bytes) -> list[Field]:
        """Decode a block.

        Raises:
            Http2Error: it is malformed, or its list too large.
        """
        if _UPDATES.match(block):
            raise Http2Error("a header block has too many updates of the table", COMPRESSION_ERROR)
        if _too_many(block):
            raise Http2Error("a header list has too many fields", COMPRESSION_ERROR)
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except hpack.OversizedHeaderListError:
            raise Http2Error("a header list is too large", COMPRESSION_ERROR) from None
        # hpack lets errors of other kinds through for some malformed blocks.
        except (hpack.HPACKError, ValueError, IndexError, OverflowError):
            raise Http2Error("a header block is malformed", COMPRESSION_ERROR) from None
        return fields


def _too_many(block: bytes) -> bool:
    """True for more fields than may be: counted before they are decoded, which takes ten times as long."""
    at, count = 0, 0
    try:
        while at < len(block):
            first = block[at]
            bits = 7 if first & 0x80 else 6 if first & 0x40 else 5 if first & 0x20 else 4
            index, at = _integer(block, at, bits)
            count += 1
            if count > MAX_FIELDS + 2:
                return True
            if bits in {4, 6}:
                for _ in range(1 if index else 2):
                    size, at = _integer(block, at, 7)
                    at += size
    except IndexError:
        # The decoder says what is wrong with it.
        return False
    return False


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """An integer (RFC 7541, section 5.1), and where it ends."""
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 127) << min(shift, 32)
        shift += 7
        if byte < 128:
            return value, at


def read_request(fields: list[Field]) -> Request:
    """Read the header list of a request.

    Raises:
        BadRequestError: it is malformed, ambiguous, or asks for what is never let through.
    """
    pseudo: dict[bytes, bytes] = {}
    rest: list[Field] = []
    for name, value in fields:
        if not name.startswith(b":"):
            rest.append((name, value))
        elif rest or name in pseudo:
            raise BadRequestError("its pseudo-header fields are malformed")
        else:
            pseudo[name] = value
    hosts = [value for name, value in rest if name == b"host"]
    method, authority = pseudo.get(b":method", b""), pseudo.get(b":authority")
    if authority is None:
        raise BadRequestError("it has no :authority")
    named = tuple(parse_authority(each) for each in (authority, *hosts))
    host = named[0].host
    if method.upper() == b"CONNECT" or b":protocol" in pseudo:
        raise NotSpokenError(f"CONNECT is not let through: {PROXY}", host)
    if pseudo.keys() != {b":method", b":scheme", b":path", b":authority"}:
        raise BadRequestError("its pseudo-header fields are malformed", host)
    if not _METHOD.fullmatch(method) or not _SCHEME.fullmatch(pseudo[b":scheme"]):
        raise BadRequestError("its pseudo-header fields are malformed", host)
    path = pseudo[b":path"]
    if not _PATH.fullmatch(path) and not (path == b"*" and method == b"OPTIONS"):
        raise BadRequestError("its path is malformed", host)
    if len(hosts) > 1 or (hosts and named[1] != named[0]):
        raise BadRequestError("its host and its :authority differ", named[-1].host)
    _check(rest, _CONNECTION, host)
    if any(name == b"te" and value.lower() != b"trailers" for name, value in rest):
        raise BadRequestError("its TE is malformed", host)
    kind = next((value for name, value in rest if name == b"content-type"), b"")
    return Request(named, _length(rest, host), kind.lower().startswith(b"application/grpc"))


def check_trailers(fields: list[Field]) -> None:
    """Check the header list after a body.

    Raises:
        BadRequestError: it holds what no trailers may.
    """
    if any(name.startswith(b":") for name, _ in fields):
        raise BadRequestError("its trailer holds a pseudo-header field")
    _check(fields, _NEVER_TRAILERS, None)


def _check(fields: list[Field], never: frozenset[bytes], host: Host | None) -> None:
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadRequestError("its header fields are malformed", host)
        if name in never:
            raise BadRequestError(f"it holds {name.decode()}", host)


def _length(fields: list[Field], host: Host | None) -> int | None:
    found = [value for name, value in fields if name == b"content-length"]
    if not found:
        return None
    if len(found) > 1 or not found[0].isdigit() or len(found[0]) > 15:
        raise BadRequestError("the length of its body is ambiguous", host)
    return int(found[0])
