"""What the overview lists: commands by the task they are for, those of daily use first, and topics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from irons.command import Command
    from irons.host import PluginInfo

DAILY: Final[tuple[tuple[str, str], ...]] = (
    ("create NAME", "Make a sandbox."),
    ("ssh NAME", "Open a shell in it."),
    ("egress allow HOST --sandbox NAME", "Let it reach a host."),
    ("audit NAME", "See what it tried to reach."),
    ("watch", "See connections live; allow or deny hosts."),
)
"""What a person types most, before all sections."""

SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "Sandboxes": (
        "create",
        "list",
        "status",
        "run",
        "start",
        "stop",
        "wait",
        "extend",
        "fork",
        "snapshot",
        "restore",
        "destroy",
    ),
    "Access": ("ssh", "exec", "scp", "forward", "access", "ssh-config", "mcp"),
    "Egress": (
        "egress allow",
        "egress deny",
        "egress remove",
        "egress list",
        "egress mode",
        "ask",
        "egress",
    ),
    "Audit": (
        "audit",
        "audit watch",
        "audit why",
        "audit hosts",
        "audit changes",
        "audit export",
        "audit egress",
    ),
    "This machine": ("doctor", "local", "image"),
    "Fleet": ("fleet", "member"),
    "Settings": ("help", "shell", "use", "config", "plugins", "schema", "completion"),
}
"""Each section's commands in their order; a first word alone stands for all commands that begin with it and are not named."""

TOPICS: Final[Mapping[str, str]] = {
    "egress": "What patterns cover, and what the modes do.",
    "prompt": "The irons> prompt: operators, keys, its own words.",
    "agents": "A text for an agent's instructions: what a refusal is, how to ask.",
    "output": "Forms of output, and what is stable in them.",
    "exit-codes": "What each exit code means.",
    "environment": "The environment variables that irons reads.",
}
"""Each topic of `irons help`, and what it is about."""

OTHER: Final = "Other commands"
"""The section of commands that no section names and no plugin of another distribution brought."""


def third_parties(plugins: Iterable[PluginInfo]) -> dict[str, str]:
    """Return the commands of plugins that are not part of irons, each with its plugin's name."""
    return {
        command: plugin.name
        for plugin in plugins
        if plugin.distribution != "irons"
        for command in plugin.commands
    }


def sections(commands: Iterable[Command], owners: Mapping[str, str]) -> dict[str, Sequence[Command]]:
    """Return the commands by section, in the order they are shown; hidden ones are left out.

    Args:
        commands: All commands.
        owners: The plugin of each command that is not part of irons; its section has the plugin's name.
    """
    places = {name: (title, number) for title, names in SECTIONS.items() for number, name in enumerate(names)}
    found: dict[str, list[tuple[int, Command]]] = {title: [] for title in SECTIONS}
    for command in commands:
        if command.hidden:
            continue
        owner = owners.get(command.name)
        if owner is None:
            title, number = places.get(command.name) or places.get(command.path[0]) or (OTHER, 0)
        else:
            title, number = f"Plugin {owner}", 0
        found.setdefault(title, []).append((number, command))
    return {
        title: [command for _, command in sorted(rows, key=lambda row: row[0])]
        for title, rows in found.items()
        if rows
    }
