"""HTTP/1 request heads (RFC 9112): parsed by llhttp, checked by a stricter grammar, written again from what was parsed.

What goes on to a server is never the bytes that came but what was understood of them, so a server cannot read
another host or another end of the body out of them than the gateway did.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

from irons_local.gateway.http1.authority import (
    PROXY,
    Authority,
    BadRequestError,
    NotSpokenError,
    parse_authority,
    spell,
)
from irons_local.gateway.http1.upgrades import Field, asks_websocket, kept, options
from irons_policy.hostnames import Host

MAX_HEAD = 65_536
MAX_FIELDS = 256
_ABSOLUTE = re.compile(rb"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>(?:[/?].*)?)")
_TARGET = re.compile(rb"[\x21\x22\x24-\x7e\x80-\xff]+")
_LINE = re.compile(rb"(?P<method>[!#$%&'*+.^_`|~0-9A-Za-z-]+) [^ ]+ HTTP/(?P<version>[0-9]\.[0-9])")
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

_NEVER_OPTIONS = frozenset((b"host", b"content-length", b"transfer-encoding"))
"""What `Connection` may not name: a server that drops it would understand another request (RFC 9110, section 7.6.1)."""


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

    @property
    def proxied(self) -> bool:
        """True where its target is absolute, as a proxy wants it."""
        return self.target.startswith(b"http://")

    def declined(self) -> Head:
        """The same without the upgrade, which a recipient may ignore."""
        return self._replace(fields=kept(self.fields, websocket=False), websocket=False)

    def wire(self) -> bytes:
        """The head in the one spelling that goes on."""
        lines = [b"%s %s HTTP/1.%d" % (self.method, self.target, self.minor)]
        if self.named:
            lines.append(b"Host: " + spell(self.named[0]))
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
    method, minor, seen = _llhttp(raw)
    fields = _checked(seen.fields, raw)
    target, named = _named(method, seen.url, fields)
    if minor and not any(name == b"host" for name, _ in fields):
        raise BadRequestError("it has no Host")
    host = named[0].host if named else None
    length = _length(minor, fields, host)
    if forbidden := options(fields) & _NEVER_OPTIONS:
        raise BadRequestError(f"its Connection names {min(forbidden).decode()}", host)
    websocket = method == b"GET" and minor == 1 and length == 0 and asks_websocket(fields)
    rest = tuple((name, value.strip(b" \t")) for name, value in seen.fields if name.lower() != b"host")
    return Head(method, target, minor, named, kept(rest, websocket=websocket), length, websocket)


def parse_trailer(raw: bytes) -> tuple[Field, ...]:
    """Read the trailer section of a chunked body, without its empty line and what would change how a request is understood.

    Raises:
        BadRequestError: it is malformed.
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
        # A recipient never goes by these in a trailer (RFC 9110, section 6.5.1), and no server shall be tempted.
        if name.lower() not in _FRAMING:
            found.append((name, value))
    return tuple(found)


def _llhttp(raw: bytes) -> tuple[bytes, int, _Collector]:
    line, _, rest = raw.partition(b"\r\n")
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadRequestError("its request line is malformed")
    method, version = match["method"], match["version"]
    if version[:1] != b"1" or method.upper() == b"PRI":
        raise NotSpokenError(f"HTTP/{version.decode()} is not let through")
    # A recipient goes by the highest minor version that it knows (RFC 9110, section 2.5).
    minor = min(int(version[-1:]), 1)
    # llhttp knows a list of methods, and what it does not know is not an error (RFC 9110, section 9.1); none but CONNECT
    # has a request head of another form.
    shown = b"CONNECT" if method.upper() == b"CONNECT" else b"GET"
    seen = _Collector()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(b"%s%s1.%d\r\n%s" % (shown, line[len(method) : -3], minor, rest))
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise BadRequestError(f"it is not HTTP/1: {error}") from None
    if not seen.complete or seen.messages != 1:
        raise BadRequestError("it is not one HTTP/1 request")
    return method, minor, seen


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
    if method.upper() == b"CONNECT":
        raise NotSpokenError(f"CONNECT is not let through: {PROXY}", _host_of(url))
    if not _TARGET.fullmatch(url):
        raise BadRequestError("its target is malformed", named[0].host if named else None)
    if url.startswith(b"/") or (url == b"*" and method == b"OPTIONS"):
        return url, named
    absolute = _ABSOLUTE.fullmatch(url)
    if absolute is None:
        raise BadRequestError("its target is malformed", named[0].host if named else None)
    if absolute["scheme"].lower() != b"http":
        scheme = absolute["scheme"].decode()
        raise NotSpokenError(f"{scheme}: URLs are not let through: {PROXY}", _host_of(absolute["authority"]))
    authority = parse_authority(absolute["authority"])
    path: bytes = absolute["path"]
    target = b"http://" + spell(authority) + (path if path.startswith(b"/") else b"/" + path)
    return target, (*named, authority)


def _host_of(url: bytes) -> Host | None:
    try:
        return parse_authority(url).host
    except BadRequestError:
        return None


def _length(minor: int, fields: list[Field], host: Host | None) -> int | None:
    coding = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    lengths = [value for name, value in fields if name == b"content-length"]
    if coding:
        if lengths or minor != 1 or coding != [b"chunked"]:
            raise BadRequestError("the length of its body is ambiguous", host)
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 15:
        raise BadRequestError("the length of its body is ambiguous", host)
    return int(lengths[0])
