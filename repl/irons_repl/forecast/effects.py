"""What a change of rules does to what was tried, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from irons.text import clean
from irons_policy.modes import MODES
from irons_policy.patterns import PatternError, read_pattern
from irons_repl.forecast.forecast_line import Clause
from irons_repl.forecast.ground import CoveredPlaces, RuleKey

if TYPE_CHECKING:
    from irons_policy.patterns import Pattern
    from irons_repl.forecast.ground import Ground, TriedPlace
    from irons_repl.forecast.typed_change import TypedChange

LONGEST_NAME = 24
"""Letters of a sandbox's name that are shown."""

MOST_NAMES = 6
"""Hosts that are shown by name."""

_PLAIN, _GOOD, _BAD = "", "class:good", "class:bad"


def effects(change: TypedChange, ground: Ground) -> list[Clause]:
    """Return what a change would do; nothing where it is not typed far enough, or no change."""
    patterns = () if change.verb == "mode" else _patterns(change.words)
    if change.verb != "mode" and not patterns:
        return []
    if not ground.places:
        return [Clause(f"{_who(ground)} tried nothing in {ground.period}")]
    if change.verb == "mode":
        return _mode(change.words[0] if len(change.words) == 1 else "", ground)
    if change.verb == "remove":
        return _remove(patterns, ground)
    covered = _covered(patterns, ground)
    if not covered.hosts:
        return _covers(covered, ground)
    changed = frozenset(RuleKey(ground.scope, pattern.text) for pattern in patterns)
    what = _allow(covered, changed, ground) if change.verb == "allow" else _deny(covered, ground)
    return [*_covers(covered, ground), *what]


def _covers(covered: CoveredPlaces, ground: Ground) -> list[Clause]:
    whose = f"{clean(ground.sandbox, limit=LONGEST_NAME)}'s " if ground.sandbox else ""
    of = Clause(f"of {whose}{_number(len(ground.by_host), 'host')}", rank=2, joiner=" ")
    if not covered.hosts:
        return [Clause("covers none"), of, Clause(f"in {ground.period}", rank=3, joiner=" ")]
    connections = f"{_number(covered.connections, 'connection')} in {ground.period}"
    return [Clause(f"covers {covered.hosts:,}"), of, Clause(connections, rank=3)]


def _allow(covered: CoveredPlaces, changed: frozenset[RuleKey], ground: Ground) -> list[Clause]:
    # A pattern is in one list: an allow rule takes the place of the deny rule of its own pattern and scope.
    opened = [place for place in covered.denied if not place.denies - changed]
    kept = [place for place in covered.denied if place.denies - changed]
    clauses: list[Clause] = []
    if opened:
        clauses.append(Clause(f"opens {_hosts(opened)} that you denied", _BAD, joiner="; "))
    if covered.bare:
        what = (
            "that no rule allows"
            if ground.mode == "warn"
            else f"that mode {clean(ground.mode, limit=12)} refuses"
        )
        joiner = ", " if clauses else "; "
        clauses += [Clause(f"opens {covered.bare_hosts:,}", joiner=joiner), Clause(what, rank=1, joiner=" ")]
    if kept:
        by = clean(min(rule.pattern for place in kept for rule in place.denies - changed), limit=40)
        verb = "stays" if _hosts(kept) == "1" else "stay"
        clauses.append(Clause(f"{_hosts(kept)} {verb} denied by {by}", rank=1, joiner="; "))
    return clauses or [Clause("all of it is allowed already", rank=1, joiner="; ")]


def _deny(covered: CoveredPlaces, ground: Ground) -> list[Clause]:
    clauses: list[Clause] = []
    if covered.allowed:
        clauses.append(Clause(f"closes {_hosts(covered.allowed)} that rules allow", _BAD, joiner="; "))
    if ground.mode == "warn":
        clauses.append(Clause("mode warn blocks nothing yet", rank=1, joiner="; "))
    elif not clauses:
        clauses.append(Clause("all of it is refused already", rank=1, joiner="; "))
    return clauses


def _remove(patterns: Sequence[Pattern], ground: Ground) -> list[Clause]:
    changed = frozenset(RuleKey(ground.scope, pattern.text) for pattern in patterns)
    missing = sorted(changed - ground.rules)
    if missing:
        return [
            Clause(
                f"{_who(ground)} {'has' if ground.sandbox else 'have'} no rule {clean(missing[0].pattern, limit=60)}"
            )
        ]
    covered = _covered(patterns, ground)
    clauses = _covers(covered, ground)
    lost = [place for place in covered.allowed if not place.allows - changed]
    freed = [place for place in covered.denied if not place.denies - changed]
    opened = [place for place in freed if place.allows - changed]
    bare = [place for place in freed if not place.allows - changed]
    if lost:
        clauses.append(Clause(f"leaves {_hosts(lost)} without a rule", _BAD, joiner="; "))
    if opened:
        clauses.append(Clause(f"opens {_hosts(opened)} that you denied", _BAD, joiner="; "))
    if bare:
        clauses.append(Clause(f"leaves {_hosts(bare)} to the mode", joiner="; "))
    return clauses


def _mode(wanted: str, ground: Ground) -> list[Clause]:
    mode = ground.shared if wanted == "account" and ground.sandbox else wanted
    if mode not in MODES:
        return []
    if mode == ground.mode:
        clauses = [Clause(f"mode {mode} already")]
    elif mode == "warn":
        clauses = [Clause("blocks nothing", _BAD)]
    else:
        clauses = []
    tried = f"{_number(ground.follow, 'connection')} in {ground.period}"
    would = "refuses" if mode == ground.mode else "would have refused"
    if mode == "warn":
        would = "would pass without a rule"
    if not ground.against:
        none = f"none of {tried} {would}" if mode == "warn" else f"{would} none of {tried}"
        return [*clauses, Clause(none, _GOOD, joiner=": ")]
    count = sum(ground.against.values())
    of = f"{count:,} {would}" if mode == "warn" else f"{would} {count:,}"
    style = _PLAIN if mode == "warn" else _BAD
    in_all = Clause(f"in {ground.period}", rank=2, joiner=" ")
    return [*clauses, Clause(of, style, joiner=": "), in_all, *_names(ground.against)]


def _names(hosts: Mapping[str, int]) -> list[Clause]:
    """The hosts, the most tried first; as many as there is room for."""
    names = list(islice(hosts, MOST_NAMES))
    clauses = [
        Clause(clean(name, limit=40), rank=3 + at, joiner=", " if at else ": ")
        for at, name in enumerate(names)
    ]
    more = len(hosts) - len(names)
    return [*clauses, Clause(f"and {more:,} more", rank=3 + len(names), joiner=" ")] if more else clauses


def _patterns(words: Iterable[str]) -> list[Pattern]:
    """The words that are patterns; what is not typed to its end may be none yet."""
    found: list[Pattern] = []
    for word in words:
        try:
            found.append(read_pattern(word, mapped=word.isascii()))
        except PatternError:
            continue
    return found


def _covered(patterns: Sequence[Pattern], ground: Ground) -> CoveredPlaces:
    if len(patterns) == 1:
        return ground.covered(patterns[0])
    places = {id(place): place for pattern in patterns for place in ground.places_of(pattern)}
    return CoveredPlaces.of(places.values())


def _hosts(places: Iterable[TriedPlace]) -> str:
    return f"{len({place.host for place in places}):,}"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _who(ground: Ground) -> str:
    return clean(ground.sandbox, limit=LONGEST_NAME) if ground.sandbox else "all sandboxes"
