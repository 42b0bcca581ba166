"""The upstream proxy, where this machine has one: what it is for, and how an address is reached through it.

The gateway's own connection to the proxy is exempt from the floor; the proxy's address is not. What a sandbox asks for
there is refused like a port of irons itself. The proxy is asked for addresses of the internet alone: what only a pin
opens is of this machine's network, and would be something else seen from the proxy's.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from irons.files import write_whole
from irons_local.config.upstream import Upstream
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.http1.absolute import Forwarding
from irons_local.gateway.reach.dial import NO_ROUTE, DialError, dial, race
from irons_local.gateway.reach.resolve import ResolveError, Resolver
from irons_local.gateway.reach.tunnel import ProxyRefusedError, authority, connect
from irons_local.gateway.streams.stream import Wire
from irons_policy import floor
from irons_policy.addresses import Address
from irons_policy.hostnames import Host
from irons_policy.hostnet import HostNetwork
from irons_policy.patterns import HTTP

STAGGER = 2.0
"""Seconds that one address has before the next is asked for as well; the proxy's own dial is part of them."""
REFUSES_CONNECT = frozenset({400, 403, 405, 501})
"""Answers of a proxy that lets no one CONNECT to port 80, where it takes requests in absolute form."""
REMEMBERED = 300.0
"""Seconds for which that is known."""
OWN_ZONES = frozenset({"localhost", "local", "localdomain", "internal", "lan", "home", "corp", "arpa"})
"""Last labels that name something of whoever resolves them (RFC 6761, 6762, 8375, and what ICANN keeps back)."""
_NOBODY = ""
_MOST_SEEN = 256


class Proxy:
    """The upstream proxy; without a setting everything is dialled directly.

    Args:
        loop: the running loop.
        kept: the file in which the setting outlasts this process, readable by it alone.
        resolver: asks the host for the proxy's name.
        close: called with the addresses and ports at which sandboxes may not reach the proxy, and its name.
        host_network: the live facts.
    """

    def __init__(
        self,
        loop: FairLoop,
        kept: Path,
        resolver: Resolver,
        close: Callable[[frozenset[tuple[Address, int]], tuple[str, int] | None], None],
        host_network: Callable[[], HostNetwork],
    ) -> None:
        self._loop = loop
        self._kept = kept
        self._resolver = resolver
        self._close = close
        self._host_network = host_network
        self._seen: dict[tuple[Address, int], None] = {}
        self._forwards_until = 0.0
        self.setting: Upstream | None = None
        with contextlib.suppress(OSError, ValueError, RecursionError):
            self.setting = Upstream.from_json(json.loads(kept.read_text(encoding="utf-8")))
        self._note(())

    def put(self, given: Any, *, keep: bool = True) -> None:
        """Take a setting in its JSON form.

        Args:
            given: the setting.
            keep: write it to the file, which one worker does for all.

        Raises:
            UpstreamError: it is malformed; the one before stays.
            OSError: it holds, but could not be kept.
        """
        setting = Upstream.from_json(given)
        changed = setting != self.setting
        if changed:
            self.setting = setting
            self._forwards_until = 0.0
            self._note(())
        if keep and (changed or (setting is None) == self._kept.exists()):
            self._write(setting)

    def _write(self, setting: Upstream | None) -> None:
        if setting is None:
            self._kept.unlink(missing_ok=True)
            return
        write_whole(self._kept, json.dumps(setting.to_json()), parents=False)

    def route(self, host: Host) -> Route | None:
        """The way to a host through the proxy; None where it is dialled directly."""
        setting = self.setting
        if setting is None or setting.is_direct(host):
            return None
        return Route(self, setting, host)

    async def settle(self, port: int) -> None:
        """Learn the proxy's present addresses before something is dialled at its port, so that they are closed."""
        setting = self.setting
        if setting is not None and setting.port == port:
            with contextlib.suppress(DialError):
                await self.addresses(setting)

    async def addresses(self, setting: Upstream) -> tuple[Address, ...]:
        """Where the proxy is.

        Raises:
            DialError: its name was not resolved.
        """
        if setting.host.address is not None:
            return (setting.host.address,)
        try:
            found = await self._resolver.resolve(_NOBODY, setting.host.text)
        except ResolveError as error:
            raise DialError(f"the upstream proxy's name was not resolved: {error}") from None
        self._note(found)
        return found

    async def open(self, setting: Upstream) -> tuple[Wire, Address]:
        """Connect to the proxy itself.

        Raises:
            DialError: it was not reached.
        """
        found = await self.addresses(setting)
        try:
            return await race(self._loop, found, setting.port, lambda _: None)
        except DialError as error:
            why = str(error).removesuffix(f"; {NO_ROUTE}")
            raise DialError(f"the upstream proxy was not reached: {why}") from None

    def is_beneath(self, address: Address, port: int) -> bool:
        """True for an address that only a pin opens."""
        return floor.refusal(address, port, (), self._host_network()) is not None

    @property
    def forwards(self) -> bool:
        """True where it is known that the proxy refuses to CONNECT to port 80."""
        return self._forwards_until > self._loop.time()

    def refuses_connect(self) -> None:
        """Take note that it does."""
        self._forwards_until = self._loop.time() + REMEMBERED

    def _note(self, found: tuple[Address, ...]) -> None:
        """Close the proxy's addresses to sandboxes; one that it had stays closed."""
        setting = self.setting
        if setting is None:
            self._seen.clear()
            self._close(frozenset(), None)
            return
        literal = () if setting.host.address is None else (setting.host.address,)
        fresh = dict.fromkeys((address, setting.port) for address in (*found, *literal))
        before = len(self._seen)
        self._seen.update(fresh)
        while len(self._seen) > _MOST_SEEN:
            self._seen.pop(next(iter(self._seen)))
        if len(self._seen) != before or not found:
            named = None if literal else (setting.host.text, setting.port)
            self._close(frozenset(self._seen), named)


