"""What was read of the audit log: totals, hosts by how their attempts ended, and the latest events."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from typing import Literal

from irons.client.following.cursor import REMEMBERED
from irons.record import NamedTuple
from irons_policy.event import Event
from irons_policy.patterns import narrowest

Verdict = Literal["allowed", "denied", "warned"]

LOST = ("unresolved", "unreached")
"""Outcomes of what was let through and not reached."""

LATEST = 2_000
"""Events kept to be shown."""

MOST_HOSTS = 2_000
"""Hosts counted."""

SLACK = 500
"""Hosts beyond these at which the least tried ones, the oldest first, make room, down to the number above."""

MOST_AGAINST = 16
"""Sandboxes of which one host keeps the latest refusal."""


def verdict_of(event: Event) -> Verdict:
    """Return what became of an attempt: `warned` is what mode warn let through against the rules."""
    if not event.allowed:
        return "denied"
    return "warned" if event.verdict == "warn" else "allowed"


def lost(event: Event) -> bool:
    """Tell whether an attempt was let through and not reached."""
    return event.outcome in LOST


def target_of(event: Event) -> str:
    """Return an attempt's host as a rule would name it: with its port where that is not one of the web's."""
    return event.host if event.port is None else narrowest(event.host, event.port)


@dataclass
class HostRow:
    """One host, and how its attempts ended.

    Attributes:
        target: The host as a rule would name it.
        last: Its latest event.
        number: Grows from host to host, in the order in which they were seen first.
        against: The latest event that was denied or would be, by sandbox; none of a sandbox that was allowed since.
    """

    target: str
    last: Event
    number: int = 0
    allowed: int = 0
    denied: int = 0
    warned: int = 0
    against: dict[str, Event] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All attempts."""
        return self.allowed + self.denied + self.warned

    def see(self, event: Event) -> None:
        """Take an event as the latest."""
        self.last = event
        self.against.pop(event.sandbox, None)
        if verdict_of(event) != "allowed":
            self.against[event.sandbox] = event
            if len(self.against) > MOST_AGAINST:
                del self.against[next(iter(self.against))]


class _Counted(NamedTuple):
    """What was counted of one event."""

    target: str
    verdict: Verdict
    count: int  # type: ignore[assignment]


class VerdictTotals(NamedTuple):
    """Attempts by what became of them."""

    allowed: int = 0
    denied: int = 0
    warned: int = 0


class LogEntry(NamedTuple):
    """An event in the list of the latest, and its place: numbers grow, and stay with their event."""

    number: int
    event: Event


@dataclass
class Model:
    """What was read so far; changed by what the feed brings."""

    totals: VerdictTotals = field(default_factory=VerdictTotals)
    hosts: dict[str, HostRow] = field(default_factory=dict)
    latest: deque[LogEntry] = field(default_factory=lambda: deque(maxlen=LATEST))
    answered: bool = False
    """Whether the server has answered yet."""
    rotated: str = ""
    """How many events from before were rotated out; empty where none were."""
    events: int = 0
    """Events taken so far."""
    _hosts_seen: int = 0
    _counted: OrderedDict[int, _Counted] = field(default_factory=OrderedDict, repr=False)

    def take(self, events: Iterable[Event]) -> None:
        """Count events, oldest first; that there are none is an answer, too."""
        self.answered = True
        for event in events:
            self.events += 1
            counted = _Counted(target_of(event), verdict_of(event), max(1, event.count))
            self._host(counted.target, event).see(event)
            self._count(counted, 1)
            self.latest.append(LogEntry(self.events, event))
            if event.id is not None:
                self._counted[event.id] = counted
                if len(self._counted) > REMEMBERED:
                    self._counted.popitem(last=False)

    def learn(self, events: Iterable[Event]) -> None:
        """Take what is now known of events that were counted before: how they ended, and how often they were repeated."""
        known = {event.id: event for event in events if event.id is not None and event.id in self._counted}
        if not known:
            return
        for number, event in known.items():
            before = self._counted[number]
            now = before._replace(verdict=verdict_of(event), count=max(1, event.count))
            self._counted[number] = now
            self._count(before, -1)
            self._count(now, 1)
            host = self.hosts.get(now.target)
            if host is not None and (host.last.id or 0) <= number:
                host.see(event)
        for at, entry in enumerate(self.latest):
            event_id = entry.event.id
            if event_id in known:
                self.latest[at] = entry._replace(event=known[event_id])

    def copy(self) -> Model:
        """Return the same as it is now, to be shown while counting goes on."""
        hosts = {target: replace(host, against=dict(host.against)) for target, host in self.hosts.items()}
        return Model(self.totals, hosts, deque(self.latest, LATEST), self.answered, self.rotated, self.events)

    def _count(self, counted: _Counted, sign: int) -> None:
        verdict, number = counted.verdict, sign * counted.count
        self.totals = self.totals._replace(**{verdict: getattr(self.totals, verdict) + number})
        host = self.hosts.get(counted.target)
        if host is not None:
            # A host that made room for another one begins at nothing when it comes again.
            setattr(host, verdict, max(0, getattr(host, verdict) + number))

    def _host(self, target: str, event: Event) -> HostRow:
        host = self.hosts.get(target)
        if host is None:
            if len(self.hosts) >= MOST_HOSTS + SLACK:
                # Many at once: each look at all of them takes time.
                for each in nsmallest(SLACK, self.hosts.values(), key=lambda each: (each.total, each.number)):
                    del self.hosts[each.target]
            self._hosts_seen += 1
            host = self.hosts[target] = HostRow(target, event, self._hosts_seen)
        return host
