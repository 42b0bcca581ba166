"""Handlers of `local key …`: API keys for those who reach the backend over TCP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.client.scoped_names import keep_api_keys
from irons_plugins.local.backend import on_this_machine

if TYPE_CHECKING:
    from irons.client.models.server import ApiKey, NewApiKey
    from irons.context import Context


def create(ctx: Context, *, label: str) -> NewApiKey:
    """Make a key; the answer is the only place where it is seen."""
    with on_this_machine(ctx) as here:
        made = here.api.create_key(label)
        keep_api_keys(ctx.settings, here.api.keys())
    ctx.progress("This is the only time the key is shown.")
    return made


def list_keys(ctx: Context) -> tuple[ApiKey, ...]:
    """Return the keys' ids and labels."""
    with on_this_machine(ctx) as here:
        keys = here.api.keys()
    keep_api_keys(ctx.settings, keys)
    return keys


def revoke(ctx: Context, *, id: str) -> None:  # noqa: A002 - the argument's name
    """Revoke a key."""
    with on_this_machine(ctx) as here:
        here.api.revoke_key(id)
        keep_api_keys(ctx.settings, here.api.keys())
    ctx.progress(f"key {id} is revoked")
