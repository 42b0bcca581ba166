"""What rules would cover what a sandbox has tried: pure, from its events and its rules."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

from irons_plugins.egress.rows import Suggestion
from irons_policy.patterns import HTTPS, narrowest

if TYPE_CHECKING:
    from irons_policy.event import Event
    from irons_policy.rules import Rule

_TCP = ("", "tcp", "http", "tls")
_VOWELS = frozenset("aeiouy")


@dataclass
class _Seen:
    hits: int = 0
    first: datetime | None = None
    last: datetime | None = None
    ports: set[int] = field(default_factory=set)
    reached: bool = False

    def add(self, event: Event, port: int) -> None:
        self.hits += max(1, event.count)
        self.ports.add(port)
        # What was refused was never tried, and what has no outcome may have been reached.
        self.reached = self.reached or event.outcome not in ("unreached", "abandoned")
        if event.time is not None:
            self.first = min(self.first or event.time, event.time)
            self.last = max(self.last or event.time, event.time)


def suggestions(events: Iterable[Event], rules: Callable[[str], Sequence[Rule]]) -> list[Suggestion]:
    """Return patterns for hosts that no rule covers, the most tried first.

    Args:
        events: The audit log of one sandbox, or of all. What is not a TCP connection, names that were not resolved, and hosts
            that no rule can name, are left out.
        rules: Returns all rules that a sandbox has; called once a sandbox.
    """
    from irons_policy.decide import decide
    from irons_policy.hostnames import HostError, canonical_host
    from irons_policy.patterns import PatternError, read_pattern
    from irons_policy.policy import Policy

    @cache
    def policy_of(sandbox: str) -> Policy:
        return Policy("deny", tuple(rules(sandbox)))

    @cache
    def wanted(text: str, port: int, sandbox: str) -> str | None:
        """The pattern that would cover it; None where a rule does, or none can."""
        try:
            host = canonical_host(text)
            pattern = read_pattern(narrowest(host.text, port)).text
        except (HostError, PatternError):
            return None
        return pattern if decide(policy_of(sandbox), host, port).rule is None else None

    seen: dict[str, _Seen] = {}
    for event in events:
        if event.protocol not in _TCP or "unresolved" in (event.outcome, event.cause):
            continue
        port = event.port or HTTPS
        pattern = wanted(event.host, port, event.sandbox)
        if pattern is not None:
            seen.setdefault(pattern, _Seen()).add(event, port)
    found = [
        Suggestion(
            pattern, one.hits, one.first, one.last, tuple(sorted(one.ports)), tuple(_marks(pattern, one))
        )
        for pattern, one in seen.items()
    ]
    return sorted(found, key=lambda each: (-each.hits, each.pattern))


def looks_random(label: str) -> bool:
    """Tell whether a label of a name looks as if a program, not a person, had made it: data can leave in such names."""
    if len(label) >= 32:
        return True
    if len(label) < 10:
        return False
    letters = re.sub(r"[^a-z]", "", label)
    digits = sum(character.isdigit() for character in label)
    if digits >= 3 and letters and digits / len(label) >= 0.2 and "-" not in label:
        return True
    if len(letters) >= 12 and sum(letter in _VOWELS for letter in letters) / len(letters) < 0.17:
        return True
    return len(label) >= 16 and digits >= 2 and _entropy(label) > 3.7


def _entropy(text: str) -> float:
    """Bits of each character (Shannon)."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def _marks(pattern: str, seen: _Seen) -> Iterator[str]:
    if seen.hits == 1:
        yield "once"
    if not seen.reached:
        yield "unreached"
    from irons_policy.patterns import read_pattern

    host = read_pattern(pattern)
    if host.kind == "network":
        yield "address"
    elif any(map(looks_random, host.name.split("."))):
        yield "random"
