"""How many live connections a change would cut, said before it is made, where the server can tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from irons.client.models import whole_of

if TYPE_CHECKING:
    from irons.context import Context

Bodies = list[dict[str, Any]]
"""Rules as requests carry them."""

_FIELDS = ("pattern", "list", "private", "note", "broad")


def bodies(rules: Sequence[Mapping[str, Any]]) -> Bodies:
    """Return rules that a server told as requests carry them; what has no pattern is no rule."""
    return [
        {key: rule[key] for key in _FIELDS if rule.get(key) is not None}
        for rule in rules
        if isinstance(rule.get("pattern"), str)
    ]


def say_what_is_cut(
    ctx: Context, sandbox: str | None, change: Callable[[Bodies], Bodies], mode: str | None = None
) -> None:
    """Try a change out on the server, and say how many live connections it will cut, if any.

    Args:
        ctx: The call's context.
        sandbox: Whose rules change; None for the account's.
        change: Makes the new rules of those there are.
        mode: The new mode, where that changes too.
    """
    if "policy" not in ctx.api.extensions:
        return
    body: dict[str, Any] = {"rules": change(bodies(ctx.api.rules(sandbox).rules))}
    if mode is not None:
        body["mode"] = mode
    say_cut(ctx, ctx.api.replace_rules(body, sandbox, dry_run=True))


def say_cut(ctx: Context, answer: Mapping[str, Any]) -> None:
    """Say how many live connections the server says will be cut, if any."""
    cut = whole_of(answer.get("cut")) or 0
    if cut > 0:
        ctx.progress(f"this cuts {cut} live connection{'s' if cut != 1 else ''}")
