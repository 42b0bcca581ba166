"""Handlers: egress suggest, lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import TYPE_CHECKING

from irons.errors import IronsError, NotFound
from irons.text import clean
from irons_plugins.egress.impact import say_cut
from irons_plugins.egress.patterns import checked, spelled
from irons_plugins.egress.policy_file import PolicyFile
from irons_plugins.egress.policy_handlers import differences, rules_of
from irons_plugins.egress.replacing import Replacement, body_of, replace
from irons_plugins.egress.rows import Drift, PolicyRow, Suggestion
from irons_plugins.egress.suggestions import suggestions
from irons_plugins.egress.views import drift, followed

if TYPE_CHECKING:
    from irons.client.models.egress import EgressRules, PolicyDiff
    from irons.context import Context
    from irons.settings.scope import Scope
    from irons_policy.rules import Rule


def suggest(ctx: Context, *, scope: Scope) -> Sequence[Suggestion]:
    """Return the hosts that the scope's sandboxes tried and that no rule covers."""
    return [row._replace(note=_note(ctx, row)) for row in _suggested(ctx, scope.sandbox)]


def _note(ctx: Context, row: Suggestion) -> str:
    """What plugins say of a suggestion."""
    answers = ctx.host.answers("irons_rule", ctx.settings, pattern=row.pattern, events=row.hits)
    return "; ".join(clean(str(answer), limit=100) for _, answer in answers)


def lock(
    ctx: Context, *, scope: Scope, also: tuple[str, ...], skip: tuple[str, ...], yes: bool
) -> Sequence[Drift]:
    """Allow the scope what it has tried, set its mode to deny, and return what that changed, unless a person was shown it and asked.

    Raises:
        UsageError: A pattern that is not one, or no one there to ask.
        IronsError: The answer to the question was no.
        Conflict: Someone else changed the rules after the answer was yes.
    """
    extra = [checked(pattern, "allow").pattern.text for pattern in also]
    left_out = {spelled(pattern) for pattern in skip}
    ctx.api.need("policy", "a server that keeps rules and a mode for each sandbox")
    name = scope.sandbox
    found = _suggested(ctx, name)
    wanted = {row.pattern for row in found if not row.marks} - left_out | set(extra)
    for line in _passed_over(found, wanted):
        ctx.progress(line)

    def agree(made: Replacement, forecast: PolicyDiff) -> bool:
        if not yes:
            for change in made.changes:
                ctx.progress(drift(change))
        say_cut(ctx, forecast.cut)
        if not yes and not ctx.confirm(f"Apply this policy to {scope.who}?", otherwise="--yes does not ask"):
            raise IronsError("nothing was changed")
        return True

    done = replace(ctx, name, lambda: _locked(ctx, name, wanted), agree, asks=not yes)
    verb = "is" if name is not None else "are"
    if done.changes:
        ctx.progress(
            f"{scope.who} {verb} locked{followed(done.followers)}: what no rule allows is blocked from now on"
        )
    else:
        ctx.progress(f"{scope.who} {verb} locked already")
    if name is None:
        _say_open(ctx)
    # A person has read the difference with the question.
    asked = not yes and ctx.streams.stdout_is_tty and ctx.settings["output"] in (None, "table", "plain")
    return () if asked else done.changes


def _say_open(ctx: Context) -> None:
    """Name the sandboxes that a lock of all leaves open, because each has a mode of its own."""
    differs = ctx.api.mode().differs
    if differs:
        names = ", ".join(sorted(differs)[:_MOST_NAMED])
        more = f" and {len(differs) - _MOST_NAMED} more" if len(differs) > _MOST_NAMED else ""
        ctx.progress(f"not locked, with a mode of their own: {names}{more}")


def _locked(ctx: Context, name: str | None, wanted: AbstractSet[str]) -> Replacement:
    """The active policy with these patterns allowed too, in mode deny."""
    from irons_policy.patterns import read_pattern
    from irons_policy.rules import Rule

    now, mode = ctx.api.rules(name), ctx.api.mode(name)
    rules = tuple(rules_of(now))
    # A rule that ends by itself stays as it is, unless its pattern is to be allowed for good.
    there = {rule.pattern.text for rule in rules if rule.until is None or rule.pattern.text not in wanted}
    new = (
        *(rule for rule in rules if rule.pattern.text in there),
        *(Rule(read_pattern(pattern), "allow") for pattern in sorted(wanted - there)),
    )
    own = mode.mode if name is None or mode.source == "sandbox" else None
    changes = differences(PolicyRow(own, rules), PolicyFile("deny", new), "" if own else mode.mode)
    return Replacement(tuple(changes), body_of(now, new, "deny"))


def _suggested(ctx: Context, name: str | None) -> list[Suggestion]:
    shared = _readable(ctx.api.rules(), "account")
    own: dict[str, tuple[Rule, ...]] = {}

    def rules(sandbox: str) -> tuple[Rule, ...]:
        """The rules that a sandbox has; one that is gone has those of all sandboxes."""
        if sandbox not in own:
            try:
                own[sandbox] = (*shared, *_readable(ctx.api.rules(sandbox), "sandbox"))
            except NotFound:
                if name is not None:
                    raise
                own[sandbox] = shared
        return own[sandbox]

    if name is not None:
        rules(name)
    return suggestions(ctx.api.events(name), rules if name is None else lambda _: rules(name))


def _readable(found: EgressRules, scope: str) -> tuple[Rule, ...]:
    """Return the rules of a scope; one that this version cannot read covers nothing that it could suggest."""
    from irons_policy.rules import Rule, RuleError

    rules: list[Rule] = []
    for listed in found.rules:
        with suppress(RuleError):
            rules.append(Rule.from_json({**listed._asdict(), "scope": scope}))
    return tuple(rules)


_MOST_NAMED = 5

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
