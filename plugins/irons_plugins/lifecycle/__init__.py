"""The built-in plugin `lifecycle`: sandboxes made, started, stopped, destroyed, looked at and waited for."""

from __future__ import annotations

from irons.command import Arg, Column, Command, Flag, Opt, View
from irons.hookspecs import hookimpl

_HERE = "irons_plugins.lifecycle"
_STATES = ("creating", "starting", "running", "ready", "stopping", "stopped", "error")

_NAME = Arg("name", "The sandbox's name.", kind="sandbox")
_ASYNC = Flag(("--async",), "Return at once, without waiting for it.", name="at_once")
_WAIT = Opt(
    ("--wait-timeout",),
    "How long to wait, such as 90 or 5m. [default: 10m, or the setting wait_timeout]",
    metavar="DURATION",
    type="seconds",
)
_CIRCLE = f"{_HERE}.views:circled"
_OUTCOME = View(line=f"{_HERE}.views:outcome")


@hookimpl
def irons_commands() -> list[Command]:
    """Bring the commands of a sandbox's life."""
    return [
        Command(
            ("create",),
            "Create a sandbox and wait until it is ready.",
            f"{_HERE}.creating:create",
            (
                Arg("name", "Its name.", kind="new-sandbox"),
                Opt(
                    ("-k", "--key"),
                    "The public key file that opens it. [default: the setting public_key, else ~/.ssh/id_rsa.pub, "
                    "else the first of id_ed25519, id_ecdsa, id_ed25519_sk, id_ecdsa_sk]",
                    metavar="PATH",
                    kind="file",
                ),
                Opt(
                    ("--mode",),
                    "Its own egress mode; by default it follows the account's.",
                    choices=("warn", "deny"),
                    kind="choice",
                ),
                Opt(
                    ("--allow",),
                    "A host it may reach from its first packet on; may be given again.",
                    metavar="DOMAIN",
                    kind="domain",
                    many=True,
                ),
                Opt(
                    ("--policy",),
                    "A policy file: its mode and rules become the sandbox's own.",
                    metavar="FILE",
                    kind="file",
                ),
                Opt(("--image",), "The image it starts from.", metavar="IMAGE", kind="image"),
                Opt(("--cpus",), "How many CPUs it may use, such as 1.5.", metavar="N", type="float"),
                Opt(("--memory",), "How much memory it may use, such as 2G.", metavar="SIZE", type="size"),
                Opt(("--disk",), "How much disk it may use, such as 10G.", metavar="SIZE", type="size"),
                Opt(("--engine",), "What makes the machine.", metavar="ENGINE"),
                _ASYNC,
                _WAIT,
            ),
            pace="waiting",
            view=_OUTCOME,
            examples=(
                "irons create my-sandbox",
                "irons create my-sandbox --key ~/.ssh/work.pub --async",
                "irons create my-sandbox --mode deny --allow pypi.org --allow files.pythonhosted.org",
                "irons create my-sandbox --policy policy.toml --cpus 2 --memory 4G",
            ),
            exits=(4, 5, 6),
        ),
        Command(
            ("start",),
            "Start a sandbox and wait until it is ready.",
            f"{_HERE}.handlers:start",
            (_NAME, _ASYNC, _WAIT),
            pace="waiting",
            view=_OUTCOME,
            examples=("irons start my-sandbox", "irons start my-sandbox --wait-timeout 2m"),
            exits=(3, 4, 5, 6),
        ),
        Command(
            ("stop",),
            "Stop a sandbox and wait until it has stopped.",
            f"{_HERE}.handlers:stop",
            (_NAME, _ASYNC, _WAIT),
            pace="waiting",
            view=_OUTCOME,
            examples=("irons stop my-sandbox",),
            exits=(3, 4, 5, 6),
        ),
        Command(
            ("wait",),
            "Wait until sandboxes are in a state.",
            f"{_HERE}.handlers:wait",
            (
                Arg("names", "The sandboxes' names.", kind="sandbox", takes="+", metavar="NAME"),
                Opt(
                    ("--for",),
                    "The state to wait for. [default: ready]",
                    choices=_STATES,
                    kind="choice",
                    default="ready",
                    name="state",
                ),
                _WAIT,
            ),
            pace="waiting",
            view=_OUTCOME,
            examples=("irons wait my-sandbox --for ready", "irons wait one two --for stopped"),
            exits=(3, 4, 6),
        ),
        Command(
            ("destroy",),
            "Destroy sandboxes for good.",
            f"{_HERE}.handlers:destroy",
            (
                # What can't be undone never means the sandbox in use.
                Arg(
                    "names", "The sandboxes' names.", kind="sandbox", takes="+", metavar="NAME", implied=False
                ),
                Flag(("--force",), "Stop a running one first, and do not ask."),
                _WAIT,
            ),
            pace="waiting",
            view=View(line=f"{_HERE}.views:destroyed"),
            about="In a terminal it asks first, unless --force is given; elsewhere it never asks.",
            examples=("irons destroy my-sandbox", "irons destroy one two three --force"),
            exits=(3, 4, 5, 6),
            aliases=(("rm",),),
        ),
        Command(
            ("status",),
            "Show a sandbox's state and what is known of it.",
            f"{_HERE}.handlers:status",
            (_NAME,),
            view=View(
                (
                    Column("name"),
                    Column("status", "state", _CIRCLE),
                    Column("id"),
                    Column("created_at", "created"),
                    Column("updated_at", "updated"),
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
            (Flag(("-q", "--quiet"), "Print names only."),),
            view=View(
                (
                    Column("name"),
                    Column("status", "state", _CIRCLE),
                    Column("created_at", "created"),
                ),
                empty="There are no sandboxes; irons create NAME makes one.",
            ),
            about="Where the server cannot list them, those that this client has used are listed, and stderr says so.",
            examples=("irons list", "irons list -q", "irons list -o json"),
            exits=(4, 6),
            aliases=(("ls",),),
        ),
    ]
