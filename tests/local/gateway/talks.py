"""One conversation without I/O: what it lets on, and what it records; `live_talks` has the same over sockets.

A talk is a list of turns. The driver without I/O asks the real rules, by events that come later, and writes by the real
`Account`, into a log that is a list.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from tests.local.gateway.stand import policy as policy_json

from irons_local.gateway.attempt.account import NOTHING, Account, Ending, Volume
from irons_local.gateway.attempt.answers import answer
from irons_local.gateway.budget.undecided import Budget
from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.conversation.actions import Waits
from irons_local.gateway.conversation.events import Side
from irons_local.gateway.conversation.life import Conversation, Means
from irons_local.gateway.http1.absolute import Forwarding
from irons_local.gateway.http2.budget import FrameBudget
from irons_local.gateway.record.journal import JournalError
from irons_local.gateway.record.refusal import Refusal
from irons_local.gateway.service import CUT
from irons_local.gateway.shared.cell import Caps, Cell
from irons_local.gateway.tls.client_hello import context
from irons_local.gateway.tls.remembered import Hellos
from irons_policy.causes import Cause
from irons_policy.causes import Outcome as Became
from irons_policy.decide import Live, decide, forbidden
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
