"""HTTP/1 request heads (RFC 9112): parsed by llhttp, checked by a stricter grammar, written anew from what was parsed.

What goes on to a server is never the bytes that came but what was understood of them, so a server cannot read
another host or another end of the body out of them than the gateway did.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

from irons_plugins.local.causes import Cause
from irons_plugins.local.policy import Host, HostError, canonical_host

MAX_HEAD = 65_536
MAX_FIELDS = 256
MAX_BODY = 10**15
_AUTHORITY = re.compile(rb"(?P<host>[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")
_ABSOLUTE = re.compile(rb"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>(?:[/?].*)?)")
_TARGET = re.compile(rb"[\x21\x22\x24-\x7e\x80-\xff]+")
_METHOD = re.compile(rb"[A-Z][A-Z-]{0,31}")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_LONE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00")
_FRAMING = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"upgrade",
        b"trailer",
        b"te",
        b"expect",
    )
)

Field = tuple[bytes, bytes]


class BadRequestError(ValueError):
    """A request that is refused for what it is, whoever it is for.

    Attributes:
        cause: why, for programs.
        host: the name it asked for, where that could be read.
    """

    cause = Cause.MALFORMED

    def __init__(self, reason: str, host: Host | None = None) -> None:
        super().__init__(reason)
        self.host = host


class NotSpokenError(BadRequestError):
    """A well-formed request for something that is not spoken here."""

    cause = Cause.PROTOCOL


class Authority(NamedTuple):
    """A host, and the port after it where there was one."""

    host: Host
    port: int | None


class Head(NamedTuple):
    """A request head as understood.

    Attributes:
        target: the request target in the form that goes on.
        minor: the minor version, 0 or 1.
        named: every authority in clear, in the order seen: the Host field and the absolute form.
        fields: the other header fields.
        length: bytes of body; None for a chunked one.
        websocket: it asks to leave HTTP for WebSocket (RFC 6455).
    """

    method: bytes
    target: bytes
    minor: int
    named: tuple[Authority, ...]
    fields: tuple[Field, ...]
    length: int | None
    websocket: bool

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts of `named`."""
        return tuple(each.host for each in self.named)

    @property
    def host(self) -> Host | None:
        """The first of them."""
        return self.named[0].host if self.named else None

    def wire(self) -> bytes:
        """The head in the one spelling that goes on."""
        lines = [b"%s %s HTTP/1.%d" % (self.method, self.target, self.minor)]
        if self.named:
            lines.append(b"Host: " + _spell(self.named[0]))
        lines += [b"%s: %s" % field for field in self.fields]
        return b"\r\n".join(lines) + b"\r\n\r\n"


