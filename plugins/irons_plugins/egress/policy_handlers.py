"""Handlers: egress export, diff, apply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from irons.client.models import text_of, texts_of
from irons.command import Result
from irons_plugins.egress.impact import cut_of, say_cut
from irons_plugins.egress.policy_file import Policy, PolicyRule, read_policy
from irons_plugins.egress.replacing import Replacement, body_of, replace
from irons_plugins.egress.rows import Drift, PolicyRow

if TYPE_CHECKING:
    from irons.client.api import EgressRules
    from irons.context import Context


def export(ctx: Context, *, sandbox: str | None) -> PolicyRow:
    """Return the policy in force."""
    return _in_force(ctx, sandbox)


def diff(ctx: Context, *, file: str, sandbox: str | None) -> Result:
    """Return how the policy in force differs from the file's; the exit code is 1 where it does."""
    wanted = read_policy(file)
    found = tuple(differences(_in_force(ctx, sandbox), wanted))
    return Result(found, exit=1 if found else 0)


def apply(ctx: Context, *, file: str, dry_run: bool, sandbox: str | None) -> Sequence[Drift]:
    """Put the file's policy in force at once, and return what that changed."""
    wanted = read_policy(file)
    ctx.api.need("policy", "a server that takes a whole policy at once")

    def plan() -> Replacement:
        found = ctx.api.rules(sandbox)
        changes = tuple(differences(_policy_of(ctx, found, sandbox), wanted))
        return Replacement(changes, body_of(found, [rule.to_body() for rule in wanted.rules], wanted.mode))

    def agree(_: Replacement, forecast: Mapping[str, Any]) -> bool:
        say_cut(ctx, cut_of(forecast))
        return not dry_run

    done = replace(ctx, sandbox, plan, agree, asks=False)
    if not done.changes:
        ctx.progress("the active policy is the file's already")
    elif dry_run:
        ctx.progress("nothing was changed: this was a dry run")
    return done.changes


def _in_force(ctx: Context, sandbox: str | None) -> PolicyRow:
    return _policy_of(ctx, ctx.api.rules(sandbox), sandbox)


def _policy_of(ctx: Context, found: EgressRules, sandbox: str | None) -> PolicyRow:
    # Asked after the rules: their revision covers the mode, so that one which changes in between is noticed.
    told = ctx.api.mode(sandbox)
    own = sandbox is None or told.get("source") == "sandbox"
    return PolicyRow(text_of(told.get("mode")) or None if own else None, tuple(rules_of(found)))


def rules_of(found: EgressRules) -> Iterator[PolicyRule]:
    """Return the rules that a server told, allow list first."""
    known = {(text_of(rule.get("list")), text_of(rule.get("pattern"))): rule for rule in found.rules}
    for kind, patterns in (("allow", found.allowed), ("deny", found.denied)):
        for pattern in patterns:
            yield _rule(pattern, "allow" if kind == "allow" else "deny", known.get((kind, pattern), {}))


def _rule(pattern: str, kind: Literal["allow", "deny"], told: Mapping[str, Any]) -> PolicyRule:
    private, note = texts_of(told.get("private")), text_of(told.get("note"))
    return PolicyRule(pattern, kind, private, note, told.get("broad") is True)


def differences(now: PolicyRow, wanted: Policy | PolicyRow) -> Iterator[Drift]:
    """Return what turns the policy in force into the wanted one, removals last; a wanted policy without a mode leaves the mode."""
    if wanted.mode is not None and wanted.mode != now.mode:
        yield Drift("mode", "", wanted.mode, before=now.mode or "")
    before = {rule.pattern: rule for rule in now.rules}
    after = {rule.pattern: rule for rule in wanted.rules}
    for pattern, rule in after.items():
        old = before.get(pattern)
        if old is None:
            yield Drift("added", rule.list, pattern, rule.private, rule.note)
        elif _plain(old) != _plain(rule):
            yield Drift("changed", rule.list, pattern, rule.private, rule.note, _told_apart(old, rule))
    for pattern, rule in before.items():
        if pattern not in after:
            yield Drift("removed", rule.list, pattern, rule.private, rule.note)


def _plain(rule: PolicyRule) -> tuple[object, ...]:
    return rule.list, sorted(rule.private), rule.note


def _told_apart(old: PolicyRule, new: PolicyRule) -> str:
    told: list[str] = []
    if old.list != new.list:
        told.append(old.list)
    if sorted(old.private) != sorted(new.private):
        told.append(f"--private {','.join(old.private)}" if old.private else "no --private")
    if old.note != new.note:
        told.append(f"noted {old.note!r}" if old.note else "without a note")
    return ", ".join(told)
