"""Handlers: egress export, diff, apply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from irons.command import Result
from irons.errors import ApiError
from irons_plugins.egress.impact import say_cut
from irons_plugins.egress.policy_file import PolicyFile, read_policy
from irons_plugins.egress.replacing import Replacement, body_of, replace
from irons_plugins.egress.rows import Drift, PolicyRow
from irons_plugins.egress.views import followed

if TYPE_CHECKING:
    from irons.client.models.egress import EgressRules, PolicyDiff
    from irons.context import Context
    from irons.scope import Scope
    from irons_policy.rules import Rule


def export(ctx: Context, *, scope: Scope) -> PolicyRow:
    """Return the active policy."""
    return _active(ctx, scope.sandbox)


def diff(ctx: Context, *, file: str, scope: Scope) -> Result:
    """Return how the active policy differs from the file's; the exit code is 1 where it does."""
    wanted = read_policy(file)
    found = tuple(differences(_active(ctx, scope.sandbox), wanted))
    return Result(found, exit=1 if found else 0)


def apply(ctx: Context, *, file: str, dry_run: bool, scope: Scope) -> Sequence[Drift]:
    """Make the file's policy active at once, and return what that changed."""
    wanted = read_policy(file)
    sandbox = scope.sandbox
    ctx.api.need("policy", "a server that takes a whole policy at once")

    def plan() -> Replacement:
        found = ctx.api.rules(sandbox)
        changes = tuple(differences(_policy_of(ctx, found, sandbox), wanted))
        return Replacement(changes, body_of(found, wanted.rules, wanted.mode))

    def agree(_: Replacement, forecast: PolicyDiff) -> bool:
        say_cut(ctx, forecast.cut)
        return not dry_run

    done = replace(ctx, sandbox, plan, agree, asks=False)
    if not done.changes:
        ctx.progress(f"the active policy of {scope.who} is the file's already")
    elif dry_run:
        ctx.progress(f"nothing was changed for {scope.who}: this was a dry run")
    else:
        ctx.progress(f"applied to {scope.who}{followed(done.followers)}")
    return done.changes


def _active(ctx: Context, sandbox: str | None) -> PolicyRow:
    return _policy_of(ctx, ctx.api.rules(sandbox), sandbox)


def _policy_of(ctx: Context, found: EgressRules, sandbox: str | None) -> PolicyRow:
    # Asked after the rules: their revision covers the mode, so that one which changes in between is noticed.
    found_mode = ctx.api.mode(sandbox)
    own = sandbox is None or found_mode.source == "sandbox"
    return PolicyRow(found_mode.mode or None if own else None, tuple(rules_of(found)))


def rules_of(found: EgressRules) -> Iterator[Rule]:
    """Return the rules that a server has, allow list first.

    Raises:
        ApiError: One of them is not a rule that this version of irons knows.
    """
    from irons_policy.rules import Rule, RuleError

    for listed in found.rules:
        try:
            yield Rule.from_json(listed._asdict())
        except RuleError as error:
            raise ApiError(f"the server has a rule that irons cannot read: {error}") from None


def differences(now: PolicyRow, wanted: PolicyFile | PolicyRow) -> Iterator[Drift]:
    """Return what turns the active policy into the wanted one, removals last; a wanted policy without a mode leaves the mode."""
    from irons_policy.rules import diff_rules

    if wanted.mode is not None and wanted.mode != now.mode:
        yield Drift("mode", "", wanted.mode, before=now.mode or "")
    for change in diff_rules(now.rules, wanted.rules):
        rule, old = change.rule, change.before
        before = "" if change.kind != "changed" or old is None else _told_apart(old, rule)
        yield Drift(change.kind, rule.list, rule.pattern.text, rule.pins, rule.note, before)


def _told_apart(old: Rule, new: Rule) -> str:
    told: list[str] = []
    if old.list != new.list:
        told.append(old.list)
    if old.private != new.private:
        told.append(f"--private {','.join(old.pins)}" if old.private else "no --private")
    if old.broad != new.broad:
        told.append("--broad" if old.broad else "no --broad")
    if old.note != new.note:
        told.append(f"noted {old.note!r}" if old.note else "without a note")
    return ", ".join(told)
