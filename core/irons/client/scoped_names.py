"""Rules and keys on hand for completion: entries that belong to one sandbox, or to all of them.

They are kept in caches like names, each entry as `SANDBOX WORD`, with an empty sandbox for all.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from irons.client.names import NameCache
from irons.terminal.words import LISTS

if TYPE_CHECKING:
    from irons.client.models.egress import ListedRule, RuleChanged
    from irons.client.models.sandboxes import AuthorizedKey
    from irons.client.models.server import ApiKey
    from irons.settings.settings import Settings

RULES, KEYS, RULE_ENDS = "rules", "keys", "rule-ends"

STOP = "stop"
"""What is kept of a rule that ends when its sandbox stops; of others the time, in seconds since 1970."""

_STEP = 10


def in_scope(entries: Mapping[str, str], scope: str) -> dict[str, str]:
    """Return those entries of a cache that belong to a sandbox, or with an empty `scope` to all."""
    begin = f"{scope} "
    return {entry[len(begin) :]: about for entry, about in entries.items() if entry.startswith(begin)}


def keep_rules(settings: Settings, sandbox: str | None, rules: Iterable[ListedRule]) -> None:
    """Keep the rules of a sandbox, or with None those of all."""
    known = tuple(rules)
    listed = {rule.pattern: LISTS.get(rule.list, rule.list) for rule in known}
    _replace(settings, RULES, sandbox or "", listed)
    ends = {rule.pattern: end for rule in known if (end := _end(rule))}
    _replace(settings, RULE_ENDS, sandbox or "", ends)


def _end(rule: ListedRule) -> str:
    """Return when a rule ends, as it is kept; nothing where it stays."""
    from irons.client.models.fields import time_of

    if not rule.until or rule.until == STOP:
        return rule.until or ""
    if rule.left is not None:
        # By the server's clocks; in steps, for the next answer says the same.
        return str(round((time.time() + rule.left) / _STEP) * _STEP)
    at = time_of(rule.until)
    return "" if at is None else str(round(at.timestamp()))


def ends_on_hand(settings: Settings, sandbox: str) -> list[str]:
    """Return when rules of a sandbox end, as `keep_rules` kept it: `STOP`, or seconds since 1970."""
    return list(in_scope(NameCache.of(settings, what=RULE_ENDS).read(), sandbox).values())


def keep_changes(settings: Settings, sandbox: str | None, kind: str, rules: Iterable[RuleChanged]) -> None:
    """Keep what a change made of the rules of a sandbox, or with None of all; every `kind` but `allow` and `deny` took them away."""
    scope = sandbox or ""
    found = in_scope(NameCache.of(settings, what=RULES).read(), scope)
    found |= {rule.pattern: LISTS.get(kind, "") for rule in rules}
    _replace(settings, RULES, scope, {pattern: about for pattern, about in found.items() if about})


def keep_access(settings: Settings, sandbox: str, keys: Iterable[AuthorizedKey]) -> None:
    """Keep the public keys that open a sandbox, by their ids."""
    _replace(settings, KEYS, sandbox, {key.id: key.comment or key.fingerprint for key in keys})


def keep_api_keys(settings: Settings, keys: Iterable[ApiKey]) -> None:
    """Keep the API keys, by their labels, or by their ids where two have the same."""
    known = tuple(keys)
    labels = Counter(key.label for key in known)
    named = {key.label if labels[key.label] == 1 and key.label else key.id: key for key in known}
    _replace(
        settings,
        KEYS,
        "",
        {word: key.id if word == key.label else key.label for word, key in named.items()},
    )


def _replace(settings: Settings, what: str, scope: str, found: Mapping[str, str]) -> None:
    """Write all entries of one scope again; what can't be typed is left out."""
    cache = NameCache.of(settings, what=what)
    before = cache.read()
    now = {entry: about for entry, about in before.items() if not entry.startswith(f"{scope} ")}
    if _typable(scope):
        now |= {f"{scope} {word}": about for word, about in found.items() if word and _typable(word)}
    if now != before:
        cache.replace(now)
    else:
        cache.touch()


def _typable(word: str) -> bool:
    return word.isprintable() and " " not in word
