"""Handlers: egress suggest, lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import TYPE_CHECKING

from irons.errors import IronsError
from irons_plugins.egress.impact import say_cut
from irons_plugins.egress.patterns import checked, spelled
from irons_plugins.egress.policy_file import PolicyFile
from irons_plugins.egress.policy_handlers import differences, rules_of
from irons_plugins.egress.replacing import Replacement, body_of, replace
from irons_plugins.egress.rows import Drift, PolicyRow, Suggestion
from irons_plugins.egress.suggestions import suggestions
from irons_plugins.egress.views import drift

if TYPE_CHECKING:
    from irons.client.models.egress import PolicyDiff
    from irons.context import Context


def suggest(ctx: Context, *, name: str) -> Sequence[Suggestion]:
    """Return the hosts that the sandbox tried and that no rule covers."""
    return _suggested(ctx, name)


def lock(
    ctx: Context, *, name: str, also: tuple[str, ...], skip: tuple[str, ...], yes: bool
) -> Sequence[Drift]:
    """Allow the sandbox what it has tried, set its mode to deny, and return what that changed.

    Raises:
        UsageError: A pattern that is not one, or no one there to ask.
        IronsError: The answer to the question was no.
        Conflict: Someone else changed the rules after the answer was yes.
    """
    extra = [checked(pattern, "allow").pattern.text for pattern in also]
    left_out = {spelled(pattern) for pattern in skip}
    ctx.api.need("policy", "a server that keeps rules and a mode for each sandbox")
    found = _suggested(ctx, name)
    wanted = {row.pattern for row in found if not row.marks} - left_out | set(extra)
    for line in _passed_over(found, wanted):
        ctx.progress(line)

    def agree(made: Replacement, forecast: PolicyDiff) -> bool:
        if not yes:
            for change in made.changes:
                ctx.progress(drift(change))
        say_cut(ctx, forecast.cut)
        if not yes and not ctx.confirm(f"Lock {name} so?", otherwise="--yes does not ask"):
            raise IronsError("nothing was changed")
        return True

    changes = replace(ctx, name, lambda: _locked(ctx, name, wanted), agree, asks=not yes).changes
    ctx.progress(
        f"{name} is locked: what no rule allows is blocked from now on"
        if changes
        else f"{name} is locked already"
    )
    return changes


def _locked(ctx: Context, name: str, wanted: AbstractSet[str]) -> Replacement:
    """The active policy with these patterns allowed too, in mode deny."""
    from irons_policy.patterns import read_pattern
    from irons_policy.rules import Rule

    now, mode = ctx.api.rules(name), ctx.api.mode(name)
    rules = tuple(rules_of(now))
    there = {rule.pattern.text for rule in rules}
    new = (*rules, *(Rule(read_pattern(pattern), "allow") for pattern in sorted(wanted - there)))
    own = mode.mode if mode.source == "sandbox" else None
    changes = differences(PolicyRow(own, rules), PolicyFile("deny", new))
    return Replacement(tuple(changes), body_of(now, new, "deny"))


def _suggested(ctx: Context, name: str) -> list[Suggestion]:
    from irons_policy.rules import Rule, RuleError

    rules: list[Rule] = []
    for scope, found in (("account", ctx.api.rules()), ("sandbox", ctx.api.rules(name))):
        for listed in found.rules:
            # A rule that this version cannot read covers nothing that it could suggest.
            with suppress(RuleError):
                rules.append(Rule.from_json({**listed._asdict(), "scope": scope}))
    return suggestions(ctx.api.events(name), rules)


_WHY = {
    "once": "tried once",
    "unreached": "never reached",
    "random": "looks random",
    "address": "a bare address",
}


def _passed_over(found: Sequence[Suggestion], wanted: set[str]) -> Iterator[str]:
    for row in found:
        if row.pattern not in wanted:
            why = ", ".join(_WHY[mark] for mark in row.marks) or "skipped"
            yield f"left out: {row.pattern} ({why}); --also {row.pattern} takes it"
