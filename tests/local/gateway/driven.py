"""The machine over sockets: a driver with the order and the guarantees of the live `Attempt`, for tests that need real ones.

It stands where `Attempt` stands, with the same arguments. `irons.internal` is none of its business.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.local.gateway.talks import may_be_named

from irons_local.gateway.accept.cell import Cell
from irons_local.gateway.attempt.account import Account, Ending
from irons_local.gateway.attempt.context import Context
from irons_local.gateway.budget import descriptors
from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.conversation.events import Side
from irons_local.gateway.conversation.life import Conversation, Means
from irons_local.gateway.decide import refusals
from irons_local.gateway.decide.verdicts import (
    UNKNOWN,
    Judged,
    RefusedError,
    check_named,
    judge,
    judge_addresses,
    refuse_for,
)
from irons_local.gateway.reach.dial import STAGGER, DialError, dial, race
from irons_local.gateway.reach.resolve import ResolveError
from irons_local.gateway.record.journal import JournalError
from irons_local.gateway.streams.splice import Flow, Turns
from irons_local.gateway.streams.stream import Wire
from irons_local.log.context import CONNECTION
from irons_policy.addresses import Address
from irons_policy.causes import Cause, Outcome
from irons_policy.decide import Live, decide
from irons_policy.hostnames import Host

CROWDED = "this sandbox has all the connections that the machine's limit of open files leaves it"
FIRST = 16_384
QUIET, QUIET_MOST = 0.2, 5.0


class _OverError(Exception):
    """The machine wants the connection closed in the middle of a race."""


class Driven:
    """One accepted connection, driven by the machine.

    Args:
        context: what all connections share.
        cell: whose it is.
        client: the accepted socket.
        where: the address the program connected to.
        port: the port it connected to.
        turns: of its cell.
    """

    def __init__(
        self, context: Context, cell: Cell, client: Wire, where: Address, port: int, turns: Turns
    ) -> None:
        self._context = context
        self._cell = cell
        self._port = port
        self._turns = turns
        self._where = Host(str(where), where)
        self._opened_to = cell.names.name(where)
        self._synthetic = cell.names.synthetic(where)
        self._account = Account(context, cell, port)
        self._policy = cell.policy
        self._client = client
        self._server: Wire | None = None
        self._route: Any = None
        self._out = self._in = 0
        self._flows: dict[Side, Flow] = {}
        self._left: deque[do.Action] = deque()
        self._came: deque[ev.Event] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._files = descriptors.ACCEPTED
        self._closing: do.Close | None = None
        self._task: asyncio.Task[None] | None = None
        self._machine: Conversation | None = None
        self._handlers: dict[type, Callable[[Any], ev.Event | None]] = {
            do.Judge: self._judge, do.Speaks: self._speaks, do.Lookup: self._lookup, do.Reach: self._reach,
            do.Choose: self._choose, do.Mention: self._mention, do.Refuse: self._refuse, do.Open: _nothing,
            do.Hold: _nothing, do.Pass: self._pass, do.Finish: self._finish_side,
        }  # fmt: skip
        self.live: Live | None = None
        self.inside = False
        self.mismatched = False

    def start(self) -> None:
        """Open it, and begin."""
        name = self._opened_to
        try:
            self._account.accepted(self._where if name is None else Host(name))
        except JournalError as error:
            self._context.complain(str(error))
            self._context.folder.unwritten(self._cell.name)
            self._client.reset()
            return
        self._cell.live.add(self)
        self._cell.undecided += 1
        self._task = self._context.loop.create_task(self._run())
        self._task.add_done_callback(self._end)

    def cut(self, ending: str, *, cause: Cause | None) -> None:
        """End it now: both sides see a reset."""
        if self._machine is not None:
            for action in self._machine.receive(ev.Cut(ending, cause)):
                if isinstance(action, do.Close):
                    self._closing = action
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until it has ended."""
        if self._task is not None:
            await asyncio.wait({self._task})

    # The life of it.

    async def _run(self) -> None:
        CONNECTION.set(self._account)
        policy, context, cell = self._policy, self._context, self._cell
        name = Host(self._opened_to) if self._synthetic and self._opened_to is not None else None
        allowed = policy is not None and decide(policy, name or self._where, self._port).allowed
        mode = None if policy is None else policy.mode
        accepted = ev.Accepted(self._where, self._port, name, self._synthetic, allowed, mode, cell.title)
        means = Means(context.tls, context.hellos, cell.opening, cell.http2)
        machine = self._machine = Conversation(means, accepted)
        self._left.extend(machine.begin())
        await self._carry_out()
        while self._closing is None:
            event = await self._next()
            if cell.policy is not self._policy:
                self._policy = cell.policy
                self._left.extend(
                    machine.receive(ev.PolicyChanged(None if self._policy is None else self._policy.mode))
                )
            self._left.extend(machine.receive(event))
            await self._carry_out()
        await self._close(self._closing)

    async def _carry_out(self) -> None:
        """Do what the machine wants, in order, and give it the answers."""
        left, handlers, machine = self._left, self._handlers, self._machine
        assert machine is not None
        while left:
            action = left.popleft()
            try:
                if isinstance(action, do.Forward):
                    await self._forward(action)
                    continue
                if isinstance(action, do.Close):
                    self._closing = action
                    left.clear()
                    return
                handler = handlers.get(type(action))
                answer = handler(action) if handler is not None else await self._slow(action)
            except JournalError as error:
                self._context.complain(str(error))
                answer = ev.RecordFailed()
                left.clear()
            except OSError as error:
                answer = ev.Broken(f"broken: {(error.strerror or str(error)).lower()}")
                left.clear()
            if answer is not None:
                left.extendleft(reversed(machine.receive(answer)))

    async def _slow(self, action: Any) -> ev.Event | None:
        match action:
            case do.Stop():
                flow = self._flows.pop(Side.SERVER, None)
                if flow is not None:
                    await flow.pause()
                    self._in += flow.moved
                return None
            case do.Resolve(host, within):
                try:
                    async with asyncio.timeout(within):
                        return ev.Resolved(await self._context.resolver.resolve(self._cell.name, host.text))
                except (ResolveError, TimeoutError) as error:
                    return ev.Unresolved(str(error))
            case do.Dial(addresses, port):
                return await self._dial(addresses, port)
            case do.DialName(_, port):
                return await self._dial_name(port)
        raise AssertionError(action)

    async def _dial(self, addresses: tuple[Address, ...], port: int) -> ev.Event | None:
        machine = self._machine
        assert machine is not None
        route = self._route
        how, stagger = (dial, STAGGER) if route is None else (route.dial, STAGGER)

        def before(address: Address) -> None:
            if not self._at_once(ev.Dialling(address)):
                raise _OverError

        try:
            server, address = await race(self._context.loop, addresses, port, before, how, stagger)
        except DialError as error:
            return ev.Unreached(str(error))
        except _OverError:
            return None
        self._server = server
        return self._reached(server, address)

    async def _dial_name(self, port: int) -> ev.Event:
        assert self._route is not None
        try:
            server = await self._route.dial_name(port)
        except DialError as error:
            return ev.Unreached(str(error))
        self._server = server
        return self._reached(server, None)

    def _reached(self, server: Wire, address: Address | None) -> ev.Event:
        if not self._cell.roomy:
            server.narrow()
        self._settle()
        return ev.Reached(address, None if self._route is None else self._route.forwarding(server))

    def _at_once(self, event: ev.Event) -> bool:
        """Tell the machine what can only lead to questions and records; False where it wants to end."""
        machine = self._machine
        assert machine is not None
        todo = deque(machine.receive(event))
        while todo:
            action = todo.popleft()
            if type(action) is do.Refuse or type(action) is do.Close:
                self._left.clear()
                self._left.append(action)
                self._left.extend(todo)
                return False
            try:
                answer = self._handlers[type(action)](action)
            except JournalError as error:
                self._context.complain(str(error))
                answer = ev.RecordFailed()
                todo.clear()
            if answer is not None:
                todo.extendleft(reversed(machine.receive(answer)))
        return True

    async def _next(self) -> ev.Event:
        """The next thing that happens, of what the machine has use for."""
        machine, loop = self._machine, self._context.loop
        assert machine is not None
        pace = self._client.pace
        while True:
            if pace.over:
                await pace.rest()
            if self._came:
                return self._came.popleft()
            wires = [(side, self._wire(side)) for side in machine.wants]
            for side, wire in wires:
                try:
                    data = wire.take(FIRST if self._server is None else 65_536)
                except OSError as error:
                    return ev.Broken(f"broken: {(error.strerror or str(error)).lower()}")
                if data is not None:
                    return ev.Bytes(side, data) if data else ev.End(side)
            wake = self._wake = loop.create_future()
            ready = partial(_wake, wake)
            for _, wire in wires:
                wire.watch.read(ready)
            hold = machine.holding
            late = None
            if hold is not None and hold.seconds is not None:
                late = loop.deadlines.after(hold.seconds, partial(self._late, hold.number))
            try:
                await wake
            finally:
                self._wake = None
                for _, wire in wires:
                    wire.watch.unread()
                if late is not None:
                    late.cancel()

    def _late(self, number: int) -> None:
        self._happened(ev.DeadlinePassed(number))

    def _happened(self, event: ev.Event) -> None:
        self._came.append(event)
        if self._wake is not None:
            _wake(self._wake)

    def _wire(self, side: Side) -> Wire:
        if side is Side.CLIENT:
            return self._client
        assert self._server is not None
        return self._server

    async def _forward(self, action: do.Forward) -> None:
        await self._wire(action.to).send(action.data)
        if action.to is Side.SERVER:
            self._out += len(action.data)
        elif self._server is not None and not action.own:
            self._in += len(action.data)

    # What is done at once.

    def _speaks(self, action: do.Speaks) -> None:
        self._account.protocol = action.protocol

    def _lookup(self, action: do.Lookup) -> ev.Event:
        host = action.host
        self._route = self._context.proxy.route(host)
        known = None if self._policy is None else self._policy.addresses_of(host)
        if known is None and self._route is not None and self._route.by_name:
            return ev.ByProxy()
        if known is None:
            known = self._context.resolver.known(self._cell.name, host.text)
        return ev.Known(known)

    def _reach(self, action: do.Reach) -> ev.Event | None:
        if not self._context.files.take(self._cell.files, descriptors.DIALLED):
            return ev.Denied(
                refuse_for(action.host, self._port, self._account.protocol, self._policy, CROWDED, Cause.CAP)
            )
        self._files += descriptors.DIALLED
        self._account.reach(action.host)
        self.live = Live(action.host, self._port)
        return None

    def _choose(self, action: do.Choose) -> None:
        self._account.verdict(action.judged, action.address)
        if action.address is not None:
            self.live = Live(action.judged.host, self._port, action.address)

    def _mention(self, action: do.Mention) -> None:
        self.mismatched = True
        self._account.others(action.judged)

    def _refuse(self, action: do.Refuse) -> None:
        self._account.refused(action.error, dialled=action.reached)

    def _judge(self, action: do.Judge) -> ev.Event | None:
        question, policy = action.question, self._cell.policy
        if isinstance(question, do.Standing):
            return None
        port, protocol = question.port, question.protocol
        try:
            if policy is None:
                about = question.host if isinstance(question, do.Names) else question.judged.host
                raise refuse_for(about or self._where, port, protocol, None, UNKNOWN, Cause.NO_POLICY)
            if isinstance(question, do.Addresses):
                ground = self._context.ground()
                return ev.Passing(
                    judge_addresses(policy, question.judged, port, protocol, question.addresses, ground)
                )
            if isinstance(question, do.ByName):
                may_be_named(policy, question)
                return ev.Verdict(question.judged)
            host, claimed = question.host, question.claimed
            if question.reached and host is not None:
                judged = check_named(policy, host, claimed, port, protocol, proxied=question.proxied)
            elif question.early and host is None:
                judged = Judged(question.where, decide(policy, question.where, port))
            else:
                judged = judge(
                    policy, host, question.where, claimed, port, protocol, proxied=question.proxied
                )
        except RefusedError as error:
            return ev.Denied(error)
        return ev.Verdict(judged)

    # What goes by by itself.

    def _pass(self, action: do.Pass) -> None:
        source, sink = self._wire(action.side), self._wire(action.side.other)
        flow = Flow(
            self._context.loop,
            source,
            sink,
            self._context.pipes,
            self._turns,
            partial(self._flowed, action.side),
        )
        self._flows[action.side] = flow
        flow.start()

    def _flowed(self, side: Side, flow: Flow, error: OSError | None) -> None:
        if error is None:
            self._happened(ev.End(side))
            return
        by_client = flow.reading is (side is Side.CLIENT)
        self._happened(ev.Broken("reset by the client" if by_client else "reset by the server"))

    def _finish_side(self, action: do.Finish) -> None:
        flow = self._flows.get(action.to.other)
        if flow is None or not flow.done:
            self._wire(action.to).finish()

    # How it ends.

    async def _close(self, close: do.Close) -> None:
        self.live = None if close.outcome is Outcome.REFUSED else self.live
        if close.answers:
            await self._last_answers()
        for flow in self._flows.values():
            if not flow.done:
                flow.stop()
        if not close.reset:
            return
        if self._server is not None:
            self._server.reset()
        self._settle()
        await refusals.say(self._client, close.words)

    async def _last_answers(self) -> None:
        loop, seen = self._context.loop, -1
        deadline = loop.time() + QUIET_MOST
        while loop.time() < deadline and self._moved[1] != seen and not self._came:
            flow = self._flows.get(Side.SERVER)
            if flow is None or flow.done:
                return
            seen = self._moved[1]
            wake = self._wake = loop.create_future()
            late = loop.deadlines.after(QUIET, partial(_wake, wake))
            try:
                await wake
            finally:
                self._wake = None
                late.cancel()

    @property
    def _moved(self) -> tuple[int, int]:
        forth, back = self._flows.get(Side.CLIENT), self._flows.get(Side.SERVER)
        return self._out + (forth.moved if forth else 0), self._in + (back.moved if back else 0)

    def _settle(self) -> None:
        if self._cell.undecided:
            self._cell.undecided -= 1
            self._cell.freed()

    def _end(self, task: asyncio.Task[None]) -> None:
        """Leave nothing behind, whatever happened."""
        if not task.cancelled() and (failed := task.exception()) is not None:
            self._context.complain(f"a connection failed: {failed!r}")
            if self._machine is not None:
                self._machine.receive(ev.Broken("failed"))
        if task.cancelled() and self._machine is not None and not self._machine.over:
            self.cut("interrupted", cause=None)
        for flow in self._flows.values():
            if not flow.done:
                flow.stop()
        self._client.close()
        if self._server is not None:
            self._server.close()
        self._cell.live.discard(self)
        self._context.files.give(self._cell.files, self._files)
        # They refer back to this.
        self._handlers.clear()
        close = self._closing
        if close is None:
            host = self._where if self._opened_to is None else Host(self._opened_to)
            close = do.Close(host, None, "failed", Outcome.ABANDONED)
        moved: Any = None if close.outcome is not Outcome.REACHED else _Moved(*self._moved)
        self._account.close(close.host, close.judged, moved, Ending(close.text, close.outcome, close.cause))


class _Moved:
    """How many bytes went each way."""

    def __init__(self, out: int, back: int) -> None:
        self.bytes_out, self.bytes_in = out, back


def _nothing(_: do.Action) -> None:
    """What is only said."""


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
