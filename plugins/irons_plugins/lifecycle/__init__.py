"""The built-in plugin `lifecycle`: sandboxes made, copied, started, stopped, destroyed, looked at and waited for.

The commands as data are here; handlers call the client and wait for states.
Nothing here makes a machine or imports the backend.
"""

from __future__ import annotations

from irons.command import Arg, Column, Command, Flag, Opt, View
from irons.hookspecs import hookimpl
from irons_plugins.lifecycle.copies import COPIES
from irons_plugins.lifecycle.create import ASYNC, CREATE, CREATED_WITH, OUTCOME, WAIT
from irons_plugins.selection import ALL, LABEL, NAMES

_HERE = "irons_plugins.lifecycle"
_STATES = ("creating", "starting", "running", "ready", "stopping", "stopped", "error")

LISTED = View(
    (
        Column("name"),
        Column("", "state", f"{_HERE}.views:bare", table=f"{_HERE}.views:standing"),
        Column("created_at", "created"),
        Column("labels", "", f"{_HERE}.views:labels"),
    ),
    empty="There are no sandboxes; irons create NAME makes one.",
)
"""How several sandboxes are shown."""


@hookimpl
def irons_commands() -> list[Command]:
    """Bring the commands of a sandbox's life."""
    return [
        CREATE,
        *COPIES,
        Command(
            ("start",),
            "Start sandboxes and wait until they are ready.",
            f"{_HERE}.handlers:start",
            (
                NAMES,
                ALL,
                LABEL,
                Flag(("--no-boot",), "Start neither services nor /etc/irons/boot.", name="without_boot"),
                ASYNC,
                WAIT,
            ),
            pace="waiting",
            view=OUTCOME,
            examples=(
                "irons start my-sandbox",
                "irons start my-sandbox --wait-timeout 2m",
                "irons start --label team=web",
            ),
            exits=(3, 4, 5, 6),
        ),
        Command(
            ("stop",),
            "Stop sandboxes and wait until they have stopped.",
            f"{_HERE}.handlers:stop",
            (NAMES, ALL, LABEL, ASYNC, WAIT),
            pace="waiting",
            view=OUTCOME,
            examples=("irons stop my-sandbox", "irons stop one two", "irons stop --all"),
            exits=(3, 4, 5, 6),
        ),
        Command(
            ("wait",),
            "Wait until sandboxes are in a state.",
            f"{_HERE}.handlers:wait",
            (
                NAMES,
                ALL,
                LABEL,
                Opt(
                    ("--for",),
                    "The state to wait for. [default: ready]",
                    choices=_STATES,
                    kind="choice",
                    default="ready",
                    name="state",
                ),
                WAIT,
            ),
            pace="waiting",
            view=OUTCOME,
            examples=("irons wait my-sandbox --for ready", "irons wait one two --for stopped"),
            exits=(3, 4, 6),
        ),
        Command(
            ("destroy",),
            "Destroy sandboxes for good.",
            f"{_HERE}.handlers:destroy",
            (
                # What can't be undone never means the sandbox in use.
                NAMES._replace(implied=False),
                ALL,
                LABEL,
                Flag(("--if-exists",), "Succeed where there is no such sandbox."),
                Flag(("--force",), "Stop a running one first, and do not ask."),
                WAIT,
            ),
            pace="waiting",
            view=View(line=f"{_HERE}.views:destroyed"),
            about="In a terminal it asks first, unless --force is given; elsewhere it never asks, and --all and --label need --force.",
            examples=(
                "irons destroy my-sandbox",
                "irons destroy one two three --force",
                "irons destroy --label ci=42 --if-exists --force",
            ),
            exits=(3, 4, 5, 6),
            aliases=(("rm",),),
        ),
        Command(
            ("extend",),
            "Give sandboxes more time, or a first --ttl.",
            f"{_HERE}.extending:extend",
            (
                NAMES,
                Arg("duration", "How much more, such as 2h; never: no end.", metavar="DURATION"),
                ALL,
                LABEL,
            ),
            view=View(line=f"{_HERE}.views:extended"),
            examples=("irons extend my-sandbox 2h30m", "irons extend my-sandbox never"),
            exits=(3, 4, 5, 6),
        ),
        Command(
            ("status",),
            "Show the state of sandboxes and what is known of them.",
            f"{_HERE}.handlers:status",
            (NAMES, ALL, LABEL),
            view=View(
                (
                    Column("name"),
                    Column("status", "state", table=f"{_HERE}.views:circled"),
                    Column("id"),
                    Column("created_at", "created"),
                    Column("updated_at", "updated"),
                    *CREATED_WITH,
                    Column("ends_at", "ends"),
                    Column("ends_in", "ends in", "irons.ending:lasting"),
                    Column("ends_with", "then", f"{_HERE}.views:done"),
                    Column("idle_stop", "stops when idle for", "irons.ending:lasting"),
                    Column("metadata", text=f"{_HERE}.views:facts"),
                ),
                record=True,
            ),
            about="🟢 running, ready · 🟡 creating, starting · 🟠 stopping, stopped · 🔴 error · ⚪ a state unknown to irons",
            examples=("irons status my-sandbox", "irons status my-sandbox -o json"),
            exits=(3, 4, 6),
        ),
        Command(
            ("list",),
            "List the sandboxes.",
            f"{_HERE}.handlers:list_all",
            (
                Flag(("-q", "--quiet"), "Print names only."),
                LABEL._replace(help="Only those with this label; each one more narrows it."),
            ),
            view=LISTED,
            about="Where the server cannot list them, those that this client has used are listed, with a note on stderr.",
            examples=("irons list", "irons list -q", "irons list --label team=web", "irons list -o json"),
            exits=(4, 6),
            aliases=(("ls",),),
        ),
    ]
