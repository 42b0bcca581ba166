"""Handlers of `local key …`: API keys for those who reach the backend over TCP."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from irons.client.scoped_names import keep_api_keys
from irons.errors import IronsError
from irons.text import clean
from irons.version import __version__
from irons_plugins.local.backend import on_this_machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irons.client.models.server import ApiKey, NewApiKey
    from irons.context import Context
    from irons_local.control.store.keys import StoredKey
    from irons_local.daemon.client import Status
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


def say_keys(ctx: Context, paths: Paths, daemon: Status | None) -> None:
    """Print how many API keys there are of each role, by name those that may do all.

    Args:
        ctx: The call.
        paths: Where the backend is.
        daemon: How it is; None where it does not run, and is not to be started for this.
    """
    from irons.wire_values import KEY_ROLES

    found = [(clean(each.label), each.role) for each in _keys_of(ctx, paths, daemon)]
    if not found:
        return
    counts = {role: sum(its == role for _, its in found) for role in KEY_ROLES}
    ctx.progress(f"API keys: {', '.join(f'{count} {role}' for role, count in counts.items() if count)}")
    admins = [label for label, role in found if role == "admin"]
    if admins:
        more = f" and {len(admins) - _MOST_NAMED} more" if len(admins) > _MOST_NAMED else ""
        ctx.progress(f"  these may do all: {', '.join(admins[:_MOST_NAMED])}{more}")


def _keys_of(ctx: Context, paths: Paths, daemon: Status | None) -> Sequence[ApiKey | StoredKey]:
    """Ask the daemon where it answers in this version; another one would be replaced for it, so that the file tells then."""
    if daemon is not None and daemon.ready and daemon.version == __version__:
        with suppress(IronsError), on_this_machine(ctx) as here:
            return here.api.keys()
    from irons_local.control.store import keys
    from irons_local.control.store.database import look_into

    return look_into(paths.database, keys.all_of) or ()
