"""A destroyed sandbox: what is answered about it, and what this machine forgets with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.record import NamedTuple

if TYPE_CHECKING:
    from irons.context import Context


class Destroyed(NamedTuple):
    """A destroyed sandbox."""

    name: str
    status: str = "destroyed"


def forget(ctx: Context, name: str) -> None:
    """Forget what this machine keeps of a sandbox that is gone."""
    from irons_plugins.ssh.config.handlers import left

    ctx.names.forget(name)
    left(ctx, name)
    if ctx.session is not None and ctx.settings["sandbox"] == name:
        ctx.session.use(None)
