"""One conversation through the machine without I/O and through the live `Attempt`: what each lets on, and what each records.

A talk is a list of turns. The machine's driver here asks the real rules and writes by the real `Account`, into a log that is a
list. The live side runs over loopback sockets, with a route that hands it the other end instead of a dial.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Sequence
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
from irons_local.gateway.http2.budget import Budget as FrameBudget
from irons_local.gateway.record.refusal import Refusal
from irons_local.gateway.streams.splice import Pipes, Turns
from irons_local.gateway.streams.stream import Wire
from irons_local.gateway.tls.client_hello import context
from irons_local.gateway.tls.remembered import Hellos
from irons_policy.addresses import Address
from irons_policy.causes import Cause
from irons_policy.decide import decide
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


class Talk(NamedTuple):
    """A conversation as a list.

    Attributes:
        turns: in order; both sides end after them.
        name: what it is opened to; None for the literal address.
        port: the port it is opened to.
        rules: of the sandbox; None for no policy.
    """

    turns: tuple[Turn, ...]
    name: str | None = "web.test"
    port: int = 80
    rules: dict[str, Any] | None = None


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


def rules(
    mode: str = "deny", allow: Sequence[str] = ("web.test",), deny: Sequence[str] = ()
) -> dict[str, Any]:
    """A policy."""
    return policy_json(mode, allow, deny)


class Log:
    """An audit log that is a list: the journal and the folder in one."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []

    def open(self, _: str, **fields: Any) -> Any:
        """The opening record."""
        self._put("open", fields)
        return SimpleNamespace(
            open=lambda **more: self._put("open", more),
            verdict=lambda **more: self._put("verdict", more),
            close=lambda **more: self._put("close", more),
        )

    def event(self, _: str, **fields: Any) -> None:
        """A whole event in one record."""
        self._put("event", fields)

    def refused(self, _: str, refusal: Refusal, entry: Any = None) -> None:
        """A refusal."""
        self._put("refused", {**refusal.record(), "own": entry is not None})

    def remember(self, _: str, refusal: Refusal, command: str | None) -> None:
        """What `irons.internal` says of it."""
        self._put("remember", {"host": refusal.host, "command": command})

    def _put(self, kind: str, fields: dict[str, Any]) -> None:
        self.records.append((kind, {key: fields[key] for key in fields if key != "duration_ms"}))


class Driver:
    """Drives the machine: every question is answered at once, by the real rules."""

    def __init__(self, talk: Talk) -> None:
        self.log = Log()
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
        cell = SimpleNamespace(name=CELL, title=SANDBOX, policy=policy)
        self._account = Account(cast("Any", shared), cast("Any", cell), talk.port)
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
            if turn.side is Side.CLIENT or self._reached:
                self.tell(ev.Bytes(turn.side, turn.data) if turn.data else ev.End(turn.side))
            steps.append((len(self.heard[Side.SERVER]), len(self.heard[Side.CLIENT])))
        ends = []
        for side in Side:
            if not self.machine.over:
                ends.append(side)
                self.tell(ev.End(side))
        return Outcome(self.heard[Side.SERVER], self.heard[Side.CLIENT], self.log.records, steps, ends)

    def _do(self, actions: list[do.Action]) -> None:
        for action in actions:
            answers = self._one(action)
            for answer in answers:
                self.tell(answer)

    def _one(self, action: do.Action) -> list[ev.Event]:
        account = self._account
        match action:
            case do.Open(host):
                account.accepted(host)
            case do.Speaks(protocol):
                account.protocol = protocol
            case do.Judge(question):
                return [self._judge(question)] if not isinstance(question, do.Standing) else []
            case do.Lookup(host):
                return [ev.Known(None if host.address is None else (host.address,))]
            case do.Resolve():
                return [ev.Resolved((LEADS,))]
            case do.Reach(host):
                account.reach(host)
            case do.Dial(addresses):
                self._reached, self._before = True, len(self.heard[Side.CLIENT])
                return [ev.Dialling(addresses[0]), ev.Reached(addresses[0])]
            case do.Choose(judged, address):
                account.verdict(judged, address)
            case do.Mention(judged):
                account.others(judged)
            case do.Forward(to, data):
                self.heard[to] += data
            case do.Refuse(error, reached):
                account.refused(error, dialled=reached)
            case do.Close():
                self._close(action)
        return []

    def _judge(self, question: do.Names | do.Addresses) -> ev.Event:
        policy, port = self.policy, question.port
        try:
            if policy is None:
                about = question.judged.host if isinstance(question, do.Addresses) else question.host
                raise refuse_for(
                    about or self._where, port, question.protocol, None, UNKNOWN, Cause.NO_POLICY
                )
            if isinstance(question, do.Addresses):
                found = judge_addresses(
                    policy, question.judged, port, question.protocol, question.addresses, HostNetwork()
                )
                return ev.Passing(found)
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
        if self._reached:
            back = len(self.heard[Side.CLIENT]) - self._before
            moved = SimpleNamespace(bytes_out=len(self.heard[Side.SERVER]), bytes_in=back)
        self.heard[Side.CLIENT] += close.words
        ending = Ending(close.text, close.outcome, close.cause)
        self._account.close(close.host, close.judged, cast("Any", moved), ending)


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


class Live:
    """The talk through `Attempt`."""

    def __init__(self, talk: Talk, home: Path, loop: Loop) -> None:
        self._talk, self._loop, self._log = talk, loop, Log()
        self._held = contextlib.ExitStack()
        self._cell = make_cell(home, talk)
        pipes = Pipes(lambda _: None)
        self._held.callback(pipes.close)
        self._ends: dict[Side, socket.socket] = {}
        self._heard = {Side.CLIENT: b"", Side.SERVER: b""}
        log = cast("Any", self._log)
        route = SimpleNamespace(by_name=False, dial=self._dial, forwarding=lambda _: None)
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
        self._attempt = Attempt(shared, self._cell, Wire(loop, near), where, talk.port, turns)
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

    async def _dial(self, loop: FairLoop, _: Address, __: int) -> Wire:
        return Wire(loop, self._pair(Side.SERVER))

    async def _resolve(self, _: str, __: str) -> tuple[Address, ...]:
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
            while not ended.done():
                self._loop.skipped += 0.1
                await asyncio.sleep(0.0005)
                await self._rest()
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
        side, data = self._talk.turns[number]
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


def live(talk: Talk, home: Path, wanted: Outcome) -> Outcome:
    """The talk through `Attempt`, in step with what the machine let on."""
    with contextlib.closing(Loop()) as loop:
        return loop.run_until_complete(asyncio.wait_for(Live(talk, home, loop).run(wanted), 1e9))
