"""Reads a ClientHello (RFC 8446, RFC 6066) by OpenSSL itself, and makes the alert that refuses it.

The standard library's OpenSSL takes the bytes as a server would, fragmented in any way, tells the name through its
callback, and is stopped there: no certificate exists, no handshake is ever finished.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple

MAX_HELLO = 66_000
MAX_RECORD = 5 + (1 << 14) + 256
HANDSHAKE, OTHER_RECORDS = 22, frozenset((20, 21, 23))
"""Record types: a handshake message, and what else may come before one (RFC 8446, section 5.1)."""
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random of a ServerHello that is a HelloRetryRequest (RFC 8446, section 4.1.3)."""
_SERVER_HELLO = b"\x02"
_RANDOM_AT = 11


class Hello(NamedTuple):
    """What a ClientHello says: its server name as sent, or None; and the alert record that refuses it."""

    name: str | None
    alert: bytes


class BadHelloError(ValueError):
    """The bytes are not a ClientHello that a server would take.

    Attributes:
        alert: the alert record OpenSSL answers with, perhaps empty.
    """

    def __init__(self, reason: str, alert: bytes = b"") -> None:
        super().__init__(reason)
        self.alert = alert


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


def asks_again(answer: bytes | bytearray) -> bool | None:
    """True where a server's first bytes ask for another ClientHello (HelloRetryRequest); None for too few of them.

    The second ClientHello may say another name, and servers do go by it.
    """
    begin = bytes((HANDSHAKE, 3))
    if answer[:2] != begin[: len(answer)]:
        return False
    if answer[5:6] not in (b"", _SERVER_HELLO):
        return False
    random = answer[_RANDOM_AT : _RANDOM_AT + len(_RETRY)]
    if random != _RETRY[: len(random)]:
        return False
    return True if len(random) == len(_RETRY) else None


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

    Args:
        context: what `context()` made.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._probe: ssl.SSLObject | None = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._size = 0

    def feed(self, data: bytes) -> Hello | None:
        """Take more bytes.

        Returns:
            What the ClientHello says once it is whole, else None.

        Raises:
            BadHelloError: it is malformed or too large.
        """
        probe = self._probe
        if not isinstance(probe, _Probe):
            raise BadHelloError("nothing may follow")
        self._size += len(data)
        self._incoming.write(data)
        reason = "no server would take it"
        try:
            probe.do_handshake()
        except ssl.SSLWantReadError:
            if self._size <= MAX_HELLO:
                return None
            reason = "it is too large"
        except ssl.SSLError as error:
            reason = (error.reason or str(error)).lower().replace("_", " ")
        alert = self._outgoing.read()
        whole, name = probe.whole, probe.asked
        self.close()
        if not whole:
            raise BadHelloError(f"malformed ClientHello: {reason}", alert)
        return Hello(name, alert)

    def close(self) -> None:
        """Free what OpenSSL holds, at once."""
        self._probe = None
