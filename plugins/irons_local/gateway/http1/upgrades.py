"""What a request head says of its connection (RFC 9110, sections 7.6.1 and 7.8).

A recipient may ignore an `Upgrade`. Every one but WebSocket's is dropped, with all that belongs to it, so no server can
leave HTTP where the gateway does not.
"""

from __future__ import annotations

from collections.abc import Iterable

Field = tuple[bytes, bytes]
_WEBSOCKET = b"websocket"


def options(fields: Iterable[Field]) -> set[bytes]:
    """The options that `Connection` lists, in lower case.

    Args:
        fields: names in lower case.
    """
    return {each.lower() for name, value in fields if name == b"connection" for each in _listed(value)}


def asks_websocket(fields: Iterable[Field]) -> bool:
    """True where an upgrade to WebSocket is asked for.

    Args:
        fields: names in lower case.
    """
    fields = tuple(fields)
    asked = {each.lower() for name, value in fields if name == b"upgrade" for each in _listed(value)}
    return _WEBSOCKET in asked and b"upgrade" in options(fields)


def kept(fields: Iterable[Field], *, websocket: bool) -> tuple[Field, ...]:
    """The fields that go on.

    Args:
        fields: in the order and spelling in which they came.
        websocket: the upgrade to WebSocket goes on, and no other next to it.
    """
    dropped = {b"http2-settings"} if websocket else {b"http2-settings", b"upgrade"}
    found: list[Field] = []
    upgraded = False
    for name, value in fields:
        lower = name.lower()
        if lower == b"connection":
            listed = _listed(value)
            left = [each for each in listed if each.lower() not in dropped]
            if len(left) == len(listed):
                found.append((name, value))
            elif left:
                found.append((name, b", ".join(left)))
        elif lower == b"upgrade" and websocket:
            if not upgraded:
                found.append((name, _WEBSOCKET))
            upgraded = True
        elif lower not in dropped:
            found.append((name, value))
    return tuple(found)


def _listed(value: bytes) -> list[bytes]:
    return [each for each in (part.strip(b" \t") for part in value.split(b",")) if each]
