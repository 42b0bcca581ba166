"""`snapshot …`, `restore` and `fork` as data; `copying` has their handlers.

Every start reads this module, so it imports nothing but what commands are made of.
"""

from __future__ import annotations

from irons.command import Arg, Column, Command, Flag, Opt, View
from irons.wire_values import LONGEST_NOTE
from irons_plugins.lifecycle.create import ASYNC, OUTCOME, WAIT
from irons_policy.modes import MODES

_HERE = "irons_plugins.lifecycle"
_SANDBOX = Arg("name", "The sandbox.", kind="sandbox", implied=False)
_SNAPSHOT = Arg("snapshot", "The snapshot.", kind="snapshot", metavar="SNAP")
_ROWS = View(
    (
        Column("name"),
        Column("sandbox"),
        Column("created_at", "created"),
        Column("size", text=f"{_HERE}.copying:size"),
        Column("pause", text=f"{_HERE}.copying:pause"),
        Column("note"),
    ),
    empty="There are no snapshots; irons snapshot create NAME makes one.",
)

COPIES = (
    Command(
        ("snapshot", "create"),
        "Keep the files of a sandbox as they are now.",
        f"{_HERE}.copying:create_snapshot",
        (
            _SANDBOX,
            Opt(("--as",), "What to call it. [default: NAME-1, and so on]", name="snapshot", metavar="SNAP"),
            Opt(("--note",), f"A note of {LONGEST_NOTE} characters at most.", metavar="TEXT"),
        ),
        pace="waiting",
        view=View(line=f"{_HERE}.copying:made"),
        about="One that runs is paused for as short as can be, and goes on; how long is printed. A snapshot has the rules and the mode "
        "of then, for copies of it.",
        examples=(
            "irons snapshot create my-sandbox",
            "irons snapshot create my-sandbox --as clean --note 'before the upgrade'",
        ),
        exits=(3, 4, 5, 6),
    ),
    Command(
        ("snapshot", "list"),
        "List the snapshots of a sandbox, or all of them.",
        f"{_HERE}.copying:list_snapshots",
        (Arg("name", "The sandbox.", kind="sandbox", takes="?", implied=False),),
        view=_ROWS,
        examples=("irons snapshot list", "irons snapshot list my-sandbox -o json"),
        exits=(3, 4, 6),
    ),
    Command(
        ("snapshot", "remove"),
        "Remove a snapshot; what was made from it stays whole.",
        f"{_HERE}.copying:remove_snapshot",
        (_SNAPSHOT,),
        examples=("irons snapshot remove clean",),
        exits=(3, 4, 5, 6),
    ),
    Command(
        ("restore",),
        "Bring back the files of a snapshot.",
        f"{_HERE}.copying:restore",
        (
            _SANDBOX,
            _SNAPSHOT,
            Flag(("--yes", "-y"), "Stop one that runs without asking."),
            WAIT,
        ),
        pace="waiting",
        view=View(line=f"{_HERE}.copying:restored"),
        about="The sandbox is stopped, and is not started again. Its files as they were are kept as another snapshot. Rules, mode, keys and host key "
        "stay as they are.",
        examples=("irons restore my-sandbox clean",),
        exits=(3, 4, 5, 6),
    ),
    Command(
        ("fork",),
        "Make copies of a sandbox as it is now, and start them.",
        f"{_HERE}.copying:fork",
        (
            _SANDBOX,
            Arg(
                "names",
                "The names of the copies; --try needs none.",
                kind="new-sandbox",
                takes="*",
                metavar="NEW",
            ),
            Opt(
                ("--try",),
                "Run this shell line in one copy, and show what it changed.",
                metavar="LINE",
                name="line",
            ),
            Flag(("--keep",), "With --try: keep the copy; do not ask."),
            Flag(("--memory",), "Refused: a copy boots, and has no memory of NAME."),
            Opt(("--mode",), "Their own egress mode. [default: that of NAME]", choices=MODES, kind="choice"),
            Opt(
                ("--allow",),
                "Allow this host instead of those of NAME. May be repeated.",
                metavar="DOMAIN",
                kind="domain",
                many=True,
            ),
            Opt(
                ("--policy",),
                "A policy file, in place of the rules of NAME.",
                metavar="FILE",
                kind="file",
            ),
            # `--async` is older than this command.
            ASYNC._replace(old=()),
            WAIT,
        ),
        pace="waiting",
        view=OUTCOME,
        about="""All are made, or none. A copy is a new machine, with a host key, a machine-id and a host name of its own. It has the files, limits, authorized keys, rules and mode of NAME, and what NAME denies stays denied. Labels, note, --env, --ttl and --idle-stop are not copied.
With --try there is one copy, which runs LINE. The exit code and the files that it added, changed or removed are printed on stderr. On a terminal you are asked whether the copy is kept; elsewhere it is dropped without --keep. The exit code is that of LINE, or 125 where irons failed.""",
        examples=(
            "irons fork my-sandbox try-one try-two",
            "irons fork my-sandbox strict --mode deny",
            "irons fork my-sandbox --try 'sudo apt-get -y full-upgrade'",
        ),
        exits=(3, 4, 5, 6, 125),
    ),
)
"""The commands."""
