"""What a conversation wants that takes time: names are resolved and servers dialled, and it hears how that went."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from irons_local.gateway.attempt.answering import Answering
from irons_local.gateway.attempt.sides import Sides
from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.reach.dial import STAGGER, DialError, dial, race
from irons_local.gateway.reach.proxy import STAGGER as PROXY_STAGGER
from irons_local.gateway.reach.resolve import ResolveError
from irons_local.gateway.streams.stream import Wire
from irons_policy.addresses import Address

if TYPE_CHECKING:
    from irons_local.gateway.shared.cell import Cell
    from irons_local.gateway.shared.context import Context


class Lasting:
    """Carries it out for one connection.

    Args:
        context: what all connections share.
        cell: whose it is.
        sides: its sockets.
        answering: knows the way to its host.
    """

    __slots__ = ("_answering", "_cell", "_context", "_sides")

    def __init__(self, context: Context, cell: Cell, sides: Sides, answering: Answering) -> None:
        self._context = context
        self._cell = cell
        self._sides = sides
        self._answering = answering

    async def carry_out(
        self, action: do.Action, port: int, again: Callable[[Address], None]
    ) -> ev.Fact | None:
        """Do what takes time; it may have a time limit, so this runs in a task.

        Args:
            action: what is wanted.
            port: the port that the connection was opened to.
            again: called before each further address is dialled; what it raises ends the dial.
        """
        context = self._context
        if isinstance(action, do.Dial):
            return await self.dial(action, again)
        if isinstance(action, do.DialName):
            return await self._dial_name(action)
        if isinstance(action, do.Resolve):
            try:
                async with asyncio.timeout(action.within):
                    return ev.Resolved(await context.resolver.resolve(self._cell.name, action.host.text))
            except (ResolveError, TimeoutError) as error:
                return ev.Unresolved(str(error))
        if isinstance(action, do.Lookup):
            await context.proxy.settle(port)
            return self._answering.lookup(action)
        if isinstance(action, do.Stop):
            await self._sides.unsplice(action.side)
            return None
        raise TypeError(action)

    async def splice(self, action: do.Pass) -> None:
        """Pass on what a side says once the other one has had room for all before it."""
        await self._sides.drained(action.side.other)
        self._sides.splice(action.side)

    async def dial(self, action: do.Dial, again: Callable[[Address], None]) -> ev.Fact:
        """Connect to the first address that answers; `again` is as in `carry_out`."""
        route, addresses = self._answering.route, action.addresses
        how, stagger = (dial, STAGGER) if route is None else (route.dial, PROXY_STAGGER)

        def before(address: Address) -> None:
            # The first has its record.
            if address is not addresses[0]:
                again(address)

        loop, address = self._context.loop, addresses[0]
        try:
            if len(addresses) == 1:
                server = await how(loop, address, action.port)
            else:
                server, address = await race(loop, addresses, action.port, before, how, stagger)
        except DialError as error:
            return ev.Unreached(str(error))
        return self._reached(server, address)

    async def _dial_name(self, action: do.DialName) -> ev.Fact:
        if self._answering.route is None:
            raise AssertionError
        try:
            server = await self._answering.route.dial_name(action.port)
        except DialError as error:
            return ev.Unreached(str(error))
        return self._reached(server, None)

    def _reached(self, server: Wire, address: Address | None) -> ev.Reached:
        self._sides.reached(server)
        if not self._cell.roomy:
            client = self._sides.client
            client.narrow_later(server)
            server.narrow_later(client)
        self._answering.settle()
        route = self._answering.route
        return ev.Reached(address, None if route is None else route.forwarding(server))
