"""The plugin of the fleet: its commands as data."""

from __future__ import annotations

from irons.command import Command
from irons.hookspecs import hookimpl
from irons_plugins.fleet import cluster_commands, member_commands


@hookimpl
def irons_commands() -> list[Command]:
    """Bring the commands below `fleet` and `member`."""
    return [*cluster_commands.COMMANDS, *member_commands.COMMANDS]