class _Collector:
    """What llhttp reports."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[Field] = []
        self.messages = 0
        self.complete = False

    def on_message_begin(self) -> None:
        self.messages += 1

    def on_url(self, part: bytes) -> None:
        self.url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete = True


def parse_authority(raw: bytes) -> Authority:
    """Read `host[:port]` strictly: no user information, no odd characters, no other spelling of an address.

    Raises:
        BadRequestError: it is not one.
    """
    match = _AUTHORITY.fullmatch(raw)
    if match is None:
        raise BadRequestError("its host is malformed")
    host, port = match["host"], match["port"]
    number = int(port) if port is not None else None
    if number is not None and not 0 < number < 65_536:
        raise BadRequestError("the port after its host is malformed")
    try:
        return Authority(canonical_host(host), number)
    except HostError as error:
        raise BadRequestError(f"its host is malformed: {error}") from None


def parse_head(raw: bytes) -> Head:
    """Read one request head.

    Args:
        raw: the bytes from the request line to the empty line, both included.

    Raises:
        BadRequestError: it is malformed, ambiguous, or asks for what is never let through.
    """
    if len(raw) > MAX_HEAD:
        raise BadRequestError("its head is too large")
    if raw.count(b"\r\n") > MAX_FIELDS + 2:
        raise BadRequestError("it has too many header fields")
    if _LONE.search(raw):
        raise BadRequestError("its head holds a lone CR or LF, or a NUL")
    method, version, seen = _llhttp(raw)
    fields = _checked(seen.fields, raw)
    if version not in {"1.0", "1.1"}:
        raise NotSpokenError(f"HTTP/{version} is not let through")
    if not _METHOD.fullmatch(method):
        raise BadRequestError("its method is malformed")
    target, named = _named(method, seen.url, fields)
    if version == "1.1" and not any(name == b"host" for name, _ in fields):
        raise BadRequestError("it has no Host")
    host = named[0].host if named else None
    upgrade = _upgrade(method, version, fields, host)
    length = _length(version, fields, host)
    if upgrade and length != 0:
        raise BadRequestError("it asks for an upgrade and has a body", host)
    rest = tuple((name, value.strip(b" \t")) for name, value in seen.fields if name.lower() != b"host")
    return Head(method, target, int(version[-1]), named, rest, length, upgrade)


def parse_trailer(raw: bytes) -> tuple[Field, ...]:
    """Read the trailer section of a chunked body, without its empty line.

    Raises:
        BadRequestError: it is malformed or would change how the request is understood.
    """
    found: list[Field] = []
    if _LONE.search(raw):
        raise BadRequestError("its trailer holds a lone CR or LF, or a NUL")
    for line in raw.split(b"\r\n"):
        if not line:
            continue
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadRequestError("its trailer is malformed")
        if name.lower() in _FRAMING:
            raise BadRequestError(f"its trailer holds {name.decode()}")
        found.append((name, value))
    return tuple(found)


def _llhttp(raw: bytes) -> tuple[bytes, str, _Collector]:
    seen = _Collector()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise BadRequestError(f"it is not HTTP/1: {error}") from None
    if not seen.complete or seen.messages != 1:
        raise BadRequestError("it is not one HTTP/1 request")
    return bytes(parser.get_method()), str(parser.get_http_version()), seen


def _checked(fields: list[Field], raw: bytes) -> list[Field]:
    if len(fields) > MAX_FIELDS:
        raise BadRequestError("it has too many header fields")
    # One line, one field: a folded or hidden one would show as a difference.
    if raw.count(b"\r\n") != len(fields) + 2:
        raise BadRequestError("its header fields are malformed")
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadRequestError("its header fields are malformed")
    return [(name.lower(), value.strip(b" \t")) for name, value in fields]


def _named(method: bytes, url: bytes, fields: list[Field]) -> tuple[bytes, tuple[Authority, ...]]:
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1:
        raise BadRequestError("it has more than one Host")
    named = tuple(parse_authority(value) for value in hosts)
    if method == b"CONNECT":
        raise NotSpokenError("CONNECT is not let through", _host_of(url))
    if not _TARGET.fullmatch(url):
        raise BadRequestError("its target is malformed", named[0].host if named else None)
    if url.startswith(b"/") or (url == b"*" and method == b"OPTIONS"):
        return url, named
    absolute = _ABSOLUTE.fullmatch(url)
    if absolute is None or absolute["scheme"].lower() != b"http":
        raise BadRequestError("its target is malformed", named[0].host if named else None)
    authority = parse_authority(absolute["authority"])
    path: bytes = absolute["path"]
    target = b"http://" + _spell(authority) + (path if path.startswith(b"/") else b"/" + path)
    return target, (*named, authority)


def _host_of(url: bytes) -> Host | None:
    try:
        return parse_authority(url).host
    except BadRequestError:
        return None


def _spell(authority: Authority) -> bytes:
    host = authority.host
    text = f"[{host.text}]" if host.address is not None and host.address.version == 6 else host.text
    return (text if authority.port is None else f"{text}:{authority.port}").encode("ascii")


def _upgrade(method: bytes, version: str, fields: list[Field], host: Host | None) -> bool:
    asked = [value.lower() for name, value in fields if name == b"upgrade"]
    if not asked:
        return False
    if asked != [b"websocket"]:
        raise BadRequestError("it asks for an upgrade other than websocket", host)
    tokens = b",".join(value for name, value in fields if name == b"connection").lower().split(b",")
    if method != b"GET" or version != "1.1" or b"upgrade" not in {token.strip() for token in tokens}:
        raise BadRequestError("its upgrade is malformed", host)
    return True


def _length(version: str, fields: list[Field], host: Host | None) -> int | None:
    coding = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    lengths = [value for name, value in fields if name == b"content-length"]
    if coding:
        if lengths or version != "1.1" or coding != [b"chunked"]:
            raise BadRequestError("the length of its body is ambiguous", host)
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 15:
        raise BadRequestError("the length of its body is ambiguous", host)
    return int(lengths[0])
