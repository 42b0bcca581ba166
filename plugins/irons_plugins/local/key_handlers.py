"""Handlers of `local key …`: API keys for those who reach the backend over TCP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.client.scoped_names import keep_api_keys
from irons.text import clean
from irons_plugins.local.backend import on_this_machine

if TYPE_CHECKING:
    from irons.client.models.server import ApiKey, NewApiKey
    from irons.context import Context
    from irons_local.paths import Paths

_MOST_NAMED = 5


def create(ctx: Context, *, label: str, role: str | None) -> NewApiKey:
    """Make a key; the answer is the only place where it is seen."""
    with on_this_machine(ctx) as here:
        made = here.api.create_key(label, role)
        keep_api_keys(ctx.settings, here.api.keys())
    ctx.progress("This is the only time the key is shown.")
    return made


def list_keys(ctx: Context) -> tuple[ApiKey, ...]:
    """Return the keys' ids, labels and roles."""
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


def say_keys(ctx: Context, paths: Paths) -> None:
    """Print how many API keys there are of each role, by name those that may do all; whether or not the daemon runs."""
    import sqlite3
    from contextlib import closing

    from irons.wire_values import KEY_ROLES
    from irons_local.control.store import keys

    try:
        with closing(sqlite3.connect(f"{paths.database.as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            found = keys.all_of(connection)
    except sqlite3.Error:
        # There is none yet, or an older irons made it, whose keys have no roles.
        return
    counts = {role: sum(key.role == role for key in found) for role in KEY_ROLES}
    if not found:
        return
    ctx.progress(f"API keys: {', '.join(f'{count} {role}' for role, count in counts.items() if count)}")
    admins = [clean(key.label) for key in found if key.role == "admin"]
    if admins:
        more = f" and {len(admins) - _MOST_NAMED} more" if len(admins) > _MOST_NAMED else ""
        ctx.progress(f"  these may do all: {', '.join(admins[:_MOST_NAMED])}{more}")
