"""Handler of `extend`: more time for sandboxes, and a deadline for those that have none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from irons.cli.values import seconds
from irons.errors import Conflict, IronsError, UsageError
from irons_plugins.lifecycle.several import Failures
from irons_plugins.lifecycle.views import told
from irons_plugins.selection import selected

if TYPE_CHECKING:
    from irons.client.api import Sandbox
    from irons.context import Context

NEVER = "never"
"""In the place of a duration: no deadline any more."""


def extend(
    ctx: Context, *, names: tuple[str, ...], everything: bool, labels: tuple[str, ...], duration: str
) -> Sandbox | Iterator[Sandbox]:
    """Move the deadlines of sandboxes on by a duration, or remove them with `never`; a sandbox without one gets it.

    Raises:
        UsageError: The duration is not one.
    """
    more = None if duration == NEVER else whole_seconds(seconds(duration, "DURATION"), "DURATION")
    chosen = selected(ctx, names, everything=everything, labels=labels)
    rows = _each_extended(ctx, chosen, more)
    return next(rows) if len(names) == 1 else rows


def whole_seconds(value: float, name: str) -> int:
    """Return a duration in whole seconds, at least one. Raises `UsageError`."""
    if value < 1:
        raise UsageError(f"{name} is at least 1s")
    return int(value)


def _each_extended(ctx: Context, names: tuple[str, ...], more: int | None) -> Iterator[Sandbox]:
    failures = Failures(ctx, len(names), "extended")
    for name in names:
        try:
            yield told(ctx.api.change(name, ttl=None) if more is None else _extended(ctx, name, more))
        except IronsError as error:
            failures.add(name, error)
    failures.end()


def _extended(ctx: Context, name: str, more: int) -> Sandbox:
    """Move its deadline on; one that has none gets one, counted from now."""
    try:
        return ctx.api.extend(name, more)
    except Conflict:
        if ctx.api.status(name).ttl is not None:
            raise
        return ctx.api.change(name, ttl=more)
