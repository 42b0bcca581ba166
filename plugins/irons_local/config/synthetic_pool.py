"""The setting `[local] synthetic_pool`: the block of IPv4 addresses from which those that stand for names are taken."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network

POOL = IPv4Network("198.18.0.0/15")
"""The usual block, of RFC 2544; docs/decisions says why."""

_WIDEST, _NARROWEST = 8, 16
_UNFIT = tuple(
    IPv4Network(text)
    for text in ("0.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)


class PoolError(ValueError):
    """A block that cannot be used; the message says why."""


def read_pool(text: str) -> IPv4Network:
    """Read a block of addresses.

    Raises:
        PoolError: it is not one, is too small for the names of a sandbox, or has a use in every sandbox.
    """
    try:
        network = ip_network(text)
    except ValueError:
        raise PoolError(f"{text[:50]!r} is not a block of addresses such as {POOL}") from None
    if not isinstance(network, IPv4Network) or not _WIDEST <= network.prefixlen <= _NARROWEST:
        raise PoolError(f"{network} is not an IPv4 block of a prefix of {_WIDEST} to {_NARROWEST} bits")
    if any(network.overlaps(unfit) for unfit in _UNFIT):
        raise PoolError(f"{network} has addresses that mean something else in a sandbox")
    return network
