"""The plugin that brings the prompt: `shell`, `use` and the live view `audit watch`."""

from __future__ import annotations

from irons.command import ALL_SANDBOXES, Arg, Command, Flag, Opt
from irons.hookspecs import hookimpl


@hookimpl
def irons_commands() -> list[Command]:
    """Bring the prompt and what belongs to it."""
    return [
        Command(
            ("shell",),
            "Open the irons> prompt.",
            "irons_repl.shell:run",
            (Opt(("-c",), "Run these lines instead and end.", metavar="LINES", name="lines"),),
            pace="terminal",
            about="Without a terminal on stdin it runs the lines it reads there, up to the first that fails, with its exit code. "
            "So does -c. `irons` alone opens the prompt too. `irons help prompt` explains what it understands.",
            tolerant=True,
            examples=("irons shell", "irons shell -c 'list; egress mode'", "irons < setup.irons"),
        ),
        Command(
            ("use",),
            "Set the default sandbox of this session.",
            "irons_repl.use:use",
            (
                Arg(
                    "name",
                    "The sandbox; without one, the choice is shown.",
                    kind="sandbox",
                    takes="?",
                    implied=False,
                ),
                Flag(("--none",), "Clear the choice."),
            ),
            about="It works at the irons> prompt and in xonsh. In another shell: export IRONS_SANDBOX=NAME.",
            examples=("irons use agent-1", "irons use", "irons use --none"),
            exits=(3,),
        ),
        Command(
            ("audit", "watch"),
            "Watch connections as they happen; allow or deny hosts.",
            "irons_repl.watch.app:watch",
            (
                Arg("name", "The sandbox; else the one in use, else all.", kind="sandbox", takes="?"),
                ALL_SANDBOXES,
            ),
            pace="terminal",
            about="Hosts that were refused, or would be, and that no rule decides come first. a allows the chosen host, d denies it, u "
            "undoes the last change: each shows the rule and its scope (the sandbox that is watched, else all) and asks. Enter shows an "
            "event, / filters, s sorts, Tab switches to the log, ! opens the questions of mode ask, ? shows all keys, q leaves.",
            examples=("irons audit watch", "irons audit watch agent-1"),
            exits=(3, 4, 6),
            aliases=(("watch",),),
            scope="name",
        ),
    ]
