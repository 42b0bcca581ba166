"""Where the Incus of the engine `incus` is: `incus_socket` in `[local]` of the settings file, or a cluster that was joined."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from irons.files import write_whole

SETTING = "incus_socket"
SOCKET = "/var/lib/incus/unix.socket"
"""Where Incus's packages put it."""

CLUSTER = "cluster.json"
"""The file that says which cluster was joined, in its directory."""

ADDRESSES = "incus-addresses.json"
"""The file that says where Incus listens on the network."""


def joined_directory(local: Path) -> Path:
    """Where it is kept which cluster was joined.

    Args:
        local: the directory of the local backend's state.
    """
    return local / "incus"


def read_incus(local: Mapping[str, Any]) -> Path:
    """The path of Incus's unix socket, from the table `[local]`.

    Raises:
        ValueError: it is not an absolute path.
    """
    path = local.get(SETTING, SOCKET)
    if not isinstance(path, str) or not path.startswith("/") or not path.isprintable():
        raise ValueError(
            f"local.{SETTING} must be the absolute path of Incus's unix socket, not {str(path)[:80]!r}"
        )
    return Path(path)


def incus_socket(settings: Path) -> Path:
    """The same, from a settings file; the usual path where it has none, or is invalid: others complain of that."""
    import tomllib

    try:
        local = tomllib.loads(settings.read_text("utf-8")).get("local", {})
        return read_incus(local if isinstance(local, dict) else {})
    except (OSError, ValueError):
        return Path(SOCKET)


def addresses(local: Path) -> list[tuple[str, int]]:
    """Where Incus listens on the network, as `note_addresses` kept it; empty where it does not, or none was used yet.

    Args:
        local: the directory of the local backend's state.
    """
    try:
        found = json.loads((local / ADDRESSES).read_bytes())
        return [(str(ip_address(address)), int(port)) for address, port in found]
    except (OSError, ValueError, TypeError):
        return []


def note_addresses(local: Path, found: Collection[tuple[str, int]]) -> None:
    """Keep where Incus listens on the network: no rule opens that to a sandbox.

    Raises:
        OSError: it cannot be written.
    """
    if sorted(found) != addresses(local):
        write_whole(local / ADDRESSES, json.dumps(sorted(found)))
