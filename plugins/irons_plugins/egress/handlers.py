"""Handlers: egress allow, deny, list, mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from irons.command import Result
from irons.errors import UsageError
from irons_plugins.egress.patterns import Checked, checked

if TYPE_CHECKING:
    from irons.api import EgressRules
    from irons.context import Context


class Change(NamedTuple):
    """A rule that is now in a list. `changed` is false where it was there before; `cut` counts live connections it ended."""

    pattern: str
    list: str
    covers: str
    changed: bool = True
    cut: int = 0
    sandbox: str | None = None


class RuleRow(NamedTuple):
    """A rule as `egress list` shows it."""

    list: str
    pattern: str
    private: tuple[str, ...] = ()
    note: str | None = None
    covers: str | None = None
    created_at: str | None = None


class Mode(NamedTuple):
    """A mode; `source` is whose it is (`account` or `sandbox`), `differs` names the sandboxes whose own mode is another."""

    mode: str
    sandbox: str | None = None
    source: str = "account"
    differs: Mapping[str, str] = {}


def allow(
    ctx: Context,
    *,
    domains: tuple[str, ...],
    sandbox: str | None,
    private: tuple[str, ...],
    broad: bool,
    note: str | None,
) -> Iterator[Change]:
    """Allow domains, each checked before the first is sent."""
    rules = [checked(domain, "allow", private=private, broad=broad) for domain in domains]
    if private:
        ctx.api.need("rules", "a server that keeps private addresses with a rule")
    return _put(ctx, "allow", rules, sandbox, broad=broad, note=note)


def deny(
    ctx: Context, *, domains: tuple[str, ...], sandbox: str | None, broad: bool, note: str | None
) -> Iterator[Change]:
    """Deny domains, each checked before the first is sent; say so where nothing is blocked yet."""
    rules = [checked(domain, "deny", broad=broad) for domain in domains]
    return _put(ctx, "deny", rules, sandbox, broad=broad, note=note)


def _put(
    ctx: Context,
    kind: Literal["allow", "deny"],
    rules: list[Checked],
    sandbox: str | None,
    *,
    broad: bool,
    note: str | None,
) -> Iterator[Change]:
    mode = None
    for rule in rules:
        more: dict[str, Any] = {"private": list(rule.private), "note": note, "broad": broad}
        send = ctx.api.allow if kind == "allow" else ctx.api.deny
        answer = send(rule.pattern, sandbox, **{key: value for key, value in more.items() if value})
        cut = answer.get("cut")
        mode = answer.get("mode") or mode
        yield Change(
            str(answer.get("pattern") or rule.pattern),
            kind,
            str(answer.get("covers") or rule.covers),
            answer.get("changed") is not False,
            cut if isinstance(cut, int) else 0,
            sandbox,
        )
    if kind == "deny" and (mode or ctx.api.mode(sandbox).get("mode")) == "warn":
        ctx.progress("mode is warn: nothing is blocked yet, only written down; irons egress mode deny blocks")


def list_rules(ctx: Context, *, sandbox: str | None) -> Iterator[RuleRow]:
    """Return the rules, allow list first; in the order the server has them."""
    return _rows(ctx.api.rules(sandbox))


def _rows(found: EgressRules) -> Iterator[RuleRow]:
    known = {(rule.get("list"), rule.get("pattern")): rule for rule in found.rules}
    for kind, patterns in (("allow", found.allowed), ("deny", found.denied)):
        for pattern in patterns:
            rule = known.get((kind, pattern), {})
            private = rule.get("private")
            yield RuleRow(
                kind,
                pattern,
                tuple(map(str, private)) if isinstance(private, list) else (),
                rule.get("note"),
                rule.get("covers"),
                rule.get("created_at"),
            )


def mode(ctx: Context, *, mode: str | None, sandbox: str | None) -> Mode | Result:
    """Return the mode, set before where one was given."""
    if mode == "account" and sandbox is None:
        raise UsageError(
            "account is a mode of sandboxes alone", hint="irons egress mode account --sandbox NAME"
        )
    if mode is not None:
        ctx.api.set_mode(None if mode == "account" else mode, sandbox)
    answer = ctx.api.mode(sandbox)
    differs = answer.get("differs")
    return Mode(
        str(answer.get("mode") or ""),
        sandbox,
        str(answer.get("source") or "account"),
        {str(k): str(v) for k, v in differs.items()} if isinstance(differs, dict) else {},
    )
