"""Looks through what a client says in the clear, for as long as it does, to a server that may be spoken to.

Pure: bytes go in, and out comes what may go on now and what must wait. A name can still show up late: a TLS
handshake after STARTTLS, STLS, a Postgres SSLRequest or an LDAP extended operation begins where a client's turn
or line begins; an HTTP request begins with the client's first line.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from irons_local.gateway.inspect.sniff import Looks, first_line, hello_at
from irons_local.gateway.tls import client_hello

_SSH = b"SSH-"
_PROXY_1, _PROXY_2 = b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"
"""How the headers of the PROXY protocol begin, which names the client that a proxy connects for."""
_PROXY_2_HEAD = 16
_PIECES = "an HTTP request in pieces"


class Then(Enum):
    """What follows the bytes that may go on."""

    MORE = "go on"
    HOLD = "the rest waits for more bytes, or for its time to run out"
    HELLO = "the rest begins a ClientHello"
    HTTP = "the rest begins an HTTP request"
    HTTP2 = "the rest begins HTTP/2"
    RAW = "nothing more will be in the clear"
    REFUSE = "the connection is refused"


class Step(NamedTuple):
    """What to do with bytes.

    Attributes:
        forward: what may go on now.
        then: what follows.
        rest: what may not go on yet.
        sent: what of the ClientHello in `rest` has gone on before.
        reason: why it is refused.
    """

    forward: bytes
    then: Then = Then.MORE
    rest: bytes = b""
    sent: bytes = b""
    reason: str = ""


class Inspector:
    """The state of one connection's clear text.

    Attributes:
        greeting: the first bytes that the server sent, once it has.
    """

    def __init__(self) -> None:
        self.greeting = b""
        self._ssh = False
        # A PROXY header comes once, and after it everything begins again.
        self._proxied = False
        self._skip = 0
        # The first line as far as it has gone on; None once it is known not to be HTTP.
        self._line: bytes | None = b""
        self._prefix = b""

    def feed(self, data: bytes) -> Step:
        """Judge the next bytes; those that an earlier step held come again in front."""
        if self._ssh and self.greeting.startswith(_SSH):
            return Step(data, Then.RAW)
        if self._skip:
            part = data[: self._skip]
            self._skip -= len(part)
            return self._after(part, data[len(part) :])
        prefix, self._prefix = self._prefix, b""
        if prefix:
            begun = client_hello.begins(prefix + data[: client_hello.PREFIX])
            if begun is True:
                return Step(b"", Then.HELLO, data, sent=prefix)
            if begun is None:
                self._prefix = prefix + data
                if self._line is not None:
                    self._line += data
                return Step(data)
        at = hello_at(data)
        if at is None:
            return self._plain(data)
        step = self._plain(data[:at]) if at else Step(b"")
        if step.then is not Then.MORE:
            # The line before it settles what this is: HTTP is parsed from its beginning.
            return step._replace(rest=step.rest + data[at:])
        then = Then.HELLO if client_hello.begins(data[at : at + client_hello.PREFIX]) else Then.HOLD
        return step._replace(then=then, rest=data[at:])

    def release(self, rest: bytes) -> bytes:
        """Let held bytes go on, as more did not come; what they may become is remembered."""
        if self._line is not None:
            self._line += rest
        if client_hello.begins(rest) is None:
            self._prefix = rest
        return rest

    def _plain(self, data: bytes) -> Step:
        if self._line is None:
            return Step(data)
        looks = first_line(self._line + data)
        if looks is Looks.HTTP:
            if self._line:
                return Step(b"", Then.REFUSE, reason=_PIECES)
            return Step(b"", Then.HTTP, data)
        if looks is Looks.HTTP2:
            return Step(b"", Then.REFUSE, reason=_PIECES) if self._line else Step(b"", Then.HTTP2, data)
        if looks is Looks.ENDLESS:
            return Step(b"", Then.REFUSE, reason="its first line has no end")
        if not self._proxied and looks in {Looks.OPAQUE, Looks.BINARY}:
            step = self._proxy(self._line, data)
            if step is not None:
                return step
        if looks is Looks.TEXT:
            return Step(b"", Then.HOLD, data)
        if looks is Looks.BINARY:
            self._line += data
            return Step(data)
        # SSH (RFC 4253) says its version in the clear and nothing else; but that this is SSH takes the server's word too.
        self._ssh = (self._line + data).startswith(_SSH)
        self._line = None
        return Step(data)

    def _proxy(self, line: bytes, data: bytes) -> Step | None:
        """Let a PROXY header go on, and look at what follows as at a beginning; None where there is none."""
        whole = line + data
        if _PROXY_2.startswith(whole[: len(_PROXY_2)]) and len(whole) < _PROXY_2_HEAD:
            self._line = whole
            return Step(data)
        if whole.startswith(_PROXY_2):
            size = _PROXY_2_HEAD + int.from_bytes(whole[_PROXY_2_HEAD - 2 : _PROXY_2_HEAD], "big")
        elif whole.startswith(_PROXY_1) and b"\n" in whole:
            size = whole.index(b"\n") + 1
        else:
            return None
        self._proxied = True
        part = data[: size - len(line)]
        self._skip = size - len(line) - len(part)
        return self._after(part, data[len(part) :])

    def _after(self, part: bytes, rest: bytes) -> Step:
        if self._skip:
            return Step(part)
        self._line = b""
        if not rest:
            return Step(part)
        step = self.feed(rest)
        return step._replace(forward=part + step.forward)
