"""Handlers: egress export, diff, apply."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from irons.command import Result
from irons.errors import ApiError, UsageError
from irons_plugins.egress.impact import say_cut
from irons_plugins.egress.policy_file import PolicyFile, read_policy
from irons_plugins.egress.replacing import Replacement, body_of, replace
from irons_plugins.egress.rows import Drift, PolicyRow
from irons_plugins.egress.views import followed

if TYPE_CHECKING:
    from irons.client.models.egress import EgressRules, PolicyDiff
    from irons.context import Context
    from irons.settings.scope import Scope
    from irons_policy.rules import Rule


def export(ctx: Context, *, temporary: bool, scope: Scope) -> PolicyRow:
    """Return the active policy, with the rules that end by themselves only where asked."""
    found = _active(ctx, scope.sandbox)
    return found if temporary else found._replace(rules=tuple(_lasting(found.rules)))


def diff(ctx: Context, *, file: str, scope: Scope) -> Result:
    """Return how the active policy differs from the file's; the exit code is 1 where it does."""
    wanted = _read(file, scope)
    now = _active(ctx, scope.sandbox)
    found = tuple(differences(now._replace(rules=tuple(_lasting(now.rules, wanted.rules))), wanted))
    return Result(found, exit=1 if found else 0)


def apply(ctx: Context, *, file: str, dry_run: bool, scope: Scope) -> Sequence[Drift]:
    """Make the file's policy active at once, and return what that changed."""
    wanted = _read(file, scope)
    sandbox = scope.sandbox
    ctx.api.need("policy", "a server that takes a whole policy at once")
    if wanted.never is not None:
        ctx.api.need("policy-never", "a server whose policies say what no person is asked about")

    def plan() -> Replacement:
        found = ctx.api.rules(sandbox)
        now, inherited = _policy_of(ctx, found, sandbox)
        known = tuple(_lasting(now.rules, wanted.rules))
        changes = tuple(differences(now._replace(rules=known), wanted, inherited))
        # A rule that ends by itself stays: it is not a difference from the file.
        kept = (rule for rule in now.rules if rule not in known)
        return Replacement(changes, body_of(found, (*wanted.rules, *kept), wanted.mode, wanted.never))

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


def _read(file: str, scope: Scope) -> PolicyFile:
    """Read a policy file whose rules can be those of this scope.

    Raises:
        UsageError: A rule ends with a sandbox that is not named, or has ended: the file may be of another day.
    """
    wanted = read_policy(file)
    now = round(time.time() * 1_000_000)
    for rule in wanted.rules:
        if rule.until is None:
            continue
        if rule.until.at is None and scope.sandbox is None:
            why = "a rule until stop is for one sandbox, not for all"
        elif rule.until.at is not None and rule.until.at <= now:
            why = f"until {rule.until.text}: that is over"
        else:
            continue
        raise UsageError(f"{file}: {rule.pattern.text!r}: {why}", hint="nothing was changed")
    return wanted


def _lasting(rules: Iterable[Rule], wanted: Iterable[Rule] = ()) -> Iterator[Rule]:
    """Return the rules that stay, and of those that end by themselves the ones whose pattern is wanted, too."""
    named = {rule.pattern.text for rule in wanted}
    return (rule for rule in rules if rule.until is None or rule.pattern.text in named)


def _active(ctx: Context, sandbox: str | None) -> PolicyRow:
    return _policy_of(ctx, ctx.api.rules(sandbox), sandbox)[0]


def _policy_of(ctx: Context, found: EgressRules, sandbox: str | None) -> tuple[PolicyRow, str]:
    """Return the active policy, and the mode that a sandbox without one of its own has from all sandboxes."""
    # Asked after the rules: their revision covers the mode, so that one which changes in between is noticed.
    found_mode = ctx.api.mode(sandbox)
    own = sandbox is None or found_mode.source == "sandbox"
    mode = found_mode.mode or None
    return PolicyRow(mode if own else None, tuple(rules_of(found)), found.never), "" if own else mode or ""


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


def differences(now: PolicyRow, wanted: PolicyFile | PolicyRow, inherited: str = "") -> Iterator[Drift]:
    """Return what turns the active policy into the wanted one, removals last; a wanted policy without a mode leaves the mode.

    Args:
        now: The active policy.
        wanted: The other one.
        inherited: The mode of all sandboxes where the active policy has none of its own.
    """
    from irons_policy.rules import diff_rules

    if wanted.mode is not None and wanted.mode != now.mode:
        yield Drift("mode", "", wanted.mode, before=now.mode or "", inherited=inherited)
    for change in diff_rules(now.rules, wanted.rules):
        rule, old = change.rule, change.before
        before = "" if change.kind != "changed" or old is None else _told_apart(old, rule)
        yield Drift(
            change.kind, rule.list, rule.pattern.text, rule.pins, rule.note, before, until=_until(rule)
        )
    if wanted.never is not None:
        was, will = {*(now.never or ())}, {*wanted.never}
        yield from (Drift("added", "never", each) for each in sorted(will - was))
        yield from (Drift("removed", "never", each) for each in sorted(was - will))


def _until(rule: Rule) -> str:
    return "" if rule.until is None else rule.until.text


def _told_apart(old: Rule, new: Rule) -> str:
    told: list[str] = []
    if old.list != new.list:
        told.append(old.list)
    if old.private != new.private:
        told.append(f"--private {','.join(old.pins)}" if old.private else "no --private")
    if old.broad != new.broad:
        told.append("--broad" if old.broad else "no --broad")
    if old.until != new.until:
        told.append("without an end" if old.until is None else f"until {old.until.text}")
    if old.note != new.note:
        told.append(f"noted {old.note!r}" if old.note else "without a note")
    return ", ".join(told)
