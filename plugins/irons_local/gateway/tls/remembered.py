"""Remembers ClientHellos that OpenSSL has taken, so that the next one of the same client is not parsed again.

A client repeats its ClientHello byte by byte but for three fields, and a server takes any value in each of them: the
random, the session id (RFC 8446, section 4.1.2; no session is ever kept here, so none is found), and an X25519 key
(RFC 7748, section 5: every string of 32 bytes is one). A ClientHello that differs from a remembered one in nothing
else has the same structure, so OpenSSL would say the same of it: the same name, the same alert. Any other
difference, in a length or in a single byte elsewhere, leaves it unknown.
"""

from __future__ import annotations

from typing import NamedTuple

from irons_policy.hostnames import Host

MOST = 64
_RANDOM, _SESSION = 11, 43
"""Where the random begins, and the length of the session id, in a ClientHello that is one record."""
_KEY_SHARE = b"\x00\x33"
_X25519 = bytes.fromhex("00260024001d0020")
"""What follows the type of a `key_share` extension (RFC 8446, section 4.2.8) whose only entry is an X25519 key."""
_KEY = 32


class KnownHello(NamedTuple):
    """What OpenSSL reports of a ClientHello: the server name, if there is one, and the alert that refuses it."""

    name: Host | None
    alert: bytes


class Hellos:
    """ClientHellos of one record that a server would take; forgets all of them once there are too many."""

    def __init__(self) -> None:
        self._keys_at: dict[int, tuple[int, ...]] = {}
        self._known: dict[tuple[int, int, bytes], KnownHello] = {}

    def find(self, data: bytes) -> KnownHello | None:
        """Look up a ClientHello.

        Args:
            data: everything that the client has sent so far.
        """
        for at in self._keys_at.get(len(data), ()):
            known = self._known.get((len(data), at, _fixed(data, at)))
            if known is not None:
                return known
        return None

    def remember(self, data: bytes, known: KnownHello) -> None:
        """Remember a ClientHello that OpenSSL has taken, where it is exactly one record.

        Args:
            data: all of its records, and nothing else.
            known: what is to be found.
        """
        at = _key_at(data)
        if at is None:
            return
        if len(self._known) >= MOST:
            self._known.clear()
            self._keys_at.clear()
        size = len(data)
        self._known[size, at, _fixed(data, at)] = known
        self._keys_at[size] = tuple(dict.fromkeys((*self._keys_at.get(size, ()), at)))


def _fixed(data: bytes, at: int) -> bytes:
    """All but the fields whose value is of no account; the length of the session id, one byte, is in it."""
    after = _SESSION + 1 + data[_SESSION]
    if not at:
        return data[:_RANDOM] + data[_SESSION : _SESSION + 1] + data[after:]
    return data[:_RANDOM] + data[_SESSION : _SESSION + 1] + data[after:at] + data[at + _KEY :]


def _key_at(data: bytes) -> int | None:
    """Where the key of a lone X25519 share is; 0 where there is none; None where this is not one whole record."""
    size = len(data)
    if size < _SESSION + 1 or _number(data, 3, 2) != size - 5 or _number(data, 6, 3) != size - 9:
        return None
    at = _SESSION + 1 + data[_SESSION]
    at += 2 + _number(data, at, 2)
    at += 1 + _number(data, at, 1)
    if at == size:
        return 0
    if at + 2 + _number(data, at, 2) != size:
        return None
    at += 2
    found = 0
    while at < size:
        if data[at : at + 2] == _KEY_SHARE and data[at + 2 : at + 2 + len(_X25519)] == _X25519:
            found = at + 2 + len(_X25519)
        at += 4 + _number(data, at + 2, 2)
    return found if at == size else None


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")
