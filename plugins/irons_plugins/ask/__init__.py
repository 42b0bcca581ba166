"""The built-in plugin `ask`: a person is asked about connections of mode `ask`, and answers.

The commands as data are here; `pane` is the terminal. What it shows and what its keys do is `irons.asking`, for every face.
Nothing here decides what is asked.
"""

from __future__ import annotations

from irons.command import Arg, Column, Command, Flag, Opt, View
from irons.hookspecs import hookimpl

_HERE = "irons_plugins.ask"
ANSWERS = ("once", "stop", "hour", "always", "no", "never")


@hookimpl
def irons_commands() -> list[Command]:
    """Bring the commands."""
    return [
        Command(
            ("ask",),
            "Be asked about connections of mode ask, and answer.",
            f"{_HERE}.handlers:ask",
            (
                Flag(("--list",), "List the open questions and end.", pace="quick", name="listed"),
                Flag(("--stay",), "Count as watching without a key pressed."),
            ),
            pace="terminal",
            view=View(
                (
                    Column("id"),
                    Column("sandbox"),
                    Column("pattern", "asks for", cut="start"),
                    Column("protocol", cut="end"),
                    Column("waiting"),
                    Column("count", "tried"),
                    Column("since", cut="end"),
                    Column("reason", "the sandbox says", cut="end"),
                    Column("program", "the sandbox's program", cut="end", hide="empty"),
                ),
                empty="Nothing is asked.",
            ),
            about="While it runs, connections that no rule covers wait for an answer, 4 seconds unless [local] ask_hold says otherwise: for "
            "10 minutes after each key, or with --stay for as long as it runs. o lets those pass that wait, s allows the host until the sandbox stops, h for an hour, "
            "a for good; n refuses it for 5 minutes, N for good. A allows it for all sandboxes, p the preset that the host is in; w takes a wider pattern. Where there is no terminal it prints each question as it comes.",
            examples=("irons ask", "irons ask --list -o json", "irons ask --stay -o jsonl"),
            exits=(4, 6),
            leads=True,
        ),
        Command(
            ("ask", "answer"),
            "Answer an open question.",
            f"{_HERE}.handlers:answer",
            (
                Arg("id", "The question's id, as irons ask --list has it."),
                Arg("answer", "The answer.", kind="choice", choices=ANSWERS),
                Flag(("-a", "--all"), "Put the rule for all sandboxes.", name="everywhere"),
                Opt(("--pattern",), "Put a wider rule, which covers it.", metavar="PATTERN"),
            ),
            view=View(line="irons.asking.answers:answered"),
            about="once and no are for the connections that wait; where none waits, once is for the next within a minute, and no lasts "
            "5 minutes. stop, hour, always and never are rules of that sandbox for just that host and port.",
            examples=(
                "irons ask answer q_1a2b3c4d once",
                "irons ask answer q_1a2b3c4d always --pattern '*.example.com'",
            ),
            exits=(3, 4, 5, 6),
        ),
    ]
