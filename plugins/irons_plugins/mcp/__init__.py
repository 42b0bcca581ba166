"""The built-in plugin `mcp`: irons as tools of an agent, by the Model Context Protocol.

The command as data is here; `tools` says what an agent may call, `doing` does it, `serving` speaks the protocol with the package `mcp`,
which is an extra. No tool widens egress, unless the person who starts the server asks for it.
"""

from __future__ import annotations

from irons.command import Command, Flag, Opt
from irons.hookspecs import hookimpl

KEY_VARIABLE = "IRONS_MCP_KEY"
"""The variable with the key of HTTP clients."""


@hookimpl
def irons_commands() -> list[Command]:
    """Bring the command that serves tools."""
    return [
        Command(
            ("mcp",),
            "Serve sandboxes as tools to an agent (MCP).",
            "irons_plugins.mcp.handlers:mcp",
            (
                Opt(
                    ("--sandbox",),
                    "A sandbox that is there to serve. May be repeated.",
                    metavar="NAME",
                    kind="sandbox",
                    many=True,
                    name="sandboxes",
                ),
                Opt(
                    ("--allow",),
                    "A host that new sandboxes may reach. May be repeated.",
                    metavar="DOMAIN",
                    kind="domain",
                    many=True,
                ),
                Flag(("--keep",), "Leave the sandboxes there that the agent made."),
                Flag(("--may-change-egress",), "Give the agent tools that change egress rules and modes."),
                Opt(("--http",), "Serve HTTP here instead of stdio.", metavar="[HOST:]PORT"),
                Opt(
                    ("--key-file",),
                    f"The file with the key of HTTP clients. [default: {KEY_VARIABLE}]",
                    metavar="FILE",
                    kind="file",
                ),
            ),
            pace="terminal",
            about="""An agent sees and touches only sandboxes that it made and those of --sandbox. What it made is in mode deny, and is
destroyed when the server ends. It needs the extra irons[mcp].""",
            examples=(
                "irons mcp",
                "irons mcp --sandbox my-sandbox --allow pypi.org --allow files.pythonhosted.org",
                f"{KEY_VARIABLE}=… irons mcp --http 8765",
            ),
            exits=(3, 4, 6),
        )
    ]
