"""What the first bytes of a connection are: pure functions over what has come so far.

There is no list of HTTP methods: anything that has `HTTP/<digit>` or the absolute form of a target in its first line is
HTTP, and must then parse.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from irons_local.gateway.http2.frames import PREFACE
from irons_local.gateway.tls import client_hello
from irons_policy.hostnames import Host

MAX_LINE = 8192
MAX_BLANK = 1024
POSTGRES_SSL = (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"\x00\x00\x00\x08\x04\xd2\x16\x30")
"""SSLRequest and GSSENCRequest (PostgreSQL protocol, "Message Formats"): what follows them may be TLS."""
_HTTP = re.compile(rb"HTTP/[0-9]|\A[!-~]+[ \t]+(?:https?|ftp|wss?)://", re.IGNORECASE)
"""What makes a line HTTP: its version, or the absolute form, which HTTP/0.9 has too and servers still choose a host by."""
_AFTER_LINE = re.compile(rb"\n\x16(?:\Z|\x03(?:\Z|.(?:\Z|.(?:\Z|.(?:\Z|\x01)))))", re.DOTALL)
"""What `client_hello.begins` does not say no to, after a line."""
_BINARY = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")


class Kind(Enum):
    """What a connection speaks."""

    TLS = "tls"
    HTTP = "http"
    HTTP2 = "http2"
    OPAQUE = "tcp"
    UNDECIDED = "undecided"
    ENDLESS = "endless"


class Opening(NamedTuple):
    """What a client began with.

    Attributes:
        kind: what it speaks; UNDECIDED where a text line did not end, or nothing came at all.
        data: every byte of it so far; of a ClientHello exactly its records.
        ended: the client has closed its side.
        name: the name in its ClientHello.
        alert: what refuses a ClientHello.
        fault: why it is refused whoever it is for, or None.
    """

    kind: Kind
    data: bytes = b""
    ended: bool = False
    name: Host | None = None
    alert: bytes = b""
    fault: str | None = None

    @property
    def silent(self) -> bool:
        """True where nothing came."""
        return not self.data


class Looks(Enum):
    """How far a first line has been understood: can its bytes go on while it is?"""

    HTTP = "http"
    HTTP2 = "http2"
    OPAQUE = "opaque"
    TEXT = "text so far"
    BINARY = "binary so far"
    ENDLESS = "endless"


def first_line(data: bytes | bytearray) -> Looks:
    """Judge the first line that is not blank.

    Returns:
        HTTP2 once the whole preface is there (RFC 9113, section 3.4), which begins the connection or nothing.
        HTTP or OPAQUE once the line is whole (or longer than a binary line is looked at); TEXT where it is not
        whole, so may still become HTTP; BINARY where it is not whole and holds a control byte, so a strict
        server would not take it for HTTP but a sloppy one might; ENDLESS where a text line has no end.
    """
    if PREFACE.startswith(data[: len(PREFACE)]):
        return Looks.HTTP2 if len(data) >= len(PREFACE) else Looks.TEXT
    text = bytes(data).lstrip(b"\r\n \t")
    if not text:
        return Looks.TEXT if len(data) < MAX_BLANK else Looks.ENDLESS
    line, newline, _ = text.partition(b"\n")
    if _HTTP.search(line):
        return Looks.HTTP
    if newline:
        return Looks.OPAQUE
    binary = _BINARY.search(line.rstrip(b"\r")) is not None
    if len(line) > MAX_LINE:
        return Looks.OPAQUE if binary else Looks.ENDLESS
    return Looks.BINARY if binary else Looks.TEXT


def kind(data: bytes | bytearray) -> Kind:
    """Judge the first bytes of a connection."""
    hello = client_hello.begins(data)
    if hello is True:
        return Kind.TLS
    if hello is None and len(data) < 6:
        return Kind.UNDECIDED
    return {
        Looks.HTTP: Kind.HTTP,
        Looks.HTTP2: Kind.HTTP2,
        Looks.OPAQUE: Kind.OPAQUE,
        Looks.TEXT: Kind.UNDECIDED,
        Looks.BINARY: Kind.OPAQUE,
        Looks.ENDLESS: Kind.ENDLESS,
    }[first_line(data)]


def hello_at(data: bytes | bytearray) -> int | None:
    """Where a ClientHello may begin in what a client sends after plain text: at a turn's start or after a line.

    Returns:
        The position of bytes that begin like one, perhaps too few of them yet to be sure; None for nowhere.
    """
    if data and client_hello.begins(data[: client_hello.PREFIX]) is not False:
        return 0
    asked = any(data.startswith(request) for request in POSTGRES_SSL)
    if asked and len(data) > 8 and client_hello.begins(data[8 : 8 + client_hello.PREFIX]) is not False:
        return 8
    found = _AFTER_LINE.search(data)
    return None if found is None else found.start() + 1
