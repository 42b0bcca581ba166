"""What all connections of one gateway share."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from irons_local.gateway.budget.descriptors import Files
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.reach.nameservers import NameServers
from irons_local.gateway.reach.proxy import Proxy
from irons_local.gateway.reach.resolve import Resolver
from irons_local.gateway.record.folding import Folder
from irons_local.gateway.record.journal import Journal
from irons_local.gateway.streams.splice import Pipes
from irons_local.gateway.tls.remembered import Hellos
from irons_policy.hostnet import HostNetwork


@dataclass(frozen=True, slots=True)
class Context:
    """Shared by the connections of all cells.

    Attributes:
        loop: the loop that runs them.
        journal: the write-ahead audit log.
        folder: where refusals go.
        resolver: asks the host.
        nameservers: the host's, for records that the resolver does not give.
        proxy: the upstream proxy, where there is one.
        pipes: what relays move bytes through.
        files: the descriptors there are.
        tls: reads ClientHellos.
        hellos: remembers ClientHellos.
        host_network: the live facts of this machine's network, as they are at this moment.
        crowded: tells whether more than one cell is at work.
        complain: tells whoever runs the gateway what went wrong; never anything a sandbox chose.
    """

    loop: FairLoop
    journal: Journal
    folder: Folder
    resolver: Resolver
    nameservers: NameServers
    proxy: Proxy
    pipes: Pipes
    files: Files
    tls: ssl.SSLContext
    hellos: Hellos
    host_network: Callable[[], HostNetwork]
    crowded: Callable[[], bool]
    complain: Callable[[str], None]
