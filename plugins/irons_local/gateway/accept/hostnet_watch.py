"""The host's network, as every dial is judged by it: how it is at that moment, and the ports irons itself listens on.

Reading it takes longer than all else of a connection, so it is read again only when the kernel says, on a socket
that is asked before each dial, that an address, a link or a route has changed (rtnetlink(7)).
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import Any

from irons.files import write_whole
from irons_local.linux.routes import read_host_network
from irons_policy.hostnet import HostNetwork, Listener

_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE = 0x1, 0x10, 0x40, 0x100, 0x400
_GROUPS = _LINK | _IPV4_ADDRESS | _IPV4_ROUTE | _IPV6_ADDRESS | _IPV6_ROUTE
_MOST = 1000


class GroundWatch:
    """Knows this machine's network, in the namespace in which it is made.

    Args:
        kept: the file in which irons' own ports outlast this process: until a control plane speaks to the next
            one, no pin may open them either.
    """

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        self._listeners: frozenset[Listener] = frozenset()
        with contextlib.suppress(OSError, ValueError, RecursionError):
            self._listeners = _read(json.loads(kept.read_text(encoding="utf-8")))
        self._proxies: frozenset[Listener] = frozenset()
        self._proxy: tuple[str, int] | None = None
        self._pools: tuple[IPv4Network, ...] = ()
        self._host_network: HostNetwork | None = None
        self._changes = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        self._changes.bind((0, _GROUPS))
        # Asks whether there is anything to receive: an attempt that finds nothing costs an exception, seven times as much.
        self._news = select.poll()
        self._news.register(self._changes, select.POLLIN)

    def put(self, listeners: Any, *, keep: bool = True) -> None:
        """Take `[[address, port], …]` as what irons listens on; what is invalid is left out.

        Args:
            listeners: the addresses and ports.
            keep: write them to the file, which one worker does for all.

        Raises:
            OSError: they hold, but could not be kept.
        """
        before, self._listeners = self._listeners, _read(listeners)
        self._host_network = None
        if keep and (before != self._listeners or not self._kept.exists()):
            known = [[str(address), port] for address, port in self._listeners]
            write_whole(self._kept, json.dumps(known), parents=False)

    def close_proxy(self, proxies: frozenset[Listener], proxy: tuple[str, int] | None) -> None:
        """Take the addresses and ports of the upstream proxy, and its name, as closed to sandboxes."""
        if (proxies, proxy) != (self._proxies, self._proxy):
            self._proxies, self._proxy = proxies, proxy
            self._host_network = None

    def close_pools(self, pools: tuple[IPv4Network, ...]) -> None:
        """Take the blocks of addresses that stand for names in sandboxes as beneath the floor."""
        self._pools, self._host_network = pools, None

    def host_network(self) -> HostNetwork:
        """The host's network at this moment.

        Raises:
            OSError: the kernel cannot be asked; then nothing may be dialled.
        """
        if self._changed():
            self._host_network = None
        if self._host_network is None:
            self._host_network = read_host_network(self._listeners)._replace(
                proxies=self._proxies, proxy=self._proxy, pools=self._pools
            )
        return self._host_network

    def close(self) -> None:
        """Watch no more."""
        self._changes.close()

    def _changed(self) -> bool:
        """True where anything was reported since the last time, or may have been."""
        changed = False
        if not self._news.poll(0):
            return changed
        for _ in range(_MOST):
            try:
                self._changes.recv(65_536)
            except BlockingIOError:
                return changed
            except OSError:
                # There was more than the socket could hold (ENOBUFS), which is a change in any case.
                changed = True
                continue
            changed = True
        return changed


def _read(listeners: Any) -> frozenset[Listener]:
    known: set[Listener] = set()
    for entry in listeners if isinstance(listeners, list) else []:
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], int):
            with contextlib.suppress(ValueError):
                known.add((ip_address(str(entry[0])), entry[1]))
    return frozenset(known)
