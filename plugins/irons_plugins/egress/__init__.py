"""The built-in plugin `egress`."""

from __future__ import annotations

from irons.command import Command
from irons.hookspecs import hookimpl


@hookimpl
def irons_commands() -> list[Command]:
    """Bring its commands."""
    return []
