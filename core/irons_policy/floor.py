"""The floor: addresses that no rule opens by accident, judged at each dial from a table of our own.

The order is: what never opens, then this machine's own addresses (by one exact address and port), then what a
rule pinned, then the floor. ``ipaddress.is_global`` is not asked: it calls ``fec0::1`` and ``::ffff:0:a00:1``
global, and its table moves with Python's version.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, ip_network
from typing import Literal, NamedTuple

from irons_policy.addresses import Address, Network, embedded, is_single, network_of, unmapped
from irons_policy.causes import Cause
from irons_policy.hostnet import HostNetwork


class Block(NamedTuple):
    """One row of the table: a network, what it is, and the document that defines it."""

    network: Network
    what: str
    source: str


class Withheld(NamedTuple):
    """Why an address may not be dialled.

    Attributes:
        reason: one clause that names the address.
        cause: `floor` where a pin would open it, `never` where nothing does.
    """

    reason: str
    cause: Literal[Cause.FLOOR, Cause.NEVER]


class Pin(NamedTuple):
    """A network that a rule's ``--private`` opens; ``one_port`` when that rule covers a single port."""

    network: Network
    one_port: bool


def _rows(*rows: tuple[str, str, str]) -> tuple[Block, ...]:
    return tuple(Block(ip_network(network), what, source) for network, what, source in rows)


NEVER = _rows(
    ("0.0.0.0/32", "the unspecified address", "RFC 1122"),
    ("169.254.0.0/16", "link-local or metadata", "RFC 3927"),
    ("168.63.129.16/32", "cloud metadata", "Azure WireServer"),
    ("100.100.100.200/32", "cloud metadata", "Alibaba Cloud ECS"),
    ("192.0.0.192/32", "cloud metadata", "Oracle Cloud Classic"),
    ("224.0.0.0/4", "multicast", "RFC 5771"),
    ("255.255.255.255/32", "broadcast", "RFC 919"),
    ("::/128", "the unspecified address", "RFC 4291"),
    ("fe80::/10", "link-local", "RFC 4291"),
    ("ff00::/8", "multicast", "RFC 4291"),
    ("fd00:ec2::/32", "cloud metadata", "AWS EC2"),
    ("fd20:ce::254/128", "cloud metadata", "Google Compute Engine"),
    ("fd00:c1::a9fe:a9fe/128", "cloud metadata", "Oracle Cloud"),
    ("fd00:42::42/128", "cloud metadata", "Scaleway"),
)
"""What stays closed under any rule."""

LOOPBACK = _rows(
    ("127.0.0.0/8", "loopback", "RFC 1122"),
    ("::1/128", "loopback", "RFC 4291"),
)
"""This machine, independent of its routes."""

FLOOR = _rows(
    ("0.0.0.0/8", "this network", "RFC 1122"),
    ("10.0.0.0/8", "private", "RFC 1918"),
    ("100.64.0.0/10", "shared by carriers", "RFC 6598"),
    ("172.16.0.0/12", "private", "RFC 1918"),
    ("192.0.0.0/24", "reserved for protocols", "RFC 6890"),
    ("192.88.99.0/24", "the retired 6to4 relay", "RFC 7526"),
    ("192.168.0.0/16", "private", "RFC 1918"),
    ("198.18.0.0/15", "for benchmarks", "RFC 2544"),
    ("240.0.0.0/4", "reserved", "RFC 1112"),
    ("64:ff9b:1::/48", "local translation", "RFC 8215"),
    ("100::/64", "discard only", "RFC 6666"),
    ("2001::/23", "reserved for protocols", "RFC 2928"),
    ("5f00::/16", "for segment routing", "RFC 9602"),
    ("fc00::/7", "unique local", "RFC 4193"),
    ("fec0::/10", "site-local", "RFC 3879"),
)
"""What opens only where a rule pins it. The documentation ranges (RFC 5737, 3849, 9637) are ordinary addresses."""

EMBEDDING = _rows(
    ("::/96", "IPv4-compatible", "RFC 4291"),
    ("::ffff:0:0/96", "IPv4-mapped", "RFC 4291"),
    ("::ffff:0:0:0/96", "SIIT", "RFC 2765"),
    ("64:ff9b::/96", "NAT64", "RFC 6052"),
    ("2001::/32", "Teredo", "RFC 4380"),
    ("2002::/16", "6to4", "RFC 3056"),
)
"""IPv6 blocks judged by the IPv4 address inside alone, before any row of the floor that holds them."""

