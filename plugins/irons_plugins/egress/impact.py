"""Say how many live connections a change cuts, before it is made, where the server can tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from irons.client.models import whole_of

if TYPE_CHECKING:
    from irons.context import Context


def forecasts(ctx: Context) -> bool:
    """Tell whether the server answers a dry run of a change of rules, and takes several patterns in one request."""
    return "rule-batches" in ctx.api.extensions


def say_cut(ctx: Context, cut: int) -> None:
    """Say how many live connections the server says will be cut, if any."""
    if cut > 0:
        ctx.progress(f"this cuts {cut} live connection{'s' if cut != 1 else ''}")


def cut_of(answer: Mapping[str, Any]) -> int:
    """Return how many live connections an answer says that a change cuts."""
    return whole_of(answer.get("cut")) or 0
