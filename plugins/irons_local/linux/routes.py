"""The live facts about this machine's network that the floor needs: own addresses, on-link prefixes, listeners.

They are read from the kernel at each dial by rtnetlink (RFC 3549, ``rtnetlink(7)``), which any user may ask:
an address that was added a moment ago counts at once.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from irons_local.linux import netlink
from irons_policy.addresses import Address, Network, is_single
from irons_policy.hostnet import HostNetwork, Listener

_NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 20, 22, 24, 26
_RTA_DST, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA = 1, 5, 9, 18
_UNICAST, _LOCAL, _BROADCAST, _ANYCAST = 1, 2, 3, 4
_NEXT_HOP = struct.Struct("=HBBi")
_RECEIVE = 1 << 17
_KERNEL = 0
_ATTEMPTS = 5
_TIMEOUT = 1.0

# A route without a gateway that is shorter than this covers (a half of) the world, as tunnels install it:
# it says where packets go, not who the neighbours are. No real link has a prefix that short.
_SHORTEST_LINK = 8

# Making the objects is most of the cost of reading many routes, and they are the same at each dial.
_REMEMBERED = 4096


def read_host_network(listeners: Iterable[Listener] = ()) -> HostNetwork:
    """Read the host's network as the kernel has it now, in the network namespace of this process.

    Needs no privilege and runs no program.

    Args:
        listeners: what irons listens on, passed through into the answer.

    Raises:
        OSError: when the kernel cannot be asked; nothing may be dialled then.
    """
    own: set[Address] = set()
    onlink: set[Network] = set()
    own_networks: set[Network] = set()
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as kernel:
        kernel.settimeout(_TIMEOUT)
        kernel.bind((0, 0))
        for payload in _dump(kernel, _GETADDR, _NEWADDR, netlink.ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            mine, link = read_address(payload)
            if mine is not None:
                own.add(mine)
            if link is not None:
                onlink.add(link)
        for family in (socket.AF_INET, socket.AF_INET6):
            request = netlink.ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            for payload in _dump(kernel, _GETROUTE, _NEWROUTE, request):
                kind, network = read_route(payload)
                if network is None:
                    continue
                if kind == "onlink":
                    onlink.add(network)
                elif is_single(network):
                    own.add(network.network_address)
                else:
                    own_networks.add(network)
    return HostNetwork(frozenset(own), tuple(onlink), frozenset(listeners), tuple(own_networks))


def read_address(payload: bytes) -> tuple[Address | None, Network | None]:
    """Read one ``RTM_NEWADDR`` body: this machine's address, and the prefix (or the peer) on its link."""
    family, prefix, _flags, _scope, _index = netlink.ADDRESS.unpack_from(payload)
    local = peer = b""
    for kind, value in netlink.attributes(payload, netlink.ADDRESS.size):
        if kind == netlink.IFA_LOCAL:
            local = value
        elif kind == netlink.IFA_ADDRESS:
            peer = value
    own = _address(family, local or peer)
    network = _network(family, peer, prefix) if peer else None
    if network is not None and (
        prefix < _SHORTEST_LINK or (is_single(network) and network.network_address == own)
    ):
        network = None
    return own, network


def read_route(payload: bytes) -> tuple[str, Network | None]:
    """Read one ``RTM_NEWROUTE`` body: ("own" or "onlink", prefix), or a None prefix where it is neither.

    A route with a gateway leads on, an unreachable one nowhere, and a default one everywhere: none of them
    makes its prefix a neighbour. One next hop without a gateway does.
    """
    family, prefix, _src, _tos, _table, _protocol, _scope, kind, _flags = netlink.ROUTE.unpack_from(payload)
    destination, gateway, hops = b"", False, b""
    for attribute, value in netlink.attributes(payload, netlink.ROUTE.size):
        if attribute == _RTA_DST:
            destination = value
        elif attribute in {_RTA_GATEWAY, _RTA_VIA}:
            gateway = True
        elif attribute == _RTA_MULTIPATH:
            hops = value
    if kind in {_LOCAL, _ANYCAST}:
        return "own", _network(family, destination, prefix)
    if kind not in {_UNICAST, _BROADCAST} or prefix < _SHORTEST_LINK or gateway:
        return "onlink", None
    if hops and all(_leads_on(hop) for hop in _hops(hops)):
        return "onlink", None
    return "onlink", _network(family, destination, prefix)


def _dump(kernel: socket.socket, ask: int, answer: int, request: bytes) -> list[bytes]:
    """The bodies of a whole dump; asked again when the tables changed under it."""
    for attempt in range(1, _ATTEMPTS + 1):
        kernel.send(netlink.message(ask, netlink.REQUEST | netlink.DUMP, request, attempt))
        bodies, whole = _receive(kernel, answer, attempt)
        if whole:
            return bodies
    raise OSError("the routing table changes faster than it can be read")


def _receive(kernel: socket.socket, answer: int, sequence: int) -> tuple[list[bytes], bool]:
    bodies: list[bytes] = []
    whole = True
    while True:
        data, (sender, _groups) = kernel.recvfrom(_RECEIVE)
        if sender != _KERNEL:
            continue
        for found in netlink.messages(data):
            if found.sequence != sequence:
                continue
            if found.flags & netlink.DUMP_INTERRUPTED:
                whole = False
            if found.kind == answer:
                bodies.append(found.body)
            elif found.kind == netlink.ERROR:
                raise OSError(netlink.error_number(found.body), "the kernel does not report its routes")
            elif found.kind == netlink.DONE:
                return bodies, whole


def _hops(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + _NEXT_HOP.size <= len(data):
        length = _NEXT_HOP.unpack_from(data, at)[0]
        if length < _NEXT_HOP.size:
            return
        yield data[at : at + length]
        at += length + 3 & ~3


def _leads_on(hop: bytes) -> bool:
    return any(kind in {_RTA_GATEWAY, _RTA_VIA} for kind, _ in netlink.attributes(hop, _NEXT_HOP.size))


@lru_cache(maxsize=_REMEMBERED)
def _address(family: int, value: bytes) -> Address | None:
    if family == socket.AF_INET and len(value) == 4:
        return IPv4Address(value)
    if family == socket.AF_INET6 and len(value) == 16:
        return IPv6Address(value)
    return None


@lru_cache(maxsize=_REMEMBERED)
def _network(family: int, value: bytes, prefix: int) -> Network | None:
    if family == socket.AF_INET:
        return IPv4Network((int.from_bytes(value or bytes(4)), prefix), strict=False)
    if family == socket.AF_INET6:
        return IPv6Network((int.from_bytes(value or bytes(16)), prefix), strict=False)
    return None
