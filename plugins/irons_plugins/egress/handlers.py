"""Handlers: egress allow, deny, remove, list, mode, check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from irons.command import Result
from irons.errors import ApiError, Denied, Unreachable, UsageError
from irons_plugins.egress.impact import forecasts, say_cut
from irons_plugins.egress.patterns import checked, spelled
from irons_plugins.egress.rows import Change

if TYPE_CHECKING:
    from irons.client.models.egress import ListedRule, ModeInfo
    from irons.context import Context
    from irons_policy.rules import Rule


def allow(
    ctx: Context,
    *,
    domains: tuple[str, ...],
    sandbox: str | None,
    private: tuple[str, ...],
    broad: bool,
    note: str | None,
) -> Iterator[Change]:
    """Allow domains at once, each checked before they are sent."""
    rules = [checked(domain, "allow", private=private, broad=broad, note=note or "") for domain in domains]
    if private:
        ctx.api.need("rules", "a server that keeps private addresses with a rule")
    return _changes(ctx, "allow", _covered(rules), sandbox, _Given.of(rules[0]))


def deny(
    ctx: Context, *, domains: tuple[str, ...], sandbox: str | None, broad: bool, note: str | None
) -> Iterator[Change]:
    """Deny domains at once, each checked before they are sent; say so where nothing is blocked yet."""
    rules = [checked(domain, "deny", broad=broad, note=note or "") for domain in domains]
    return _changes(ctx, "deny", _covered(rules), sandbox, _Given.of(rules[0]))


def remove(ctx: Context, *, patterns: tuple[str, ...], sandbox: str | None) -> Iterator[Change]:
    """Remove rules at once."""
    names = dict.fromkeys((spelled(pattern) for pattern in patterns), "")
    return _changes(ctx, "remove", names, sandbox, _Given())


class _Given(NamedTuple):
    """What all rules of a command have."""

    private: tuple[str, ...] = ()
    note: str = ""
    broad: bool = False

    @classmethod
    def of(cls, rule: Rule) -> _Given:
        """Take it of any of them."""
        return cls(rule.pins, rule.note, rule.broad)


def _covered(rules: Sequence[Rule]) -> dict[str, str]:
    from irons_policy.patterns import covers

    return {rule.pattern.text: covers(rule.pattern) for rule in rules}


def _changes(
    ctx: Context,
    kind: Literal["allow", "deny", "remove"],
    patterns: Mapping[str, str],
    sandbox: str | None,
    given: _Given,
) -> Iterator[Change]:
    """Change rules, in one request where the server can, and say before what that cuts; `patterns` to what they cover."""
    change = partial(
        ctx.api.change_rules,
        kind,
        sandbox=sandbox,
        private=given.private,
        note=given.note,
        broad=given.broad,
    )
    asked: list[list[str]] = [[pattern] for pattern in patterns]
    # A single allow needs nothing that a plain v0 server lacks, so the server is not asked what it can.
    if (kind != "allow" or len(patterns) > 1) and forecasts(ctx):
        asked = [list(patterns)]
        if kind != "allow":
            say_cut(ctx, change(asked[0], dry_run=True).cut)
    mode = ""
    for each in asked:
        done = change(each)
        mode = done.mode or mode
        for number, rule in enumerate(done.rules, 1):
            yield Change(
                rule.pattern,
                "" if kind == "remove" else kind,
                "" if kind == "remove" else rule.covers or patterns.get(rule.pattern, ""),
                rule.changed,
                done.cut if number == len(done.rules) else 0,
                sandbox,
            )
    if kind == "deny" and (mode or ctx.api.mode(sandbox).mode) == "warn":
        ctx.progress("mode is warn: nothing is blocked yet, only logged; irons egress mode deny blocks")


def list_rules(ctx: Context, *, sandbox: str | None) -> Sequence[ListedRule]:
    """Return the rules, allow list first; in the order the server has them."""
    return ctx.api.rules(sandbox).rules


def mode(ctx: Context, *, mode: str | None, sandbox: str | None) -> ModeInfo:
    """Return the mode, set before where one was given."""
    if mode == "account" and sandbox is None:
        raise UsageError(
            "account is a mode of sandboxes alone", hint="irons egress mode account --sandbox NAME"
        )
    if mode is not None:
        if mode == "deny" and forecasts(ctx):
            say_cut(ctx, ctx.api.set_mode(mode, sandbox, dry_run=True).cut)
        ctx.api.set_mode(None if mode == "account" else mode, sandbox)
    return ctx.api.mode(sandbox)


def check(ctx: Context, *, host: str, sandbox: str | None, live: bool) -> Result:
    """Return what the gateway would say; the exit code is 7 where it would refuse, 6 where it did not reach the host."""
    if any(character.isspace() or not character.isprintable() for character in host):
        raise UsageError(
            f"{host!r} is not a host", hint="a name or an address, such as example.com or example.com:22"
        )
    if live:
        ctx.api.need("live-check", "a server that reaches hosts for egress check")
        ctx.progress("reaching it as a sandbox would …")
    try:
        found = ctx.api.check(host, sandbox, live=live)
    except ApiError as error:
        if error.status != 400:
            raise
        # It is the words that are wrong: no host, or no port.
        raise UsageError(error.message, hint=error.hint) from None
    outcome = found.live.outcome if found.live is not None else ""
    refused = not found.allowed or outcome == "refused"
    missed = live and outcome != "reached"
    return Result(found, exit=Denied.exit_code if refused else Unreachable.exit_code if missed else 0)
