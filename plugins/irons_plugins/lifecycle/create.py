"""`create` as data and its handler: an option is declared, taken, sent and shown here; `creating` does the work.

Every start reads this module, so the handler imports what it needs when it is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from irons.command import Arg, Column, Command, Flag, Opt, View
from irons.errors import UsageError
from irons.wire_values import LONGEST_NOTE
from irons_policy.modes import MODE_SYNONYMS, MODES

if TYPE_CHECKING:
    from irons.client.api import Sandbox
    from irons.client.models.sandboxes import CreateOptions
    from irons.context import Context

_HERE = "irons_plugins.lifecycle"

ASYNC = Flag(("--no-wait",), "Return at once, without waiting for it.", name="at_once", old=("--async",))
WAIT = Opt(
    ("--wait-timeout",),
    "How long to wait, such as 90 or 5m. [default: 10m, or the setting wait_timeout]",
    metavar="DURATION",
    type="seconds",
)
OUTCOME = View(line=f"{_HERE}.views:outcome")
"""What became of each sandbox, a line each."""

CREATED_WITH = (Column("labels", text=f"{_HERE}.views:labelled"), Column("note"))
"""What `status` shows of the options."""

CREATE = Command(
    ("create",),
    "Create sandboxes and wait until they are ready.",
    f"{_HERE}.create:create",
    (
        Arg("names", "The names of the new sandboxes.", kind="new-sandbox", takes="+", metavar="NAME"),
        Opt(
            ("-k", "--key"),
            "The SSH public key file to authorize. [default: the setting public_key, else ~/.ssh/id_rsa.pub, "
            "else the first of id_ed25519, id_ecdsa, id_ed25519_sk, id_ecdsa_sk]",
            metavar="PATH",
            kind="file",
        ),
        Opt(
            ("--mode",),
            "Its own egress mode. [default: deny with --allow]",
            choices=MODES,
            kind="choice",
            synonyms=MODE_SYNONYMS,
        ),
        Opt(
            ("--allow",),
            "Allow a host from the first packet on. May be repeated.",
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
        Opt(
            ("--from",),
            "The snapshot it starts from, with its keys and rules.",
            metavar="SNAP",
            kind="snapshot",
            name="snapshot",
        ),
        Opt(("--cpus",), "How many CPUs it may use, such as 1.5.", metavar="N", type="float"),
        Opt(("--memory",), "How much memory it may use, such as 2G.", metavar="SIZE", type="size"),
        Opt(("--disk",), "How much disk it may use, such as 10G.", metavar="SIZE", type="size"),
        Opt(("--engine",), "The sandbox engine. [default: the server's]", metavar="ENGINE"),
        Opt(
            ("--on",),
            "The member of an Incus cluster to create it on.",
            metavar="MEMBER",
            name="member",
        ),
        Opt(
            ("--label",),
            "A label to find it by. May be repeated.",
            metavar="KEY=VALUE",
            kind="label",
            many=True,
            name="labels",
        ),
        Opt(("--note",), f"A note to show with it, of {LONGEST_NOTE} characters at most.", metavar="TEXT"),
        Opt(
            ("--env",),
            "Set a variable there, by its name here. May be repeated.",
            metavar="KEY",
            kind="variable",
            many=True,
        ),
        Flag(("--entrypoint",), "Run the image's entrypoint at each start."),
        Opt(("--ttl",), "Stop it after this time, such as 8h.", metavar="DURATION", type="seconds"),
        Flag(("--rm",), "Destroy it at the end of --ttl."),
        Opt(
            ("--idle-stop",),
            "Stop it once idle for this long, such as 30m.",
            metavar="DURATION",
            type="seconds",
        ),
        Flag(("--if-missing",), "Leave a sandbox that is there as it is."),
        ASYNC,
        WAIT,
    ),
    pace="waiting",
    view=OUTCOME,
    examples=(
        "irons create my-sandbox",
        "irons create my-sandbox --key ~/.ssh/work.pub --no-wait",
        "irons create my-sandbox --mode deny --allow pypi.org --allow files.pythonhosted.org",
        "irons create my-sandbox --policy policy.toml --cpus 2 --memory 4G",
        "irons create one two three --label team=web --if-missing",
        "irons create my-sandbox --ttl 8h --rm --idle-stop 30m",
        "irons create my-sandbox --note 'for the review of #42'",
        "irons create cache --image redis:7 --entrypoint",
        "irons create again --from clean",
    ),
    about="Several are made at the same time; one that fails does not stop the others, and leaves no name taken. Idle is a "
    "sandbox without an SSH session, without a connection, and with less than 1 % of a processor in use.",
    exits=(3, 4, 5, 6),
)
"""The command `create`."""


def create(
    ctx: Context,
    *,
    names: tuple[str, ...],
    key: str | None,
    mode: str | None,
    allow: tuple[str, ...],
    policy: str | None,
    image: str | None,
    snapshot: str | None,
    cpus: float | None,
    memory: int | None,
    disk: int | None,
    engine: str | None,
    member: str | None,
    labels: tuple[str, ...],
    env: tuple[str, ...],
    note: str | None,
    entrypoint: bool,
    ttl: float | None,
    rm: bool,
    idle_stop: float | None,
    if_missing: bool,
    at_once: bool,
    wait_timeout: float | None,
) -> Sandbox | Iterator[Sandbox]:
    """Create sandboxes, all at the same time, with the public key's text; wait until they are ready.

    The private key that goes with it is remembered for each. One that fails is removed, and does not stop the others. Where
    hosts are allowed and no mode is named, the mode is deny. At a terminal the first one on a new local backend asks before how
    new sandboxes start.

    Raises:
        UsageError: A private key given by mistake, an invalid pattern or policy, a variable that is not set here.
        Unsupported: The server does not know what was asked for beyond name and key; nothing was created.
        Interrupted: Ctrl-C; what is being made goes on, and the error says which that is.
            Before there is an answer to how new sandboxes start, nothing is made.
    """
    from irons_plugins.lifecycle.creating import make, policy_of
    from irons_plugins.lifecycle.extending import whole_seconds
    from irons_plugins.lifecycle.views import told
    from irons_plugins.lifecycle.waiting import patience
    from irons_plugins.selection import checked_labels
    from irons_plugins.ssh.connect.variables import variables_of

    if cpus is not None and not 0 < cpus < 4096:
        raise UsageError(f"--cpus takes a number of CPUs above 0, not {cpus:g}")
    if note is not None and len(note) > LONGEST_NOTE:
        raise UsageError(f"--note takes at most {LONGEST_NOTE} characters, not {len(note)}")
    if rm and ttl is None:
        raise UsageError("--rm destroys at the end of --ttl", hint="irons create NAME --ttl 8h --rm")
    if snapshot is not None and (image or engine):
        raise UsageError(
            "--from names a snapshot, which has its image and its engine",
            hint="leave --image and --engine out",
        )
    wish: CreateOptions = {
        **policy_of(mode, allow, policy),
        "image": image,
        "snapshot": snapshot,
        "cpus": cpus,
        "memory": memory,
        "disk": disk,
        "engine": engine,
        "member": member,
        "labels": checked_labels(labels, valued=True) or None,
        "note": note or None,
        "environment": variables_of(env, ctx.settings.env, ctx.face) or None,
        "entrypoint": entrypoint or None,
        "ttl": None if ttl is None else whole_seconds(ttl, "--ttl"),
        "rm": rm or None,
        "idle_stop": None if idle_stop is None else whole_seconds(idle_stop, "--idle-stop"),
    }
    if mode is None and not allow and policy is None:
        _ask_first_mode(ctx)
    timeout = None if at_once else patience(ctx, wait_timeout)
    rows = map(told, make(ctx, names, wish, key=key, timeout=timeout, if_missing=if_missing))
    return next(rows) if len(names) == 1 else rows


def _ask_first_mode(ctx: Context) -> None:
    """Ask how new sandboxes start, if a person is there to answer and no one has chosen it yet."""
    streams = ctx.streams
    by_hand = streams.stdin_is_tty and streams.stderr_is_tty and not ctx.settings.no_input
    if by_hand and ctx.settings["output"] not in ("json", "jsonl") and ctx.api.backend.local:
        from irons_plugins.egress.first_mode import ask_first_mode

        ask_first_mode(ctx)