GLOBAL_UNICAST = Block(ip_network("2000::/3"), "global unicast", "RFC 4291")
"""The one part of IPv6 that is given out to networks; all else is reserved."""


def refusal(address: Address, port: int, pins: Iterable[Pin], host_network: HostNetwork) -> Withheld | None:
    """Judge one address that is about to be dialled.

    Args:
        address: as the resolver gave it, or as the sandbox wrote it.
        port: the TCP port.
        pins: what the rules for this host and port open.
        host_network: the live facts; read again for each dial.

    Returns:
        None when it may be dialled.
    """
    if getattr(address, "scope_id", None) is not None:
        return Withheld(f"{address} has a zone, which irons never opens", Cause.NEVER)
    address = unmapped(address)
    faces: list[tuple[Address, str]] = [(address, str(address))]
    faces.extend((inner, f"{address} carries {inner} ({form}), which") for form, inner in embedded(address))
    for face, called in faces:
        reason = never(face) or own_port(face, port, host_network)
        if reason:
            return Withheld(f"{called} is {reason}; no rule opens that", Cause.NEVER)
    pinned = [pin for pin in pins if address in pin.network]
    for face, called in faces:
        if own(face, host_network):
            if any(pin.one_port and is_single(pin.network) for pin in pinned):
                continue
            how = "only --private with one address, on a rule for one port, opens it"
            return Withheld(f"{called} is this machine's own; {how}", Cause.FLOOR)
    if pinned:
        return None
    for face, called in faces:
        reason = _floor(face) or _neighbour(face, host_network)
        if reason:
            return Withheld(f"{called} is {reason}; --private on its rule would open it", Cause.FLOOR)
    return None


def never(address: Address) -> str | None:
    """What makes this one address impossible to open, or None."""
    return _named(NEVER, address)


def own(address: Address, host_network: HostNetwork) -> bool:
    """True when a connection to the address would end on this machine."""
    return _named(LOOPBACK, address) is not None or host_network.is_own(address)


def held(network: Network) -> tuple[Literal["never", "own", "floor"], str] | None:
    """How the table, leaving the live network aside, holds a whole network shut; None when it does not.

    For the text that is printed when a rule is added; the verdict at the dial is ``refusal``'s alone.

    Returns:
        The step that holds it ("never" opens for no rule, "own" for one exact address and port, "floor" for a
        pin) and what the network is.
    """
    faces = [network]
    if is_single(network):
        faces += [network_of(inner) for _, inner in embedded(network.network_address)]
    steps: tuple[tuple[Literal["never", "own", "floor"], tuple[Block, ...]], ...] = (
        ("never", NEVER),
        ("own", LOOPBACK),
        ("floor", FLOOR),
    )
    for step, rows in steps:
        for face in faces:
            for row in rows:
                # Rows of the floor hold no block that is judged by what its addresses embed.
                inside = face.prefixlen >= row.network.prefixlen and face.network_address in row.network
                if inside and not (step == "floor" and _named(EMBEDDING, face.network_address)):
                    return step, f"{row.what} ({row.source})"
    return None


def _named(rows: Iterable[Block], address: Address) -> str | None:
    for row in rows:
        if address in row.network:
            return f"{row.what} ({row.source})"
    return None


def _floor(address: Address) -> str | None:
    if _named(EMBEDDING, address):
        return None
    named = _named(FLOOR, address)
    if named or isinstance(address, IPv4Address) or address in GLOBAL_UNICAST.network:
        return named
    return f"reserved ({GLOBAL_UNICAST.source})"


def own_port(address: Address, port: int, host_network: HostNetwork) -> str | None:
    """What an address and port is where irons itself listens there; None elsewhere. No rule opens it."""
    for where, at in host_network.listeners:
        if at == port and (where == address or (where.is_unspecified and own(address, host_network))):
            return "a port of irons itself"
    for where, at in host_network.proxies:
        if at == port and (where == address or (own(where, host_network) and own(address, host_network))):
            return "the upstream proxy, which is for the gateway alone"
    return None


def _neighbour(address: Address, host_network: HostNetwork) -> str | None:
    for pool in host_network.pools:
        if address in pool:
            return f"one that stands for a name in sandboxes ({pool})"
    for network in host_network.onlink:
        if address in network:
            return f"on this machine's own network ({network})"
    return None
