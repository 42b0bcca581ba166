"""What was tried, by sandbox, host and port, with the rules that cover each: what a change is judged on. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from irons.record import NamedTuple
from irons_policy.causes import Cause
from irons_policy.event import REQUEST_PROTOCOL
from irons_policy.hostnames import HostError, canonical_host
from irons_policy.patterns import HTTPS, read_pattern
from irons_policy.policy import Policy
from irons_policy.rules import LISTS

if TYPE_CHECKING:
    from irons_policy.addresses import Address
    from irons_policy.event import Event
    from irons_policy.patterns import Pattern
    from irons_policy.rules import Rule, Scope

RULED = ("", Cause.RULE, Cause.UNCOVERED, Cause.ASKED)
"""Causes that a rule's verdict can have; older servers tell none."""


_EVERYTHING = read_pattern("*")


class RuleKey(NamedTuple):
    """What names a rule of a policy: only one rule of a scope has a pattern."""

    scope: Scope
    pattern: str


class TriedPlace(NamedTuple):
    """One host and port that a sandbox tried.

    Attributes:
        sandbox: The sandbox's name.
        host: The host.
        port: The port.
        count: Connections.
        denies: The deny rules that cover it.
        allows: The allow rules that cover it.
        address: The host, where it is a literal address.
    """

    sandbox: str
    host: str
    port: int
    count: int  # type: ignore[assignment]
    denies: frozenset[RuleKey] = frozenset()
    allows: frozenset[RuleKey] = frozenset()
    address: Address | None = None

    @property
    def allowed(self) -> bool:
        """Whether the rules let it pass, in any mode."""
        return bool(self.allows) and not self.denies


class CoveredPlaces(NamedTuple):
    """What patterns cover, by what the rules say of it.

    Attributes:
        connections: Connections.
        hosts: How many hosts.
        denied: Places that rules deny.
        allowed: Places that rules allow.
        bare: Places that rules leave to the mode.
        bare_hosts: How many hosts these have.
    """

    connections: int
    hosts: int
    denied: Sequence[TriedPlace]
    allowed: Sequence[TriedPlace]
    bare: Sequence[TriedPlace]
    bare_hosts: int

    @classmethod
    def of(cls, places: Iterable[TriedPlace]) -> CoveredPlaces:
        """Sort places in one pass: there may be thousands."""
        hosts: set[str] = set()
        bare_hosts: set[str] = set()
        denied: list[TriedPlace] = []
        allowed: list[TriedPlace] = []
        bare: list[TriedPlace] = []
        connections = 0
        for place in places:
            _, host, _, count, denies, allows, _ = place
            hosts.add(host)
            connections += count
            if denies:
                denied.append(place)
            elif allows:
                allowed.append(place)
            else:
                bare.append(place)
                bare_hosts.add(host)
        return cls(connections, len(hosts), denied, allowed, bare, len(bare_hosts))


@dataclass(frozen=True, eq=False)
class Ground:
    """What one sandbox, or all of them, tried lately.

    Attributes:
        sandbox: The sandbox; None for all.
        places: What was tried.
        period: The time that this covers, as `7 days`.
        mode: The mode that applies to the sandbox, or that of all.
        shared: The mode of all sandboxes.
        own: The sandboxes with a mode of their own.
        rules: The rules of the scope itself.
    """

    sandbox: str | None
    places: Sequence[TriedPlace]
    period: str
    mode: str = ""
    shared: str = ""
    own: frozenset[str] = frozenset()
    rules: frozenset[RuleKey] = frozenset()
    by_host: Mapping[str, Sequence[TriedPlace]] = field(init=False, repr=False)
    addresses: Sequence[TriedPlace] = field(init=False, repr=False)
    follow: int = field(init=False)
    against: Mapping[str, int] = field(init=False, repr=False)
    everything: CoveredPlaces = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Sort the places once, so that a key need not go through all of them.

        `follow` is how many connections the sandboxes tried that have the mode of the scope, and `against` are those of them that
        the rules do not allow, by host. `everything` is what `*` covers.
        """
        by_host: dict[str, list[TriedPlace]] = {}
        follow, against = 0, Counter[str]()
        for place in self.places:
            by_host.setdefault(place.host, []).append(place)
            if self.sandbox is None and place.sandbox in self.own:
                continue
            follow += place.count
            if not place.allowed:
                against[place.host] += place.count
        object.__setattr__(self, "by_host", by_host)
        object.__setattr__(self, "addresses", [place for place in self.places if place.address is not None])
        object.__setattr__(self, "follow", follow)
        object.__setattr__(self, "against", dict(against.most_common()))
        object.__setattr__(self, "everything", CoveredPlaces.of(self.places_of(_EVERYTHING)))

    @property
    def scope(self) -> Scope:
        """The scope of the rules that a change is made to."""
        return "account" if self.sandbox is None else "sandbox"

    def covered(self, pattern: Pattern) -> CoveredPlaces:
        """Return what a pattern covers; of `*`, which covers the most, it is known already."""
        if (pattern.kind, pattern.ports) == (_EVERYTHING.kind, _EVERYTHING.ports):
            return self.everything
        return CoveredPlaces.of(self.places_of(pattern))

    def places_of(self, pattern: Pattern) -> Sequence[TriedPlace]:
        """Return the places that a pattern covers."""
        if pattern.kind == "any":
            found = self.places
        elif pattern.network is not None:
            network = pattern.network
            found = [place for place in self.addresses if place.address in network]
        elif pattern.kind == "below":
            end = f".{pattern.name}"
            found = [place for host, places in self.by_host.items() if host.endswith(end) for place in places]
        else:
            found = self.by_host.get(pattern.name, ())
        ports = pattern.ports
        return found if ports is None else [place for place in found if place.port in ports]


def places_of(events: Iterable[Event], rules: Mapping[str, Sequence[Rule]]) -> list[TriedPlace]:
    """Return what was tried in these events, each place with the rules that cover it.

    Args:
        events: The log. What no rule can change is left out: protocols that are always refused, limits, the floor; and what the agent only
            asked for.
        rules: The rules of each sandbox in the log, both scopes; of one that is missing there are none.
    """
    counts: dict[tuple[str, str, int], int] = {}
    for event in events:
        if event.host == "*" or event.protocol in ("udp", "icmp", REQUEST_PROTOCOL):
            continue
        # What mode warn let pass, mode deny would refuse by the rules, no matter what became of it afterwards.
        if event.cause not in RULED and event.verdict != "warn":
            continue
        place = (event.sandbox, event.host, event.port or HTTPS)
        counts[place] = counts.get(place, 0) + max(1, event.count)
    policies = {sandbox: Policy("deny", tuple(of)) for sandbox, of in rules.items()}
    none = Policy("deny")
    found: list[TriedPlace] = []
    for (sandbox, text, port), count in counts.items():
        try:
            host = canonical_host(text)
        except HostError:
            continue
        near = [
            rule for rule in policies.get(sandbox, none).rules_for(host) if rule.pattern.covers_port(port)
        ]
        denies, allows = (
            frozenset(RuleKey(rule.scope, rule.pattern.text) for rule in near if rule.list == which)
            for which in reversed(LISTS)
        )
        found.append(TriedPlace(sandbox, host.text, port, count, denies, allows, host.address))
    return found
