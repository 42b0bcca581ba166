"""What the live view knows: totals, hosts by how often they were tried, the latest events, and what is selected."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from irons_policy.event import Event
from irons_policy.patterns import narrowest

Verdict = Literal["allowed", "denied", "warned"]

LOST = ("unresolved", "unreached")
"""Outcomes of what was let through and not reached."""

LATEST = 500
"""Events kept to be shown."""

MOST_HOSTS = 2000
"""Hosts counted; then the least tried one makes room."""


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
    """One host, and how its attempts ended."""

    target: str
    allowed: int = 0
    denied: int = 0
    warned: int = 0

    @property
    def total(self) -> int:
        """All attempts."""
        return self.allowed + self.denied + self.warned


class VerdictTotals(NamedTuple):
    """Attempts by what became of them."""

    allowed: int = 0
    denied: int = 0
    warned: int = 0


@dataclass
class Model:
    """The state of one view; changed by what the feed brings and by keys, drawn by the view."""

    sandbox: str | None = None
    mode: str = ""
    totals: VerdictTotals = field(default_factory=VerdictTotals)
    hosts: dict[str, HostRow] = field(default_factory=dict)
    latest: deque[Event] = field(default_factory=lambda: deque(maxlen=LATEST))
    selected: str | None = None
    said: str = ""
    trouble: str = ""
    paused: bool = False
    answered: bool = False
    """Whether the server has answered yet."""
    rotated: str = ""
    """How many events from before were rotated out; empty where none were."""

    def take(self, events: Iterable[Event]) -> None:
        """Count events, oldest first; that there are none is an answer, too."""
        self.answered = True
        counts = {"allowed": 0, "denied": 0, "warned": 0}
        for event in events:
            verdict = verdict_of(event)
            number = max(1, event.count)
            counts[verdict] += number
            host = self._host(target_of(event))
            setattr(host, verdict, getattr(host, verdict) + number)
            self.latest.append(event)
        before = self.totals
        self.totals = VerdictTotals(
            before.allowed + counts["allowed"],
            before.denied + counts["denied"],
            before.warned + counts["warned"],
        )
        if self.selected is None and self.hosts:
            self.selected = self.busiest(1)[0].target

    def learn(self, events: Iterable[Event]) -> None:
        """Take what is now known of events that were counted before: how they ended."""
        known = {event.id: event for event in events if event.id is not None}
        for at, event in enumerate(self.latest):
            if event.id in known:
                self.latest[at] = known[event.id]

    def busiest(self, most: int) -> list[HostRow]:
        """Return the hosts tried most, the busiest first."""
        return sorted(self.hosts.values(), key=lambda host: (-host.total, host.target))[:most]

    def shown(self, most: int) -> list[HostRow]:
        """Return the busiest hosts, the selected one always among them: a key never changes the rule of a host that isn't seen."""
        hosts = self.busiest(most)
        chosen = self.hosts.get(self.selected) if self.selected is not None else None
        return hosts if chosen is None or chosen in hosts else [*hosts[: most - 1], chosen]

    def move(self, by: int, most: int) -> None:
        """Select the host `by` places further down among the `most` that are shown."""
        shown = [host.target for host in self.shown(most)]
        if not shown:
            return
        at = shown.index(self.selected) if self.selected in shown else 0
        self.selected = shown[max(0, min(len(shown) - 1, at + by))]

    def _host(self, target: str) -> HostRow:
        host = self.hosts.get(target)
        if host is None:
            if len(self.hosts) >= MOST_HOSTS:
                least = min(self.hosts.values(), key=lambda each: (each.target == self.selected, each.total))
                del self.hosts[least.target]
            host = self.hosts[target] = HostRow(target)
        return host
