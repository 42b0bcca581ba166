"""What a server answers to a ClientHello: whether it speaks TLS at all, and whether it asks for another one.

A second ClientHello (RFC 8446, section 4.1.4) may say another name, and servers do go by it. Until the server has
answered, nothing that follows the first may reach it.
"""

from __future__ import annotations

import re
from enum import Enum

from irons_local.gateway.tls.client_hello import HANDSHAKE

MAX_ANSWER = 65_536
"""Bytes that are looked at together; a server that needs more of them does not speak TLS."""
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random of a ServerHello that is a HelloRetryRequest (RFC 8446, section 4.1.3)."""
_RANDOM_AT = 6
_RANDOM_END = _RANDOM_AT + len(_RETRY)
_SERVER_HELLO = 2
_CHANGE_CIPHER_SPEC, _ALERT, _FATAL = 20, 21, 2
_BEGINS = re.compile(rb"\x16\x03...\x02|\x15\x03.\x00\x02[\x01\x02]", re.DOTALL)
"""A ServerHello's record, or an alert's."""
_TAIL = 5


class _Found(Enum):
    OTHER = "something else than TLS"
    MORE = "too few bytes to say"
    FIRST = "TLS that goes on"
    AGAIN = "a request for another ClientHello"


class ServerAnswer:
    """Reads a server's answer as it comes.

    Args:
        late: the ClientHello came after plain text, so the server may still say the end of its own.

    Attributes:
        plain: the server does not speak TLS.
    """

    def __init__(self, *, late: bool) -> None:
        self._late = late
        self._data = bytearray()
        self.plain = False

    def feed(self, data: bytes) -> bool | None:
        """Take more bytes.

        Returns:
            True where the server asks for another ClientHello, False where it goes on without; None as long as
            that is open, which it remains where the server does not speak TLS.
        """
        if self.plain:
            return None
        self._data += data
        found = self._late_answer() if self._late else _read(self._data)
        if found is _Found.FIRST or found is _Found.AGAIN:
            return found is _Found.AGAIN
        if len(self._data) > MAX_ANSWER or (found is _Found.OTHER and not self._late):
            self.plain = True
            self._data.clear()
        return None

    def _late_answer(self) -> _Found:
        while (match := _BEGINS.search(self._data)) is not None:
            del self._data[: match.start()]
            found = _read(self._data)
            if found is not _Found.OTHER:
                return found
            del self._data[:1]
        del self._data[:-_TAIL]
        return _Found.OTHER


def _read(data: bytearray) -> _Found:
    """Read records up to the random of a ServerHello."""
    message = b""
    at = 0
    while True:
        head = data[at : at + 5]
        if head and head[0] not in {HANDSHAKE, _CHANGE_CIPHER_SPEC, _ALERT}:
            return _Found.OTHER
        if len(head) > 1 and head[1] != 3:
            return _Found.OTHER
        if len(head) < 5:
            return _Found.MORE
        size = int.from_bytes(head[3:], "big")
        body = data[at + 5 : at + 5 + size]
        if head[0] == HANDSHAKE:
            message += body
            if message and message[0] != _SERVER_HELLO:
                return _Found.OTHER
            random = message[_RANDOM_AT:_RANDOM_END]
            if random != _RETRY[: len(random)]:
                return _Found.FIRST
            if len(random) == len(_RETRY):
                return _Found.AGAIN
        elif head[0] == _ALERT and body[:1] == bytes((_FATAL,)):
            # It is over, and was TLS.
            return _Found.FIRST
        if len(body) < size:
            return _Found.MORE
        at += 5 + size
