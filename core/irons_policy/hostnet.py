"""This machine's network as the floor needs it: own addresses, on-link prefixes, listeners. Data only."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import NamedTuple

from irons_policy.addresses import Address, Network

Listener = tuple[Address, int]
"""An address and port that irons itself listens on; 0.0.0.0 and :: stand for each address of this machine."""


class HostNetwork(NamedTuple):
    """What the floor is computed from.

    Attributes:
        own: this machine's addresses.
        onlink: the prefixes whose hosts are reached without a gateway, in every routing table.
        listeners: where irons itself listens.
        own_networks: whole prefixes that the kernel takes as this machine's own, such as 127.0.0.0/8.
        proxies: the addresses and ports of the upstream proxy, which is for the gateway alone.
        proxy: the name and port of it, where it is not a literal address.
        pools: the blocks whose addresses stand for names in sandboxes.
    """

    own: frozenset[Address] = frozenset()
    onlink: tuple[Network, ...] = ()
    listeners: frozenset[Listener] = frozenset()
    own_networks: tuple[Network, ...] = ()
    proxies: frozenset[Listener] = frozenset()
    proxy: tuple[str, int] | None = None
    pools: tuple[IPv4Network, ...] = ()

    def is_own(self, address: Address) -> bool:
        """True when a connection to the address would end on this machine."""
        return address in self.own or any(address in network for network in self.own_networks)
