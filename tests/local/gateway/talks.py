"""One conversation through the machine without I/O and through the live `Attempt`: what each lets on, and what each records.

A talk is a list of turns. The machine's driver here asks the real rules and writes by the real `Account`, into a log that is a
list. The live side runs over loopback sockets, with a route that hands it the other end instead of a dial.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from tests.local.gateway.stand import policy as policy_json

from irons_local.gateway.accept.cell import Caps, Cell
from irons_local.gateway.attempt.account import Account, Ending
from irons_local.gateway.attempt.attempt import Attempt
from irons_local.gateway.attempt.context import Context
from irons_local.gateway.budget.descriptors import Files
from irons_local.gateway.budget.undecided import Budget
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.conversation.actions import Waits
from irons_local.gateway.conversation.events import Side
from irons_local.gateway.conversation.life import Conversation, Means
from irons_local.gateway.decide.verdicts import (
    UNKNOWN,
    Judged,
    RefusedError,
    check_named,
    judge,
    judge_addresses,
    refuse_for,
)
from irons_local.gateway.http1.absolute import Forwarding
from irons_local.gateway.http2.budget import Budget as FrameBudget
from irons_local.gateway.reach.dial import DialError
from irons_local.gateway.reach.resolve import ResolveError
from irons_local.gateway.record.journal import JournalError
from irons_local.gateway.record.refusal import Refusal
from irons_local.gateway.service import CUT
from irons_local.gateway.streams.splice import Pipes, Turns
from irons_local.gateway.streams.stream import Wire
from irons_local.gateway.tls.client_hello import context
from irons_local.gateway.tls.remembered import Hellos
from irons_policy.addresses import Address
from irons_policy.causes import Cause
from irons_policy.causes import Outcome as Became
from irons_policy.decide import Live, decide, decide_proxy, forbidden
from irons_policy.hostnames import Host
from irons_policy.hostnet import HostNetwork
from irons_policy.policy import Policy

TLS = context()
SANDBOX = "box"
CELL = "sb_00000000000000aa"
LEADS = ip_address("203.0.113.7")
"""Where every name leads."""
LITERAL = "203.0.113.9"


class Turn(NamedTuple):
    """One side says something; nothing is its end."""

    side: Side
    data: bytes = b""


def client(data: bytes = b"") -> Turn:
    """The client says this, or ends."""
    return Turn(Side.CLIENT, data)


def server(data: bytes = b"") -> Turn:
    """The server says this, or ends."""
    return Turn(Side.SERVER, data)


class Change(NamedTuple):
    """The sandbox gets another policy."""

    rules: dict[str, Any]


class Way(NamedTuple):
    """How a server is reached.

    Attributes:
        by_name: the upstream proxy resolves its name.
        forwards: the proxy takes requests in absolute form.
        resolves: the host resolves its name.
        answers: it can be connected to.
    """

    by_name: bool = False
    forwards: bool = False
    resolves: bool = True
    answers: bool = True

    @property
    def forwarding(self) -> Forwarding | None:
        """How requests go over a connection."""
        return FORWARDING if self.forwards else None


FORWARDING = Forwarding(b"203.0.113.7", b"Basic eA==")
DIRECTLY = Way()
UNRESOLVED, UNREACHED = "no such name", "no answer in time"


ROOM = 1000
"""More records than any conversation has."""


class Talk(NamedTuple):
    """A conversation as a list.

    Attributes:
        turns: in order; both sides end after them.
        name: what it is opened to; None for the literal address.
        port: the port it is opened to.
        rules: of the sandbox; None for no policy.
        room: how many records the log has room for.
        way: to its server.
    """

    turns: tuple[Turn | Change, ...]
    name: str | None = "web.test"
    port: int = 80
    rules: dict[str, Any] | None = None
    room: int = ROOM
    way: Way = DIRECTLY


class Outcome(NamedTuple):
    """What became of a talk.

    Attributes:
        out: what the server heard.
        back: what the client heard.
        records: what was recorded, in order.
        steps: how much each side had heard after each turn.
        ends: the sides that had to end after the turns before it was over.
    """

    out: bytes
    back: bytes
    records: list[tuple[str, dict[str, Any]]]
    steps: list[tuple[int, int]]
    ends: list[Side]

    @property
    def verdict(self) -> tuple[Any, ...]:
        """Whom it was let through to and for whom it was refused, in no order, and how it ended."""
        told = {
            (each["host"], each["verdict"], each["cause"])
            for kind, each in self.records
            if kind in {"verdict", "event", "refused"} or (kind == "close" and "verdict" in each)
        }
        ended = [(each["outcome"], each.get("cause")) for kind, each in self.records if kind == "close"]
        return told, ended


def same(talk: Talk, old: Outcome, new: Outcome) -> bool:
    """True where both let the same bytes on and wrote the same records.

    Where the log was full, the reset that ends a connection may overtake what was let go on in the same step.
    """
    if talk.room == ROOM:
        return (old.out, old.back, old.records) == (new.out, new.back, new.records)
    prefix = new.out.startswith(old.out) and new.back.startswith(old.back)
    return prefix and old.records == new.records


def rules(
    mode: str = "deny", allow: Sequence[str] = ("web.test",), deny: Sequence[str] = ()
) -> dict[str, Any]:
    """A policy."""
    return policy_json(mode, allow, deny)


class Log:
    """An audit log that is a list: the journal and the folder in one.

    Args:
        room: how many records it takes. Like the real ones, it raises for some of those it has no room for, and counts the others.
    """

    def __init__(self, room: int) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []
        self._room = room

    def open(self, _: str, **fields: Any) -> Any:
        """The opening record."""
        self._put("open", fields)
        return SimpleNamespace(
            name="", open=lambda **more: self._put("open", more), verdict=lambda **more: self._put("verdict", more),
            close=lambda **more: self._put_or_count("close", more),
        )  # fmt: skip

    def event(self, _: str, **fields: Any) -> None:
        """A whole event in one record."""
        self._put("event", fields)

    def refused(self, _: str, refusal: Refusal, entry: Any = None) -> None:
        """A refusal."""
        self._put_or_count("refused", {**refusal.record(), "own": entry is not None})

    def unwritten(self, _: str) -> None:
        """An attempt that has no record."""
        self.records.append(("unwritten", {}))

    def remember(self, _: str, refusal: Refusal, command: str | None) -> None:
        """What `irons.internal` says of it, which is in no log."""
        self.records.append(("remember", {"host": refusal.host, "command": command}))

    def _put_or_count(self, kind: str, fields: dict[str, Any]) -> None:
        with contextlib.suppress(JournalError):
            self._put(kind, fields)

    def _put(self, kind: str, fields: dict[str, Any]) -> None:
        if not self._room:
            raise JournalError("the disk is full")
        self._room -= 1
        self.records.append((kind, {key: fields[key] for key in fields if key != "duration_ms"}))


class Driver:
    """Drives the machine: every question is answered at once, by the real rules.

    It holds the machine to its promises on the way: no dial before the opening record, no byte to a server before the verdict
    record, and nothing waited for without an end before a server is reached.
    """

    def __init__(self, talk: Talk) -> None:
        self.log = Log(talk.room)
        self.policy = policy = None if talk.rules is None else Policy.from_json(talk.rules)
        self._talk = talk
        self._where = Host(LITERAL, ip_address(LITERAL))
        name = None if talk.name is None else Host(talk.name)
        accepted = ev.Accepted(
            self._where,
            talk.port,
            name,
            name is not None,
            policy is not None and decide(policy, name or self._where, talk.port).allowed,
            None if policy is None else policy.mode,
            SANDBOX,
        )
        shared = SimpleNamespace(journal=self.log, folder=self.log)
        self._cell = SimpleNamespace(name=CELL, title=SANDBOX, policy=policy)
        self._account = Account(cast("Any", shared), cast("Any", self._cell), talk.port)
        self.heard = {Side.CLIENT: b"", Side.SERVER: b""}
        self._reached = False
        # What was said before the server was reached is not the connection's.
        self._before = 0
        self.machine = Conversation(Means(TLS, Hellos(), Budget(), FrameBudget()), accepted)
        self._do(self.machine.begin())

    def tell(self, event: ev.Event) -> None:
        """Give the machine an event, and do what it says."""
        self._do(self.machine.receive(event))

    def run(self) -> Outcome:
        """Talk to the end."""
        steps = []
        for turn in self._talk.turns:
            if self.machine.over:
                break
            if isinstance(turn, Change):
                self.policy = self._cell.policy = policy = Policy.from_json(turn.rules)
                self.tell(ev.PolicyChanged(policy.mode))
            elif turn.side is Side.CLIENT or self._reached:
                self.tell(ev.Bytes(turn.side, turn.data) if turn.data else ev.End(turn.side))
            steps.append((len(self.heard[Side.SERVER]), len(self.heard[Side.CLIENT])))
        ends = []
        for side in Side:
            if not self.machine.over:
                ends.append(side)
                self.tell(ev.End(side))
        return Outcome(self.heard[Side.SERVER], self.heard[Side.CLIENT], self.log.records, steps, ends)

    def _do(self, actions: list[do.Action]) -> None:
        left: deque[do.Action | ev.Event] = deque(actions)
        while left:
            action = left.popleft()
            if isinstance(action, ev.Event):
                left.extendleft(reversed(self.machine.receive(action)))
                continue
            try:
                left.extendleft(reversed(self._one(action)))
            except JournalError:
                if isinstance(action, do.Open):
                    self.log.unwritten(CELL)
                left = deque([ev.RecordFailed()])

        assert self.machine.over or self._reached or self._bounded

    def _recorded(self, kind: str) -> bool:
        return any(found == kind for found, _ in self.log.records)

    @property
    def _bounded(self) -> bool:
        hold = self.machine.holding
        return hold is not None and (hold.seconds is not None or hold.waits in {Waits.NAME, Waits.DIAL})

    def _one(self, action: do.Action) -> Sequence[ev.Event]:
        account, way = self._account, self._talk.way
        match action:
            case do.Open(host):
                account.accepted(host)
            case do.Speaks(protocol):
                account.protocol = protocol
            case do.Judge(do.Standing(live, mismatched)):
                return [ev.Cut(CUT, Cause.RULE)] if forbids(self.policy, live, mismatched=mismatched) else []
            case do.Judge(question):
                return [self._judge(question)]
            case do.Lookup(host):
                if host.address is not None:
                    return [ev.Known((host.address,))]
                return [ev.ByProxy() if way.by_name else ev.Known(None)]
            case do.Resolve():
                return [ev.Resolved((LEADS,)) if way.resolves else ev.Unresolved(UNRESOLVED)]
            case do.Reach(host):
                account.reach(host)
            case do.Dial() | do.DialName():
                assert self._recorded("open")
                self._reached, self._before = way.answers, len(self.heard[Side.CLIENT])
                dialling = [ev.Dialling(action.addresses[0])] if isinstance(action, do.Dial) else []
                address = dialling[0].address if dialling else None
                reached = ev.Reached(address, way.forwarding)
                return [*dialling, reached if way.answers else ev.Unreached(UNREACHED)]
            case do.Choose(judged, address):
                account.verdict(judged, address)
            case do.Mention(judged):
                account.others(judged)
            case do.Forward(to, data, own):
                assert to is Side.CLIENT or (self._reached and self._recorded("verdict"))
                self.heard[to] += data
                self._before += len(data) if own else 0
            case do.Refuse(error, reached):
                account.refused(error, dialled=reached)
            case do.Close():
                self._close(action)
        return []

    def _judge(self, question: do.Names | do.Addresses | do.ByName | do.Standing) -> ev.Event:
        assert not isinstance(question, do.Standing)
        policy, port = self.policy, question.port
        try:
            if policy is None:
                about = question.host if isinstance(question, do.Names) else question.judged.host
                raise refuse_for(
                    about or self._where, port, question.protocol, None, UNKNOWN, Cause.NO_POLICY
                )
            if isinstance(question, do.Addresses):
                found = judge_addresses(
                    policy, question.judged, port, question.protocol, question.addresses, HostNetwork()
                )
                return ev.Passing(found)
            if isinstance(question, do.ByName):
                may_be_named(policy, question)
                return ev.Verdict(question.judged)
            host, claimed, protocol = question.host, question.claimed, question.protocol
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

    def _close(self, close: do.Close) -> None:
        moved = None
        if close.outcome is Became.REACHED:
            back = len(self.heard[Side.CLIENT]) - self._before
            moved = SimpleNamespace(bytes_out=len(self.heard[Side.SERVER]), bytes_in=back)
        self.heard[Side.CLIENT] += close.words
        ending = Ending(close.text, close.outcome, close.cause)
        self._account.close(close.host, close.judged, cast("Any", moved), ending)


def forbids(policy: Policy | None, live: Live | None, *, mismatched: bool) -> bool:
    """True where a policy no longer lets go on what goes on."""
    if policy is None:
        return False
    lives = [] if live is None else [live]
    return bool(forbidden(policy, lives, HostNetwork())) or (mismatched and policy.mode == "deny")


def may_be_named(policy: Policy, question: do.ByName) -> None:
    """Raise where the upstream proxy may not be asked for a name."""
    host, port = question.judged.host, question.port
    refused = decide_proxy(policy, host, port, HostNetwork()) or decide(policy, host, port)
    if not refused.allowed:
        raise refuse_for(host, port, question.protocol, policy, refused.reason, refused.cause)


def make_cell(home: Path, talk: Talk) -> Cell:
    """The cell of a talk."""
    home.mkdir()
    cell = Cell(CELL, home, Caps())
    cell.policy = None if talk.rules is None else Policy.from_json(talk.rules)
    cell.sandbox = {"name": SANDBOX}
    return cell


def without_io(talk: Talk) -> Outcome:
    """The talk through the machine."""
    return Driver(talk).run()


class Loop(FairLoop):
    """A loop whose clock can be put forward."""

    def __init__(self) -> None:
        self.skipped = 0.0
        super().__init__()

    def time(self) -> float:
        """The time on its clock."""
        return time.monotonic() + self.skipped


SETTLING = 4
MOST_WAITS = 1000
"""Tenths of seconds, on a clock that is put forward, after which a live connection no longer ends by itself."""


class Sockets:
    """The talk through `Attempt`."""

    def __init__(self, talk: Talk, home: Path, loop: Loop, make: Callable[..., Any] = Attempt) -> None:
        self._talk, self._loop, self._log = talk, loop, Log(talk.room)
        self._held = contextlib.ExitStack()
        self._cell = make_cell(home, talk)
        self._held.callback(self._cell.close)
        pipes = Pipes(lambda _: None)
        self._held.callback(pipes.close)
        self._ends: dict[Side, socket.socket] = {}
        self._heard = {Side.CLIENT: b"", Side.SERVER: b""}
        log = cast("Any", self._log)
        route = SimpleNamespace(
            by_name=talk.way.by_name, dial=self._dial, dial_name=self._dial_name,
            forwarding=lambda _: talk.way.forwarding,
        )  # fmt: skip
        proxy = SimpleNamespace(setting=None, route=lambda _: route)
        resolver = SimpleNamespace(known=lambda *_: None, resolve=self._resolve)
        files = Files(1000)
        files.attach()
        shared = Context(
            loop, log, log, cast("Any", resolver), cast("Any", None), cast("Any", proxy), pipes, files,
            TLS, Hellos(), HostNetwork, lambda: False, self._complain,
        )  # fmt: skip
        where = ip_address(LITERAL) if talk.name is None else self._cell.names.address(talk.name)
        near = self._pair(Side.CLIENT)
        turns = Turns(loop, lambda: False)
        self._attempt = make(shared, self._cell, Wire(loop, near), where, talk.port, turns)
        self.complaints: list[str] = []

    def _complain(self, text: str) -> None:
        self.complaints.append(text)

    def _pair(self, side: Side) -> socket.socket:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far = self._held.enter_context(socket.create_connection(listener.getsockname()))
            near, _ = listener.accept()
        far.setblocking(False)
        self._ends[side] = far
        return near

    async def _dial(self, _: FairLoop, __: Address, ___: int) -> Wire:
        return await self._dial_name(0)

    async def _dial_name(self, _: int) -> Wire:
        if not self._talk.way.answers:
            raise DialError(UNREACHED)
        return Wire(self._loop, self._pair(Side.SERVER))

    async def _resolve(self, _: str, __: str) -> tuple[Address, ...]:
        if not self._talk.way.resolves:
            raise ResolveError(UNRESOLVED)
        return (LEADS,)

    async def run(self, wanted: Outcome) -> Outcome:
        """Talk to the end; after each turn wait for what the other one of the two had let on by then."""
        try:
            self._say(0)
            self._attempt.start()
            for number, step in enumerate(wanted.steps):
                if number:
                    self._say(number)
                await self._until(*step)
            await self._until(len(wanted.out), len(wanted.back))
            for side in wanted.ends:
                self._end(side)
                await self._rest()
            ended = self._loop.create_task(self._attempt.ended())
            for _ in range(MOST_WAITS):
                if ended.done():
                    break
                self._loop.skipped += 0.1
                await asyncio.sleep(0.0005)
                await self._rest()
            else:
                self._attempt.cut("it waits for something that the machine did not wait for", cause=None)
                await ended
            await self._until(len(wanted.out), len(wanted.back))
            await self._rest()
            self._hear()
            return Outcome(
                self._heard[Side.SERVER],
                self._heard[Side.CLIENT],
                self._log.records,
                wanted.steps,
                wanted.ends,
            )
        finally:
            self._held.close()

    def _say(self, number: int) -> None:
        if number >= len(self._talk.turns):
            return
        turn = self._talk.turns[number]
        if isinstance(turn, Change):
            self._cell.policy = policy = Policy.from_json(turn.rules)
            if forbids(policy, self._attempt.live, mismatched=self._attempt.mismatched):
                self._attempt.cut(CUT, cause=Cause.RULE)
            return
        side, data = turn
        if not data:
            self._end(side)
        elif side in self._ends:
            with contextlib.suppress(OSError):
                self._ends[side].sendall(data)

    def _end(self, side: Side) -> None:
        if side in self._ends:
            with contextlib.suppress(OSError):
                self._ends[side].shutdown(socket.SHUT_WR)

    async def _until(self, out: int, back: int) -> None:
        """Wait until each side has heard so much, or nothing more comes.

        What the server still answers is waited for before a refusal, so time goes by: less than a held line has.
        """
        # What changes nothing to be heard is handled before the next turn, too.
        for _ in range(SETTLING):
            await self._rest()
        for number in range(80):
            if number > 20:
                self._loop.skipped += 0.02
                await asyncio.sleep(0.001)
            await self._rest()
            self._hear()
            if len(self._heard[Side.SERVER]) >= out and len(self._heard[Side.CLIENT]) >= back:
                return

    async def _rest(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)

    def _hear(self) -> None:
        for side, end in self._ends.items():
            with contextlib.suppress(OSError):
                while data := end.recv(65_536):
                    self._heard[side] += data


def live(talk: Talk, home: Path, wanted: Outcome, make: Callable[..., Any] = Attempt) -> Outcome:
    """The talk through `Attempt`, or what takes its place, in step with what the machine let on."""
    with contextlib.closing(Loop()) as loop:
        return loop.run_until_complete(asyncio.wait_for(Sockets(talk, home, loop, make).run(wanted), 1e9))
