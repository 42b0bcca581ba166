"""Asks for what forecasts are made of: the log of the last days, the rules and the modes of one scope."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from irons.errors import IronsError, NotFound, Unsupported
from irons.text import rfc3339
from irons_policy.patterns import read_pattern
from irons_repl.forecast.ground import Ground, RuleKey, places_of
from irons_repl.forecast.listed_rules import rules_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irons.client.api import Api
    from irons_policy.event import Event
    from irons_policy.rules import Rule

DAYS: Final = 7
"""Days of the log that forecasts are made of."""

LATEST: Final = 5000
"""Events at most, the latest."""

OWN_RULES: Final = 32
"""Sandboxes whose own rules are asked for where all are meant: those that tried most."""


def ground_of(api: Api, sandbox: str | None) -> Ground | None:
    """Return what a scope is judged on; None where the server has no log with times, or no such sandbox.

    Raises:
        IronsError: The server did not answer.
    """
    if not {"audit-filters", "rules"} <= api.extensions:
        return None
    # The tables for names that are not ASCII are read here, not when a key is waited for.
    read_pattern("ü.example")
    since = datetime.now(UTC) - timedelta(days=DAYS)
    try:
        page = api.audit(sandbox, since=rfc3339(since), limit=LATEST)
        every = api.rules()
        modes = api.mode()
        own = api.rules(sandbox) if sandbox else None
        mode = api.mode(sandbox).mode if sandbox else modes.mode
    except (NotFound, Unsupported):
        return None
    account = rules_of(every, "account")
    rules: dict[str, Sequence[Rule]] = {}
    for name in _busiest(page.events):
        rules[name] = account
    if own is not None:
        mine = rules_of(own, "sandbox")
        rules = dict.fromkeys(rules, (*account, *mine))
    else:
        for name in list(rules)[:OWN_RULES]:
            rules[name] = (*account, *_own(api, name))
        mine = account
    return Ground(
        sandbox,
        places_of(page.events, rules),
        _period(page.events if page.left_out else (), since),
        mode,
        modes.mode,
        frozenset(modes.differs),
        frozenset(RuleKey(rule.scope, rule.pattern.text) for rule in mine),
    )


def _own(api: Api, sandbox: str) -> Sequence[Rule]:
    """Return a sandbox's own rules; none of one that was destroyed since."""
    try:
        return rules_of(api.rules(sandbox), "sandbox")
    except IronsError:
        return ()


def _busiest(events: Sequence[Event]) -> list[str]:
    counts: dict[str, int] = {}
    for event in events:
        counts[event.sandbox] = counts.get(event.sandbox, 0) + 1
    return sorted(counts, key=lambda name: -counts[name])


def _period(latest: Sequence[Event], since: datetime) -> str:
    """Return the time that was looked at: all days, or, of a long log, what its latest events cover."""
    begun = next((event.time for event in latest if event.time is not None), since)
    hours = (datetime.now(UTC) - begun).total_seconds() / 3600
    if hours >= 36:
        return f"{round(hours / 24)} days"
    return f"{round(hours)} hours" if hours >= 1.5 else f"{max(1, round(hours * 60))} min"
