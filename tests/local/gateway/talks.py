"""One conversation without I/O and over sockets, by the live `Attempt`: what each lets on, and what each records.

A talk is a list of turns. The driver without I/O asks the real rules, by events that come later, and writes by the real
`Account`, into a log that is a list. The live one answers at once, and runs over loopback sockets, with a route that hands it
the other end instead of a dial.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVarTuple, cast

from tests.local.gateway.stand import policy as policy_json

from irons_local.gateway.attempt.account import NOTHING, Account, Ending, Volume
from irons_local.gateway.attempt.answers import answer
from irons_local.gateway.attempt.attempt import Attempt
from irons_local.gateway.budget.descriptors import Files
from irons_local.gateway.budget.fairness import SETTLING
from irons_local.gateway.budget.undecided import Budget
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.conversation.actions import Waits
from irons_local.gateway.conversation.events import Side
from irons_local.gateway.conversation.life import Conversation, Means
from irons_local.gateway.http1.absolute import Forwarding
from irons_local.gateway.http2.budget import FrameBudget
from irons_local.gateway.reach.dial import DialError
from irons_local.gateway.reach.resolve import ResolveError
from irons_local.gateway.record.journal import JournalError
from irons_local.gateway.record.refusal import Refusal
from irons_local.gateway.service import CUT
from irons_local.gateway.shared.cell import Caps, Cell
from irons_local.gateway.shared.context import Context as Shared
from irons_local.gateway.streams.splice import Pipes, Turns
from irons_local.gateway.streams.stream import Wire
from irons_local.gateway.tls.client_hello import context
from irons_local.gateway.tls.remembered import Hellos
from irons_policy.addresses import Address
from irons_policy.causes import Cause
from irons_policy.causes import Outcome as Became
from irons_policy.decide import Live, decide, forbidden
from irons_policy.hostnames import Host
from irons_policy.hostnet import HostNetwork
from irons_policy.policy import Policy

_Ts = TypeVarTuple("_Ts")

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


def stand_still() -> float:
    """A clock that stands: how many frames a second allows does not depend on this machine."""
    return 0.0


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
        """The hosts that it was let through to and refused for, in no order, and how it ended."""
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
        self.machine = Conversation(Means(TLS, Hellos(), Budget(), FrameBudget(clock=stand_still)), accepted)
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
        self._all(actions)
        while self.machine.exchange.busy:
            self._all(self.machine.go_on())
        assert self.machine.over or self._reached or self._bounded

    def _all(self, actions: list[do.Action]) -> None:
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

    def _recorded(self, kind: str) -> bool:
        return any(found == kind for found, _ in self.log.records)

    @property
    def _bounded(self) -> bool:
        hold = self.machine.exchange.holding
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
                assert not isinstance(question, do.Standing)
                return [answer(self.policy, question, self._where, HostNetwork)]
            case do.Lookup(host):
                if host.address is not None:
                    return [ev.Known((host.address,))]
                return [ev.ByProxy() if way.by_name else ev.Known(None)]
            case do.Resolve():
                return [ev.Resolved((LEADS,)) if way.resolves else ev.Unresolved(UNRESOLVED)]
            case do.Reach(host):
                account.reach(host)
            case do.Dial() | do.DialName():
                assert self._recorded("verdict")
                self._reached, self._before = way.answers, len(self.heard[Side.CLIENT])
                address = action.addresses[0] if isinstance(action, do.Dial) else None
                return [ev.Reached(address, way.forwarding) if way.answers else ev.Unreached(UNREACHED)]
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

    def _close(self, close: do.Close) -> None:
        moved = NOTHING
        if close.outcome is Became.REACHED:
            back = len(self.heard[Side.CLIENT]) - self._before
            moved = Volume(len(self.heard[Side.SERVER]), back)
        self.heard[Side.CLIENT] += close.words
        ending = Ending(close.text, close.outcome, close.cause)
        self._account.close(close.host, close.judged, moved, ending)


def forbids(policy: Policy | None, live: Live | None, *, mismatched: bool) -> bool:
    """True where a policy no longer lets go on what goes on."""
    if policy is None:
        return False
    lives = [] if live is None else [live]
    return bool(forbidden(policy, lives, HostNetwork())) or (mismatched and policy.mode == "deny")


def make_cell(home: Path, talk: Talk) -> Cell:
    """The cell of a talk."""
    home.mkdir()
    cell = Cell(CELL, home, Caps())
    cell.policy = None if talk.rules is None else Policy.from_json(talk.rules)
    cell.sandbox = {"name": SANDBOX}
    cell.http2 = FrameBudget(clock=stand_still)
    return cell


def without_io(talk: Talk) -> Outcome:
    """The talk through the machine."""
    return Driver(talk).run()


class Loop(FairLoop):
    """A loop whose clock can be put forward.

    Args:
        stands: it moves in no other way.

    Attributes:
        skipped: seconds by which it was put forward.
        happened: how many descriptors were ready, and how many calls were asked for.
    """

    def __init__(self, *, stands: bool = False) -> None:
        self.skipped = 0.0
        self.happened = 0
        self._stands = stands
        super().__init__()

    def time(self) -> float:
        """The time on its clock."""
        return self.skipped if self._stands else time.monotonic() + self.skipped

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Count a call."""
        self.happened += 1
        return super().call_soon(callback, *args, context=context)

    def _process_events(self, event_list: list[Any]) -> None:
        self.happened += len(event_list)
        super()._process_events(event_list)  # type: ignore[misc]

    async def quiet(self) -> bool:
        """Let everything happen that is ready; False where something did happen."""
        before = self.happened
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
        return self.happened == before + ROUNDS


