"""Reads what a cell's kernel refused and reported: nfnetlink_log messages (linux/netfilter/nfnetlink_log.h).

The packets are a sandbox's own bytes, so every length in them is suspect.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from irons_local.linux import netlink
from irons_policy.addresses import Address

_PACKET = 4 << 8
_NFGENMSG = 4
"""Bytes of `struct nfgenmsg`, which every message of netfilter begins with."""
_PAYLOAD = 9
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp", 136: "udplite"}
_PORTED = frozenset((6, 17, 33, 132, 136))
_EXTENSIONS = frozenset((0, 43, 44, 60))
_FRAGMENT = 44


class Packet(NamedTuple):
    """A packet that was refused.

    Attributes:
        protocol: its name in lower case, or its number.
        address: where it was to go.
        port: 0 where there is none to be read.
    """

    protocol: str
    address: Address
    port: int


def packets(data: bytes) -> Iterator[Packet]:
    """The packets reported in one datagram from the kernel; what cannot be read is passed over."""
    # Each message says its length; after one that is cut short there is no telling where the next begins.
    with suppress(OSError):
        for message in netlink.messages(data):
            found = _packet_of(message.body) if message.kind == _PACKET else None
            if found is not None:
                yield found


def _packet_of(body: bytes) -> Packet | None:
    payload = next((value for kind, value in netlink.attributes(body, _NFGENMSG) if kind == _PAYLOAD), None)
    return None if payload is None else parse(payload)


def parse(data: bytes) -> Packet | None:
    """Read the beginning of an IP packet (RFC 791, RFC 8200); None where it is none."""
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        protocol = data[9]
        fragment = int.from_bytes(data[6:8], "big") & 0x1FFF
        start = None if fragment else (data[0] & 15) * 4
        return _packet(protocol, IPv4Address(data[16:20]), data, start)
    if version == 6 and len(data) >= 40:
        protocol, start = _past_extensions(data)
        return _packet(protocol, IPv6Address(data[24:40]), data, start)
    return None


def _packet(protocol: int, address: Address, data: bytes, start: int | None) -> Packet:
    port = 0
    if start is not None and protocol in _PORTED and start + 4 <= len(data):
        port = int.from_bytes(data[start + 2 : start + 4], "big")
    return Packet(_PROTOCOLS.get(protocol, str(protocol)), address, port)


def _past_extensions(data: bytes) -> tuple[int, int | None]:
    protocol, start = data[6], 40
    while protocol in _EXTENSIONS and start + 8 <= len(data):
        if protocol == _FRAGMENT:
            if int.from_bytes(data[start + 2 : start + 4], "big") >> 3:
                return data[start], None
            protocol, start = data[start], start + 8
        else:
            protocol, start = data[start], start + (data[start + 1] + 1) * 8
    return protocol, start
