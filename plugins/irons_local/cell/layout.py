"""The addresses and ports of a cell, the same in all of them."""

from __future__ import annotations

from typing import NamedTuple

GATEWAY4, GATEWAY6 = "100.64.0.1", "fd64::1"


SANDBOX4, SANDBOX6 = "100.64.0.2", "fd64::2"


LOOPBACK4 = "127.0.0.1"


LOG_GROUP = 5


SOCKETS = ("tcp4", "tcp6", "dns_udp4", "dns_udp6", "dns_tcp4", "dns_tcp6", "nflog")
"""A cell's sockets, in the order in which they are made, kept by the keeper and handed to the gateway."""


class Namespaces(NamedTuple):
    """Open descriptors of a cell's namespaces; whoever asked for them closes them."""

    user: int
    net: int
    mount: int


OUTER_PREFIX = "irs-"
INNER = "irons0"
"""The end of a veth that is in its cell; that no other cell has such a device tells them apart."""


class Veth(NamedTuple):
    """What a cell with a veth has besides.

    Attributes:
        name: the outer end, made in the keeper's network namespace and meant for an instance.
        pid: a process that only sleeps in the cell, so that it outlives keeper and gateway as one with a machine in it does.
        started: when that process was started, in clock ticks since the machine was.
    """

    name: str
    pid: int
    started: int


def outer_name(cell: str) -> str:
    """The name of the outer end of a cell's veth: an interface's name has 15 characters."""
    return OUTER_PREFIX + cell.removeprefix("sb_")[:11]


class Ports(NamedTuple):
    """Where the gateway listens inside a cell: its transparent TCP port, and its name server's."""

    tcp: int = 15001
    dns: int = 53


class Ends(NamedTuple):
    """The two ends of a TCP connection, as the program that made it has them.

    Attributes:
        address: its own address, a literal.
        port: its own port.
        peer: the address that it connected to, a literal.
        peer_port: the port that it connected to.
    """

    address: str
    port: int
    peer: str
    peer_port: int
