"""What holds for all cells of a member, as its server sent it last: the upstream proxy, and ports that no rule opens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from irons_local.fleet.messages import FleetSettings
from irons_local.ipc.fields import BadMessageError, an_object, port, setting, text
from irons_local.member.identity import read_state

_EVERY = ("0.0.0.0", "::", "")  # noqa: S104 (compared with, not bound)


class KeptSettings(NamedTuple):
    """FleetSettings, as they are kept.

    Attributes:
        listeners: addresses and ports.
        upstream: as `FleetSettings` has it.
    """

    listeners: list[tuple[str, int]]
    upstream: Mapping[str, Any] | None


def dialled(settings: FleetSettings, server: str, server_port: int) -> KeptSettings:
    """FleetSettings as they arrived, for a member that dialled the server there.

    Raises:
        BadMessageError: they are malformed.
    """
    found = [
        (server if address in _EVERY else address, number) for address, number in _pairs(settings.listeners)
    ]
    return KeptSettings([*found, (server, server_port)], settings.upstream)


def read_settings(path: Path) -> KeptSettings | None:
    """What was kept in a file; None where there is none, or it is damaged."""
    try:
        kept = an_object(read_state(path))
        return KeptSettings(_pairs(kept["listeners"]), setting(kept["upstream"]))
    except (BadMessageError, LookupError):
        return None


def _pairs(given: Any) -> list[tuple[str, int]]:
    if not isinstance(given, Iterable):
        raise BadMessageError("listeners are a list")
    found = []
    for each in given:
        if not isinstance(each, list | tuple) or len(each) != 2:
            raise BadMessageError("a listener is an address and a port")
        found.append((text(each[0]), port(each[1])))
    return found
