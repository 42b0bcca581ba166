"""Handlers of `local key …`: API keys for those who reach the backend over TCP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from irons_plugins.local.backend import on_this_machine

if TYPE_CHECKING:
    from irons.context import Context


def create(ctx: Context, *, label: str) -> dict[str, Any]:
    """Make a key; the answer is the only place where it is seen."""
    with on_this_machine(ctx) as here:
        made = here.api.call("POST", "/keys", {"label": label}, route=True, retry=False)
    ctx.progress("This is the only time the key is shown.")
    return made


def list_keys(ctx: Context) -> tuple[dict[str, Any], ...]:
    """Return the keys' ids and labels."""
    with on_this_machine(ctx) as here:
        told = here.api.call("GET", "/keys", route=True).get("keys", ())
    return tuple(row for row in told if isinstance(row, dict))


def revoke(ctx: Context, *, id: str) -> None:  # noqa: A002 - the argument's name
    """Revoke a key."""
    with on_this_machine(ctx) as here:
        here.api.call("DELETE", f"/keys/{quote(id, safe='')}", route=True)
    ctx.progress(f"key {id} is revoked")
