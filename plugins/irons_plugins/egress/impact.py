"""Say how many live connections a change cuts, before it is made, where the server can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irons.context import Context


def forecasts(ctx: Context) -> bool:
    """Tell whether the server answers a dry run of a change of rules, and takes several patterns in one request."""
    return "rule-batches" in ctx.api.extensions


def say_cut(ctx: Context, cut: int) -> None:
    """Say how many live connections the server says will be cut, if any."""
    if cut > 0:
        ctx.progress(f"this cuts {cut} live connection{'s' if cut != 1 else ''}")
