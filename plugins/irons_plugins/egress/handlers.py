"""Handlers: egress allow, deny, remove, list, mode, check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from irons.client.models import text_of, texts_of, whole_of
from irons.command import Result
from irons.errors import ApiError, Denied, Unreachable, UsageError
from irons_plugins.egress.impact import cut_of, forecasts, say_cut
from irons_plugins.egress.patterns import checked, spelled
from irons_plugins.egress.rows import Change, EgressCheck, Mode, RuleRow

if TYPE_CHECKING:
    from irons.client.api import EgressRules
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
    asked: list[list[str]] = [[pattern] for pattern in patterns]
    # A single allow needs nothing that a plain v0 server lacks, so the server is not asked what it can.
    if (kind != "allow" or len(patterns) > 1) and forecasts(ctx):
        asked = [list(patterns)]
        if kind != "allow":
            say_cut(ctx, ctx.api.change_rules(kind, asked[0], sandbox, **given._asdict(), dry_run=True).cut)
    mode = ""
    for each in asked:
        done = ctx.api.change_rules(kind, each, sandbox, **given._asdict())
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
    if kind == "deny" and (mode or ctx.api.mode(sandbox).get("mode")) == "warn":
        ctx.progress("mode is warn: nothing is blocked yet, only logged; irons egress mode deny blocks")


def list_rules(ctx: Context, *, sandbox: str | None) -> Iterator[RuleRow]:
    """Return the rules, allow list first; in the order the server has them."""
    return _rows(ctx.api.rules(sandbox))


def _rows(found: EgressRules) -> Iterator[RuleRow]:
    known = {(_text(rule, "list"), _text(rule, "pattern")): rule for rule in found.rules}
    for kind, patterns in (("allow", found.allowed), ("deny", found.denied)):
        for pattern in patterns:
            rule = known.get((kind, pattern), {})
            yield RuleRow(
                kind,
                pattern,
                texts_of(rule.get("private")),
                _text(rule, "note"),
                _text(rule, "covers"),
                _text(rule, "created_at"),
            )


def mode(ctx: Context, *, mode: str | None, sandbox: str | None) -> Mode:
    """Return the mode, set before where one was given."""
    if mode == "account" and sandbox is None:
        raise UsageError(
            "account is a mode of sandboxes alone", hint="irons egress mode account --sandbox NAME"
        )
    if mode is not None:
        if mode == "deny" and forecasts(ctx):
            say_cut(ctx, cut_of(ctx.api.set_mode(mode, sandbox, dry_run=True)))
        ctx.api.set_mode(None if mode == "account" else mode, sandbox)
    answer = ctx.api.mode(sandbox)
    differs = answer.get("differs")
    return Mode(
        text_of(answer.get("mode")),
        sandbox,
        text_of(answer.get("source")) or "account",
        {name: text_of(own) for name, own in differs.items()} if isinstance(differs, dict) else {},
    )


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
        answer = ctx.api.check(host, sandbox, live=live)
    except ApiError as error:
        if error.status != 400:
            raise
        # It is the words that are wrong: no host, or no port.
        raise UsageError(error.message, hint=error.hint) from None
    seen = answer.get("live")
    outcome = text_of(seen.get("outcome")) if isinstance(seen, dict) else ""
    found = EgressCheck(
        text_of(answer.get("host")) or host,
        _number(answer, "port") or None,
        answer.get("allowed") is True,
        text_of(answer.get("verdict")),
        text_of(answer.get("mode")),
        _text(answer, "rule"),
        _text(answer, "list"),
        _text(answer, "scope"),
        text_of(answer.get("reason")),
        seen if isinstance(seen, dict) else None,
    )
    refused = not found.allowed or outcome == "refused"
    missed = live and outcome != "reached"
    return Result(found, exit=Denied.exit_code if refused else Unreachable.exit_code if missed else 0)


def _number(answer: Mapping[str, Any], key: str) -> int:
    return whole_of(answer.get(key)) or 0


def _text(answer: Mapping[str, Any], key: str) -> str | None:
    value = answer.get(key)
    return value if isinstance(value, str) and value else None