class Route:
    """How a host is reached where there is an upstream proxy.

    Args:
        proxy: the proxy.
        setting: as it was when the way began.
        host: the host that the connection is for.
    """

    def __init__(self, proxy: Proxy, setting: Upstream, host: Host) -> None:
        self._proxy = proxy
        self._setting = setting
        self._host = host
        self._forwarding: dict[Wire, Forwarding] = {}

    def forwarding(self, server: Wire) -> Forwarding | None:
        """How requests go over a connection that was made this way; None for a connection to the server itself."""
        return self._forwarding.get(server)

    @property
    def by_name(self) -> bool:
        """True where the proxy resolves the host's name.

        A name of one label, or of a zone that is only someone's own, means something else where the proxy is.
        """
        labels = self._host.text.split(".")
        return (
            self._setting.resolves
            and self._host.address is None
            and len(labels) > 1
            and labels[-1] not in OWN_ZONES
        )

    def proxied(self, address: Address, port: int) -> bool:
        """True for an address that the proxy is asked for."""
        return not (self._setting.is_direct(self._host, address) or self._proxy.is_beneath(address, port))

    async def dial(self, loop: FairLoop, address: Address, port: int) -> Wire:
        """Connect to a checked address: through the proxy, or directly where the setting or the floor requires it.

        Raises:
            DialError: it was not reached.
        """
        if not self.proxied(address, port):
            return await dial(loop, address, port)
        return await self._through(authority(Host(str(address), address), port), port)

    async def dial_name(self, port: int) -> Wire:
        """Have the proxy resolve the host and connect to it.

        Raises:
            DialError: it was not reached.
        """
        return await self._through(authority(self._host, port), port)

    async def _through(self, target: bytes, port: int) -> Wire:
        if port != HTTP or not self._proxy.forwards:
            try:
                return await self._tunnel(target)
            except ProxyRefusedError as error:
                if port != HTTP or error.status not in REFUSES_CONNECT:
                    raise
                self._proxy.refuses_connect()
        wire, _ = await self._proxy.open(self._setting)
        self._forwarding[wire] = Forwarding(target.removesuffix(b":%d" % HTTP), self._setting.authorization)
        return wire

    async def _tunnel(self, target: bytes) -> Wire:
        wire, _ = await self._proxy.open(self._setting)
        try:
            await connect(wire, target, self._setting.authorization)
        except OSError as error:
            wire.close()
            raise DialError(
                f"the upstream proxy closed the connection: {(error.strerror or str(error)).lower()}"
            ) from None
        except BaseException:
            wire.close()
            raise
        return wire
