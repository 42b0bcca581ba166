"""The host's own hosts file (hosts(5)), read as glibc's `files` service reads it, within bounds.

The resolver is asked for absolute names, with their final dot, and those the hosts file does not match. So it is
looked through first, for the name without the dot. What it says is judged by the floor like any other answer.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from irons_local.gateway.reach.reread import Reread
from irons_policy.addresses import Address

MOST_BYTES = 1 << 20
MOST_LINES = 100_000


def parse_hosts(data: bytes) -> dict[bytes, list[bytes]]:
    """Read a hosts file.

    Args:
        data: its contents; what exceeds `MOST_BYTES` or `MOST_LINES` is left out, as is a line cut in two there.

    Returns:
        Each name in lower case, with the addresses of all its lines, in their order and not yet checked.
    """
    if len(data) > MOST_BYTES:
        data = data[: data.rfind(b"\n", 0, MOST_BYTES) + 1]
    found: dict[bytes, list[bytes]] = {}
    for line in data.split(b"\n", MOST_LINES)[:MOST_LINES]:
        address, *names = line.partition(b"#")[0].lower().split() or (b"",)
        for name in names:
            found.setdefault(name, []).append(address)
    return found


class HostsFile:
    """The hosts file at a path, as it is at each moment; safe to ask from several threads.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path = Path("/etc/hosts")) -> None:
        self._names = Reread(path, parse_hosts, MOST_BYTES)

    def addresses(self, name: str) -> list[Address]:
        """The addresses of a canonical name, in the file's order; none where the file does not have it."""
        texts = self._names().get(name.encode("ascii"), ())
        return list(dict.fromkeys(address for text in texts if (address := _address(text)) is not None))


def _address(text: bytes) -> Address | None:
    try:
        # A scoped address (fe80::1%eth0) is link-local, which is never dialled.
        return ip_address(text.decode("ascii").partition("%")[0])
    except ValueError:
        return None
