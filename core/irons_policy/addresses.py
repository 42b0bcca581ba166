"""What an address is and what it carries: loose IPv4 spellings, and the IPv4 addresses that IPv6 forms embed."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+")
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:0x[0-9a-f]*|[0-9]+)$")
_LOW32 = 0xFFFF_FFFF
_MAPPED = IPv6Network("::ffff:0:0/96")
_MAPPED_BITS = 96


def ends_in_number(name: str) -> bool:
    """True when the last label of a lower-case name is decimal digits or begins a hexadecimal number.

    Resolvers take such a name for an IPv4 address (RFC 3986 section 7.4 warns of it, and the WHATWG URL
    standard calls it "ends in a number"), so it can never be judged as a name.
    """
    return _ENDS_IN_NUMBER.search(name) is not None


def loose_ipv4(text: str) -> IPv4Address | None:
    """Read an IPv4 address in any spelling that ``inet_aton(3)`` takes; None when it is none.

    One to four dot-separated numbers, each decimal, octal (leading 0) or hexadecimal (leading 0x); the last
    one fills all the octets that are left, so ``127.1``, ``0x7f000001`` and ``2130706433`` are one address.

    Args:
        text: lower-case ASCII, without a trailing dot.
    """
    parts = text.split(".")
    if len(parts) > 4:
        return None
    numbers: list[int] = []
    for part in parts:
        if not _NUMBER.fullmatch(part):
            return None
        if part.startswith("0x"):
            numbers.append(int(part, 16))
        elif part.startswith("0"):
            if not set(part) <= set("01234567"):
                return None
            numbers.append(int(part, 8))
        else:
            numbers.append(int(part))
    *octets, rest = numbers
    room = 4 - len(octets)
    if any(octet > 255 for octet in octets) or rest >= 256**room:
        return None
    value = rest
    for place, octet in enumerate(octets):
        value |= octet << (8 * (3 - place))
    return IPv4Address(value)


def unmapped(address: Address) -> Address:
    """The address itself, but the IPv4 address for an IPv4-mapped one (RFC 4291 section 2.5.5.2).

    The kernel connects to ``::ffff:a.b.c.d`` by IPv4, so the two are one address in two spellings.
    """
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def unmapped_network(network: Network) -> Network:
    """The network itself, but the IPv4 network for one that lies inside ``::ffff:0:0/96``."""
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        low = int(network.network_address) & _LOW32
        return IPv4Network((low, network.prefixlen - _MAPPED_BITS))
    return network


def network_of(address: Address) -> Network:
    """The network that holds this one address (a /32 or a /128)."""
    return IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address)


def is_single(network: Network) -> bool:
    """True when the network is one address."""
    return network.prefixlen == network.max_prefixlen


def embedded(address: Address) -> tuple[tuple[str, IPv4Address], ...]:
    """Every IPv4 address that an IPv6 address carries, each with the name of the form; empty for IPv4.

    Mapped and compatible (RFC 4291), SIIT's IPv4-translated (RFC 2765), 6to4 (RFC 3056), Teredo's server and
    client (RFC 4380), NAT64's well-known prefix (RFC 6052) and its local-use prefix (RFC 8215, in every place
    RFC 6052 lets an operator put the address), and ISATAP (RFC 5214) in any network.
    """
    if isinstance(address, IPv4Address):
        return ()
    bits = int(address)
    low = IPv4Address(bits & _LOW32)
    found: list[tuple[str, IPv4Address]] = []
    top96 = bits >> 32
    if top96 == 0 and bits > 1:
        found.append(("IPv4-compatible", low))
    elif top96 == 0xFFFF:
        found.append(("IPv4-mapped", low))
    elif top96 == 0xFFFF_0000:
        found.append(("SIIT", low))
    elif top96 == 0x0064_FF9B << 64:
        found.append(("NAT64", low))
    elif bits >> 80 == 0x0064_FF9B_0001:
        found.extend(("NAT64", inner) for inner in _local_nat64(bits))
    elif bits >> 112 == 0x2002:
        found.append(("6to4", IPv4Address(bits >> 80 & _LOW32)))
    elif bits >> 96 == 0x2001_0000:
        found.append(("Teredo", IPv4Address(bits >> 64 & _LOW32)))
        found.append(("Teredo", IPv4Address(~bits & _LOW32)))
    if bits >> 32 & _LOW32 in {0x0000_5EFE, 0x0200_5EFE}:
        found.append(("ISATAP", low))
    return tuple(found)


def _local_nat64(bits: int) -> list[IPv4Address]:
    """The addresses that ``64:ff9b:1::/48`` may hold, by RFC 6052 section 2.2 with prefixes of 48, 56, 64, 96 bits.

    Which of them its operator chose cannot be seen, so each counts. What reads as 0.0.0.0 is padding of
    another form, not an address.
    """
    high, tail = bits >> 64, bits & ((1 << 64) - 1)
    values = (
        (high & 0xFFFF) << 16 | tail >> 40 & 0xFFFF,
        (high & 0xFF) << 24 | tail >> 32 & 0xFF_FFFF,
        tail >> 24 & _LOW32,
        bits & _LOW32,
    )
    return [IPv4Address(value) for value in dict.fromkeys(values) if value]
