"""Reads a ClientHello (RFC 8446, RFC 6066) by OpenSSL itself, and makes the alert that refuses it.

The standard library's OpenSSL takes the bytes as a server would, fragmented in any way, tells the name through its
callback, and is stopped there: no certificate exists, no handshake is ever finished.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple

MAX_HELLO = 66_000
PREFIX = 6
"""Bytes after which `begins` is sure."""
MAX_PLAIN = 1 << 14
MAX_RECORD = 5 + (1 << 14) + 256
HANDSHAKE, OTHER_RECORDS = 22, frozenset((20, 21, 23))
"""Record types: a handshake message, and what else may come before one (RFC 8446, section 5.1)."""
_MESSAGE = 4
"""Bytes of a handshake message before its body: the type, and the length of the body."""


class Hello(NamedTuple):
    """What a ClientHello says.

    Attributes:
        name: its server name as sent, or None.
        alert: the alert record that refuses it.
        rest: the bytes fed last that follow its last record, and are no part of it.
    """

    name: str | None
    alert: bytes
    rest: bytes = b""


class BadHelloError(ValueError):
    """The bytes are not a ClientHello that a server would take.

    Attributes:
        alert: the alert record OpenSSL answers with, perhaps empty.
    """

    def __init__(self, reason: str, alert: bytes = b"") -> None:
        super().__init__(reason)
        self.alert = alert


class OddHelloError(BadHelloError):
    """A server might take it, with something else in or between its records."""


def begins(data: bytes | bytearray) -> bool | None:
    """True where bytes begin like a ClientHello's record; None where there are too few of them to say no.

    A handshake record (22) of version 3.x whose first message is a ClientHello (1).
    """
    for index, fits in enumerate((b"\x16", b"\x03", None, None, None, b"\x01")):
        if index >= len(data):
            return None
        if fits is not None and data[index] != fits[0]:
            return False
    return True


class Records:
    """Takes one ClientHello out of its records (RFC 8446, section 5.1), and finds where the last of them ends.

    Attributes:
        odd: something else is in or between them, or one is empty or too large. A second ClientHello could hide there.
        broken: the five bytes in place of a record's head that are not one; nothing after them is taken.
    """

    __slots__ = ("_begun", "_head", "_inside", "_left", "_record", "broken", "odd")

    def __init__(self) -> None:
        self._head = b""
        self._record = 0
        self._inside = False
        self._begun = b""
        self._left = 0
        self.odd = False
        self.broken = b""

    def feed(self, data: bytes) -> tuple[bytes, int | None]:
        """Take more bytes.

        Returns:
            The bytes of the ClientHello in them; and how many of `data` its records take once the last is whole,
            else None.
        """
        message = bytearray()
        at = 0
        while at < len(data) and not self.broken:
            if not self._record:
                part = data[at : at + 5 - len(self._head)]
                self._head += part
                at += len(part)
                if len(self._head) == 5:
                    self._open()
                continue
            part = data[at : at + self._record]
            at += len(part)
            self._record -= len(part)
            if self._inside:
                message += self._take(part)
            if not self._record and self.whole:
                return bytes(message), at
        return bytes(message), None

    @property
    def whole(self) -> bool:
        """True once the last byte of the ClientHello has come, perhaps not the last one of its record."""
        return len(self._begun) == _MESSAGE and not self._left

    def _open(self) -> None:
        self._inside = self._head[0] == HANDSHAKE
        self._record = int.from_bytes(self._head[3:], "big")
        if not self._inside or self._head[1] != 3 or not 0 < self._record <= MAX_PLAIN:
            self.odd = True
        if not self._inside and self._head[0] not in OTHER_RECORDS:
            self.broken = self._head
        self._head = b""

    def _take(self, part: bytes) -> bytes:
        """What of a handshake record's bytes is the ClientHello's."""
        begun = part[: _MESSAGE - len(self._begun)]
        if begun:
            self._begun += begun
            if len(self._begun) == _MESSAGE:
                self._left = int.from_bytes(self._begun[1:], "big")
        body = part[len(begun) : len(begun) + self._left]
        self._left -= len(body)
        taken = begun + body
        self.odd = self.odd or len(taken) < len(part)
        return taken


class _Probe(ssl.SSLObject):
    """A server that stops as soon as it knows what it is asked for."""

    whole = False
    asked: str | None = None


def context() -> ssl.SSLContext:
    """What `Reader` needs, made once: it takes every version and cipher, as only the name is of interest."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    made.set_ciphers("ALL:@SECLEVEL=0")
    made.sslobject_class = _Probe
    made.sni_callback = _stop
    return made


def _stop(probe: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int:
    if isinstance(probe, _Probe):
        probe.whole, probe.asked = True, name
    return ssl.ALERT_DESCRIPTION_ACCESS_DENIED


class Reader:
    """Takes the bytes of a ClientHello as they come.

    OpenSSL gets them once the message is whole: before, it would keep as much memory as the message says it will have.

    Args:
        context: what `context()` made.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._records = Records()
        self._message = bytearray()
        self._size = 0
        self._closed = False

    def feed(self, data: bytes) -> Hello | None:
        """Take more bytes.

        Returns:
            What the ClientHello says once it is whole, else None.

        Raises:
            BadHelloError: it is malformed or too large.
            OddHelloError: it is whole, and its records hold something else.
        """
        if self._closed:
            raise BadHelloError("nothing may follow")
        message, end = self._records.feed(data)
        self._message += message
        self._size += len(data)
        if not self._records.whole and not self._records.broken and self._size <= MAX_HELLO:
            return None
        whole, name, alert, reason = self._ask()
        self.close()
        if not whole:
            raise BadHelloError(f"malformed ClientHello: {reason}", alert)
        # Where its last record goes on beyond it, that record's end is not waited for.
        if self._records.odd or end is None:
            raise OddHelloError("malformed ClientHello: something else is in its records", alert)
        return Hello(name, alert, data[end:])

    def _ask(self) -> tuple[bool, str | None, bytes, str]:
        """What OpenSSL says of the message: whether it would take it, the name, the alert, and what is wrong."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        for at in range(0, len(self._message), MAX_PLAIN):
            part = self._message[at : at + MAX_PLAIN]
            incoming.write(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part)
        incoming.write(self._records.broken)
        probe = self._context.wrap_bio(incoming, outgoing, server_side=True)
        if not isinstance(probe, _Probe):
            raise TypeError
        reason = "no server would take it"
        try:
            probe.do_handshake()
        except ssl.SSLWantReadError:
            if not self._records.broken:
                reason = "it is too large"
        except ssl.SSLError as error:
            reason = (error.reason or str(error)).lower().replace("_", " ")
        return probe.whole, probe.asked, outgoing.read(), reason

    def close(self) -> None:
        """Free what was kept, at once."""
        self._closed = True
        self._message.clear()