_SIOCOUTQNSD = 0x894B
ROUNDS = SETTLING + 4
"""Rounds of the loop in which the selector looks at every descriptor."""
STEP, STEPS = 0.02, 60
"""Seconds, and how often they go by, while something is to be heard yet: less than a held line has."""
MOST_WAITS = 1000
"""Tenths of seconds, on a clock that is put forward, after which a live connection no longer ends by itself."""
PATIENCE = 100.0
"""Seconds that anything may take on this machine."""


def under_way(sock: socket.socket) -> int:
    """How many segments have not arrived, its end among them (tcp(7), `tcpi_unacked`)."""
    if sock.fileno() < 0:
        return 0
    (count,) = struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28), 24)
    assert isinstance(count, int)
    return count


def unsent(sock: socket.socket) -> int:
    """How many bytes have not been sent for want of room (tcp(7), `SIOCOUTQNSD`)."""
    if sock.fileno() < 0:
        return 0
    (count,) = struct.unpack("i", fcntl.ioctl(sock, _SIOCOUTQNSD, bytes(4)))
    assert isinstance(count, int)
    return count


def acknowledge(sock: socket.socket) -> None:
    """Have the kernel say now, not up to 40 ms later, what has arrived."""
    if sock.fileno() >= 0:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class Sockets:
    """The talk through `Attempt`.

    Attributes:
        attempt: the connection.
        ends: the sockets of its peers; its server's is there once it was dialled.
        log: what is recorded.
    """

    def __init__(self, talk: Talk, home: Path, loop: Loop) -> None:
        self._talk, self._loop, self.log = talk, loop, Log(talk.room)
        self._held = contextlib.ExitStack()
        self._cell = make_cell(home, talk)
        self._held.callback(self._cell.close)
        pipes = Pipes(lambda _: None)
        self._held.callback(pipes.close)
        self.ends: dict[Side, socket.socket] = {}
        self._near: list[socket.socket] = []
        self._heard = {Side.CLIENT: b"", Side.SERVER: b""}
        log = cast("Any", self.log)
        route = SimpleNamespace(
            by_name=talk.way.by_name, dial=self._dial, dial_name=self._dial_name,
            forwarding=lambda _: talk.way.forwarding,
        )  # fmt: skip
        proxy = SimpleNamespace(setting=None, route=lambda _: route)
        resolver = SimpleNamespace(known=lambda *_: None, resolve=self._resolve)
        files = Files(1000)
        files.attach()
        shared = Shared(
            loop, log, log, cast("Any", resolver), cast("Any", None), cast("Any", proxy), pipes, files,
            TLS, Hellos(), HostNetwork, lambda: False, self._complain,
        )  # fmt: skip
        where = ip_address(LITERAL) if talk.name is None else self._cell.names.address(talk.name)
        near = self._pair(Side.CLIENT)
        turns = Turns(loop, lambda: False)
        self.attempt = Attempt(shared, self._cell, Wire(loop, near), where, talk.port, turns)
        self.complaints: list[str] = []

    def _complain(self, text: str) -> None:
        self.complaints.append(text)

    def _pair(self, side: Side) -> socket.socket:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far = self._held.enter_context(socket.create_connection(listener.getsockname()))
            near, _ = listener.accept()
        far.setblocking(False)
        self.ends[side] = far
        self._near.append(near)
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
            self.attempt.start()
            for number, step in enumerate(wanted.steps):
                if number:
                    self._say(number)
                await self._until(*step)
            await self._until(len(wanted.out), len(wanted.back))
            for side in wanted.ends:
                self._end(side)
                await self._rest()
            ended = self._loop.create_task(self.attempt.ended())
            for _ in range(MOST_WAITS):
                await self._rest()
                if ended.done():
                    break
                self._loop.skipped += 0.1
            else:
                self.attempt.cut("it waits for something that the machine did not wait for", cause=None)
            await ended
            # What follows its end, as the closing record.
            await self._rest()
            self._hear_all()
            return Outcome(
                self._heard[Side.SERVER],
                self._heard[Side.CLIENT],
                self.log.records,
                wanted.steps,
                wanted.ends,
            )
        finally:
            self.close()

    def close(self) -> None:
        """Let go of everything."""
        self._held.close()

    def _say(self, number: int) -> None:
        if number >= len(self._talk.turns):
            return
        turn = self._talk.turns[number]
        if isinstance(turn, Change):
            self._cell.policy = policy = Policy.from_json(turn.rules)
            if forbids(policy, self.attempt.live, mismatched=self.attempt.mismatched):
                self.attempt.cut(CUT, cause=Cause.RULE)
            return
        side, data = turn
        if not data:
            self._end(side)
        elif side in self.ends:
            with contextlib.suppress(OSError):
                self.ends[side].sendall(data)

    def _end(self, side: Side) -> None:
        if side in self.ends:
            with contextlib.suppress(OSError):
                self.ends[side].shutdown(socket.SHUT_WR)

    async def _until(self, out: int, back: int) -> None:
        """Wait until each side has heard so much, or nothing more comes.

        What the server still answers is waited for before a refusal, so time goes by: less than a held line has.
        """
        await self._rest()
        for _ in range(STEPS):
            if len(self._heard[Side.SERVER]) >= out and len(self._heard[Side.CLIENT]) >= back:
                return
            self._loop.skipped += STEP
            await self._rest()

    async def _rest(self) -> None:
        """Let everything happen that can happen now, in the kernel and in the loop, however slow this machine is."""
        until = time.monotonic() + PATIENCE
        while True:
            arrived = self._arrived()
            quiet = await self._loop.quiet()
            if not self._hear() and arrived and quiet:
                return
            assert time.monotonic() < until, "it never comes to rest"

    def _arrived(self) -> bool:
        """Whether everything that either side has sent has arrived at the other; what is not read stays at its sender."""
        sockets = (*self.ends.values(), *self._near)
        # Both ends hear all that comes.
        if not any(map(under_way, sockets)) and not any(map(unsent, self._near)):
            return True
        for each in sockets:
            acknowledge(each)
        os.sched_yield()
        return False

    def _hear(self) -> int:
        """Hear what there is; how much that was."""
        count = 0
        for side, end in self.ends.items():
            with contextlib.suppress(OSError):
                while data := end.recv(65_536):
                    self._heard[side] += data
                    count += len(data)
        return count

    def _hear_all(self) -> None:
        """Hear everything up to the end, which comes: the connection is closed."""
        for side, end in self.ends.items():
            end.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionError):
                while data := end.recv(65_536):
                    self._heard[side] += data


def live(talk: Talk, home: Path, wanted: Outcome) -> Outcome:
    """The talk through `Attempt`, in step with what was let on without I/O."""
    with contextlib.closing(Loop(stands=True)) as loop:
        return loop.run_until_complete(Sockets(talk, home, loop).run(wanted))
