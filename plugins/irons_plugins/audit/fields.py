"""The fields of an event that a command asks a server for: a line to a pipe has few of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from irons.terminal.output import choose_format
from irons_policy.event import FIELDS, HeadField

if TYPE_CHECKING:
    from irons.context import Context

_FILTERED = ("id", "timestamp", "host", "allowed", "verdict", "outcome")
"""Fields that are read of each event: by these a log is read once and filtered."""
_SHOWN = (*_FILTERED, "sandbox_name")
_CONTRACT = (*_SHOWN, "mode")
_LINE = (*_SHOWN, "port", "count", "cause", "reason", "ended")
_ALL = tuple(kind.key if isinstance(kind, HeadField) else name for name, kind in FIELDS.items())


def fields_of(ctx: Context, *, contract: bool) -> str:
    """Return the fields of an event that are shown, by their names on the wire with commas between them.

    Args:
        ctx: The call's context.
        contract: A pipe gets the line of the v0 contract.
    """
    if choose_format(cast("str | None", ctx.settings["output"]), ctx.streams) != "plain":
        return ",".join(_ALL)
    return ",".join(_CONTRACT if contract else _LINE)
