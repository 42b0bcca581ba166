"""Handlers: egress allow, deny, remove, list, mode, check."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Literal

from irons.client.scoped_names import keep_changes, keep_rules
from irons.command import Result, View
from irons.errors import ApiError, Denied, NotFound, Unreachable, Unsupported, UsageError
from irons.record import NamedTuple
from irons.text import clean
from irons_plugins.egress.impact import forecasts, say_cut
from irons_plugins.egress.patterns import checked, spelled
from irons_plugins.egress.rows import Change

if TYPE_CHECKING:
    from irons.client.models.egress import ListedRule
    from irons.context import Context
    from irons.settings.scope import Scope
    from irons_policy.rules import Rule


_LOOKED_AT = 50
"""Sandboxes that are looked through for a rule that all sandboxes have not; one request each."""

MODE_SET = View(line="irons_plugins.egress.views:mode_set")
MODE_TOLD = View(line="irons_plugins.egress.views:mode_told")
"""How a mode that was just set is shown, and one that a person asked for; in a pipe the bare word stays."""


def allow(
    ctx: Context,
    *,
    domains: tuple[str, ...],
    scope: Scope,
    private: tuple[str, ...],
    broad: bool,
    note: str | None,
    seconds: float | None,
    until: str | None,
) -> Iterator[Change]:
    """Allow domains at once, each checked before they are sent."""
    term = _term(ctx, scope, seconds, until)
    rules = [checked(domain, "allow", private=private, broad=broad, note=note or "") for domain in domains]
    if private:
        ctx.api.need("rules", "a server that keeps private addresses with a rule")
    return _changes(ctx, "allow", _covered(rules), scope, _Given.of(rules[0], term))


def deny(
    ctx: Context,
    *,
    domains: tuple[str, ...],
    scope: Scope,
    broad: bool,
    note: str | None,
    seconds: float | None,
    until: str | None,
) -> Iterator[Change]:
    """Deny domains at once, each checked before they are sent; say so where nothing is blocked yet."""
    term = _term(ctx, scope, seconds, until)
    rules = [checked(domain, "deny", broad=broad, note=note or "") for domain in domains]
    return _changes(ctx, "deny", _covered(rules), scope, _Given.of(rules[0], term))


def remove(ctx: Context, *, patterns: tuple[str, ...], scope: Scope) -> Iterator[Change]:
    """Remove rules at once; where only all sandboxes have one, say so, and the command that removes it there."""
    names = dict.fromkeys((spelled(pattern) for pattern in patterns), "")
    try:
        yield from _changes(ctx, "remove", names, scope, _Given())
    except NotFound as error:
        error.hint = _of_all(ctx, names, scope) or error.hint
        raise


def _of_all(ctx: Context, patterns: Iterable[str], scope: Scope) -> str:
    """Return which of these rules the other scope has, with the command that removes them there; empty where there are none."""
    if scope.sandbox is None:
        return _of_one(ctx, patterns)
    try:
        own, every = (
            {rule.pattern for rule in ctx.api.rules(sandbox).rules} for sandbox in (scope.sandbox, None)
        )
    except ApiError:
        return ""
    wide = [pattern for pattern in patterns if pattern in every - own]
    if not wide:
        return ""
    is_one = len(wide) == 1
    said = f"the rule {wide[0]} is" if is_one else f"the rules {', '.join(wide)} are"
    command = shlex.join(["irons", "egress", "remove", *wide, "--all"])
    return f"{said} of all sandboxes; {command} removes {'it' if is_one else 'them'} for all"


def _of_one(ctx: Context, patterns: Iterable[str]) -> str:
    """Return the first of the sandboxes that has rules of its own which all sandboxes lack, with the command that removes them there."""
    with suppress(ApiError):
        lacking = frozenset(patterns) - {rule.pattern for rule in ctx.api.rules(None).rules}
        for sandbox in ctx.api.list()[:_LOOKED_AT]:
            own = [rule.pattern for rule in ctx.api.rules(sandbox.name).rules if rule.pattern in lacking]
            if own:
                said = f"the rule {own[0]} is" if len(own) == 1 else f"the rules {', '.join(own)} are"
                command = shlex.join(["irons", "egress", "remove", *own, "--sandbox", sandbox.name])
                pronoun = "it" if len(own) == 1 else "them"
                return f"{said} of sandbox {clean(sandbox.name)} alone; {command} removes {pronoun} there"
    return ""


class _Term(NamedTuple):
    """When rules end by themselves: after so many seconds, or at a time or `stop`; not at all without either."""

    seconds: int | None = None
    until: str = ""


_STAYS = _Term()


def _term(ctx: Context, scope: Scope, seconds: float | None, until: str | None) -> _Term:
    """When the rules of a command end, checked. Raises `UsageError`."""
    if seconds is None and until is None:
        return _STAYS
    from datetime import UTC, datetime

    from irons_plugins.egress.until import read_until
    from irons_policy.ends import LONGEST, STOP

    if seconds is not None and until is not None:
        raise UsageError("--for and --until are two ends of one rule; give one")
    if seconds is not None and not 1 <= seconds <= LONGEST:
        raise UsageError(f"--for takes 1s to {LONGEST // 86_400}d", hint="without --for the rule stays")
    if until == STOP and scope.sandbox is None:
        raise UsageError("--until stop is for one sandbox, not for all", hint="add --sandbox NAME")
    try:
        end = None if until is None else read_until(until, datetime.now(UTC))
    except ValueError as error:
        raise UsageError(f"--until: {error}", hint="--for 1h ends it after an hour") from None
    ctx.api.need("timed-rules", "a server whose rules can end by themselves")
    return _Term(None if seconds is None else round(seconds), "" if end is None else end.text)


class _Given(NamedTuple):
    """What all rules of a command have."""

    private: tuple[str, ...] = ()
    note: str = ""
    broad: bool = False
    term: _Term = _STAYS

    @classmethod
    def of(cls, rule: Rule, term: _Term) -> _Given:
        """Take it of any of them."""
        return cls(rule.pins, rule.note, rule.broad, term)


def _covered(rules: Sequence[Rule]) -> dict[str, str]:
    from irons_policy.patterns import covers

    return {rule.pattern.text: covers(rule.pattern) for rule in rules}


def _changes(
    ctx: Context,
    kind: Literal["allow", "deny", "remove"],
    patterns: Mapping[str, str],
    scope: Scope,
    given: _Given,
) -> Iterator[Change]:
    """Change rules, in one request where the server can, and say before what that cuts; `patterns` to what they cover."""
    sandbox = scope.sandbox
    change = partial(
        ctx.api.change_rules,
        kind,
        sandbox=sandbox,
        private=given.private,
        note=given.note,
        broad=given.broad,
        seconds=given.term.seconds,
        until=given.term.until,
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
        keep_changes(ctx.settings, sandbox, kind, done.rules)
        if kind == "allow":
            ctx.allowed(sandbox, [rule.pattern for rule in done.rules])
        for number, rule in enumerate(done.rules, 1):
            yield Change(
                rule.pattern,
                "" if kind == "remove" else kind,
                "" if kind == "remove" else rule.covers or patterns.get(rule.pattern, ""),
                rule.changed,
                done.cut if number == len(done.rules) else 0,
                sandbox,
                done.followers,
                given.term.until,
                given.term.seconds,
            )
    if kind == "deny":
        if (mode or ctx.api.mode(sandbox).mode) == "warn":
            ctx.progress(
                f"the mode of {scope.who} is warn (log only), which blocks nothing; "
                f"irons egress mode deny {scope.flags} blocks"
            )
        _say_others(ctx, scope)


def _say_others(ctx: Context, scope: Scope) -> None:
    """Say that a restriction of one sandbox leaves the others open, where they are; those with a mode of their own by name."""
    if scope.sandbox is None or (info := ctx.api.mode()).mode != "warn":
        return
    own = ", ".join(f"{name}: {mode}" for name, mode in info.differs.items() if name != scope.sandbox)
    apart = f" but those with their own ({own})" if own else ""
    ctx.progress(f"the other sandboxes{apart} keep warn; --all is for all")


def list_rules(ctx: Context, *, scope: Scope) -> Sequence[ListedRule]:
    """Return the rules, allow list first; in the order the server has them. Answers that are not rules are named next to them."""
    found = ctx.api.rules(scope.sandbox)
    keep_rules(ctx.settings, scope.sandbox, found.rules)
    if found.mode == "ask" or (scope.sandbox is None and _some_ask(ctx)):
        _say_answers(ctx, scope)
    return found.rules


def _some_ask(ctx: Context) -> bool:
    """Tell whether a sandbox has `ask` as a mode of its own; its answers count also where all sandboxes have another."""
    try:
        return "ask" in ctx.api.mode().differs.values()
    except ApiError:
        return False


def _say_answers(ctx: Context, scope: Scope) -> None:
    """Name the answers that count for a while yet."""
    from irons.ending import lasting

    with suppress(ApiError, Unsupported):
        for each in ctx.api.questions().answers:
            if scope.sandbox is None or each.sandbox == scope.sandbox:
                what = "the next connection passes" if each.answer == "once" else "refused without a question"
                place = f"{clean(each.pattern)} of {clean(each.sandbox)}"
                ctx.progress(
                    f"{place}: {what}, for {lasting(each.seconds)} more; it is the answer {each.answer}, not a rule"
                )


def mode(ctx: Context, *, mode: str | None, scope: Scope) -> Result:
    """Return the mode, set before where one was given; the answer to a change names its scope, and a terminal shows what a mode does."""
    sandbox = scope.sandbox
    if mode == "account" and sandbox is None:
        raise UsageError(
            "account is a mode of sandboxes alone", hint="irons egress mode account --sandbox NAME"
        )
    followers = None
    if mode is not None:
        from irons.client.refreshing import refresh_after_change

        if mode in ("deny", "ask") and forecasts(ctx):
            say_cut(ctx, ctx.api.set_mode(mode, sandbox, dry_run=True).cut)
        followers = ctx.api.set_mode(None if mode == "account" else mode, sandbox).followers
        refresh_after_change(ctx.api, ctx.settings)
    found = ctx.api.mode(sandbox)._replace(followers=followers)
    if mode in ("deny", "ask"):
        _say_others(ctx, scope)
    return Result(
        found, view=MODE_SET if mode is not None else MODE_TOLD if ctx.streams.stdout_is_tty else None
    )


def check(ctx: Context, *, host: str, scope: Scope, live: bool) -> Result:
    """Return what the gateway would say; the exit code is 7 where it would refuse, 6 where it did not reach the host."""
    if any(character.isspace() or not character.isprintable() for character in host):
        raise UsageError(
            f"{host!r} is not a host", hint="a name or an address, such as example.com or example.com:22"
        )
    if live:
        ctx.api.need("live-check", "a server that reaches hosts for egress check")
        ctx.progress("reaching it as a sandbox would …")
    try:
        found = ctx.api.check(host, scope.sandbox, live=live)
    except ApiError as error:
        if error.status != 400:
            raise
        # It is the words that are wrong: no host, or no port.
        raise UsageError(error.message, hint=error.hint) from None
    outcome = found.live.outcome if found.live is not None else ""
    refused = not found.allowed or outcome == "refused"
    missed = live and outcome != "reached"
    return Result(found, exit=Denied.exit_code if refused else Unreachable.exit_code if missed else 0)
