"""The plugin that brings `irons shell`."""

from __future__ import annotations

from irons.command import Command, Opt
from irons.hookspecs import hookimpl


@hookimpl
def irons_commands() -> list[Command]:
    """Bring the prompt."""
    return [
        Command(
            ("shell",),
            "Open the irons> prompt.",
            "irons_repl.shell:run",
            (Opt(("-c",), "Run these lines instead and end.", metavar="LINES", name="lines"),),
            pace="terminal",
            examples=("irons shell", "irons shell -c 'list; egress mode'"),
        )
    ]
