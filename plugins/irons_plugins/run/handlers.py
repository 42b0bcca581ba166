"""Handler of `run`: a program in a sandbox of its own, from create to destroy, however it ends."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from irons.command import FAILED_ITSELF, Result
from irons.errors import Interrupted, IronsError, UsageError
from irons.record import NamedTuple
from irons.text import size_text
from irons_plugins.lifecycle.creating import make, policy_of
from irons_plugins.lifecycle.handlers import destroy_held
from irons_plugins.lifecycle.holding import Holder
from irons_plugins.lifecycle.waiting import patience
from irons_plugins.run.choosing import Chosen, chosen
from irons_plugins.run.transfer import PLACE, AbsentError, WantedFile, bring, send, wanted
from irons_plugins.ssh.connect.connect_info import Entrance, entrance
from irons_plugins.ssh.connect.variables import variables_of
from irons_plugins.ssh.connect.workdir import Workdir
from irons_plugins.ssh.ending.denial_summary import Refusals
from irons_plugins.ssh.ending.telling import asked_form, ended_by, tell
from irons_plugins.ssh.execute.program import Program, run_program
from irons_plugins.ssh.execute.report import OutputTail, error_object, reported
from irons_plugins.ssh.openssh.subprocess import Sinks, ended_by_signals

if TYPE_CHECKING:
    from irons.client.models.sandboxes import CreateOptions
    from irons.context import Context

KEPT_FOR = 3600
"""Seconds that a sandbox is kept whose program failed and to which files were sent."""

MOST = 4 << 30
"""Bytes that each `--bring` may fetch, unless `--bring-limit` says otherwise."""


class _Plan(NamedTuple):
    """What is done in the sandbox, checked before it is made."""

    name: str
    program: Program
    files: Chosen | None
    results: tuple[WantedFile, ...]
    target: Path
    most: int


def run(
    ctx: Context,
    *,
    keep: bool,
    image: str | None,
    mode: str | None,
    allow: tuple[str, ...],
    env: tuple[str, ...],
    timeout: float | None,
    directory: str | None,
    everything: str | None,
    results: tuple[str, ...],
    into: str,
    limit: int | None,
    words: tuple[str, ...],
) -> Result:
    """Create a sandbox, send files, run a program, fetch results, and destroy the sandbox; the exit code is the program's.

    The server destroys it too where this process is killed: it is held by a request of this process's.

    Raises:
        UsageError: No program, a variable that is not set here, a directory that is not sent.
        IronsError: irons failed, with 125; the sandbox is destroyed, or kept for an hour where files were sent.
        KeyboardInterrupt: Ctrl-C; the sandbox is destroyed.
    """
    if not words or not words[0]:
        raise UsageError("run needs a program", hint="irons run -- CMD…")
    if timeout is not None and timeout <= 0:
        raise UsageError("--timeout takes a duration above 0")
    if directory is not None and everything is not None:
        raise UsageError("--with and --with-all do not go together")
    target = Path(into)
    if not target.is_dir():
        raise UsageError(f"--into {into}: there is no such directory")
    files = _files(ctx, directory, everything)
    start = Workdir(PLACE) if files else Workdir()
    plan = _Plan(
        f"run-{secrets.token_hex(4)}",
        Program(words, variables_of(env, ctx.settings.env, ctx.face), start, timeout),
        files,
        tuple(wanted(text) for text in results),
        target,
        MOST if limit is None else limit,
    )
    try:
        with ended_by_signals():
            if not keep:
                # Asked before a thread asks, too: the first call starts the local backend.
                ctx.api.need("holds", "a server that ends a sandbox with its client")
            holder = nullcontext() if keep else Holder(ctx, plan.name)
            with holder, _removed(ctx, plan.name, keep=keep) as fate:
                _made(ctx, plan.name, image=image, mode=_attended(ctx, mode), allow=allow, held=not keep)
                return _inside(ctx, entrance(ctx, plan.name), plan, fate)
    except KeyboardInterrupt as interrupt:
        raise ended_by(interrupt) from None


def _attended(ctx: Context, mode: str | None) -> str | None:
    """Return the mode to create the sandbox with: `deny` in place of `ask` where no one could see a question."""
    if mode != "ask" or ctx.streams.stdin_is_tty or ctx.streams.stderr_is_tty:
        return mode
    ctx.progress("the mode is deny and not ask: without a terminal no one is asked")
    return "deny"


def _files(ctx: Context, directory: str | None, everything: str | None) -> Chosen | None:
    named = directory if directory is not None else everything
    if named is None:
        return None
    env = ctx.settings.env
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    guarded = (home / ".ssh", ctx.settings.state_dir)
    return chosen(named, everything=everything is not None, home=home, guarded=guarded)


def _made(
    ctx: Context, name: str, *, image: str | None, mode: str | None, allow: tuple[str, ...], held: bool
) -> None:
    try:
        _create(ctx, name, image=image, mode=mode, allow=allow, held=held)
    except Interrupted as error:
        # What `create` would leave going on is ended here.
        cause = error.__context__
        raise (cause if isinstance(cause, KeyboardInterrupt) else KeyboardInterrupt) from None


def _create(
    ctx: Context, name: str, *, image: str | None, mode: str | None, allow: tuple[str, ...], held: bool
) -> None:
    wish: CreateOptions = {**policy_of(mode, allow, None), "image": image, "held": held or None}
    next(make(ctx, (name,), wish, timeout=patience(ctx, None)))


class _Fate:
    """What becomes of the sandbox at the end: it goes, unless something says that it stays."""

    def __init__(self, *, stays: bool) -> None:
        self.stays = stays


@contextmanager
def _removed(ctx: Context, name: str, *, keep: bool) -> Iterator[_Fate]:
    """Destroy the sandbox at the end, however that comes, unless it is kept."""
    fate = _Fate(stays=keep)
    try:
        yield fate
    finally:
        if not fate.stays:
            destroy_held(ctx, name)


def _inside(ctx: Context, way: Entrance, plan: _Plan, fate: _Fate) -> Result:
    try:
        if plan.files is not None:
            count = len(plan.files.names)
            ctx.progress(f"irons: sending {_counted(count)}, {size_text(plan.files.size)}, to {PLACE}")
            send(ctx, way, plan.files)
        refusals = Refusals(ctx, plan.name)
        form = asked_form(ctx)
        out, err = OutputTail(), OutputTail()
        ran = run_program(ctx, way, plan.program, Sinks(out, err) if form else Sinks())
        if not form:
            tell(ctx, ran, refusals)
        brought, absent = ([], []) if ran.interrupt is not None else _fetched(ctx, way, plan)
    except (IronsError, OSError):
        _keep_if_sent(ctx, plan, fate)
        raise
    if ran.interrupt is not None:
        raise ran.interrupt
    code, error = ran.ending.code, ran.ending.error
    missing = None
    if not code and absent:
        # The program succeeded, and what it was to make is not there.
        missing = absent.pop()
        code, error = FAILED_ITSELF, missing
    for each in absent:
        ctx.progress(f"irons: {each.message}")
    if code:
        _keep_if_sent(ctx, plan, fate)
    elif fate.stays:
        ctx.progress(f"irons: {plan.name} is kept: irons ssh {plan.name}")
    if form:
        report = reported(plan.name, ran, out, err, refusals)._asdict()
        if missing is not None:
            report |= {"error": error_object(missing)}
        return Result({**report, "exit": code, "kept": fate.stays, "brought": brought}, exit=code)
    if error is not None:
        raise error
    return Result(None, exit=code)


def _fetched(ctx: Context, way: Entrance, plan: _Plan) -> tuple[list[dict[str, object]], list[IronsError]]:
    """Fetch every result; return what came, and an error for each that is not there."""
    brought: list[dict[str, object]] = []
    absent: list[IronsError] = []
    for what in plan.results:
        start = PLACE if plan.files is not None else "~"
        try:
            placed = bring(ctx, way, what, start, plan.target, plan.most)
        except AbsentError as error:
            error.exit_code = FAILED_ITSELF
            absent.append(error)
            continue
        left = "".join(f"; {count:,} {why} left out" for why, count in placed.left_out.items())
        where = plan.target.joinpath(*what.below)
        ctx.progress(f"irons: brought {_counted(placed.files)}, {size_text(placed.size)}, to {where}{left}")
        brought.append(
            {"path": what.text, "files": placed.files, "bytes": placed.size, "left_out": placed.left_out}
        )
    return brought, absent


def _counted(files: int) -> str:
    return f"{files:,} file{'s' if files != 1 else ''}"


def _keep_if_sent(ctx: Context, plan: _Plan, fate: _Fate) -> None:
    """Keep a sandbox for an hour that holds files of the caller's and a program that failed, and print a note."""
    name = plan.name
    if fate.stays:
        ctx.progress(f"irons: {name} is kept: irons ssh {name}")
        return
    if plan.files is None:
        return
    try:
        ctx.api.change(name, ttl=KEPT_FOR, rm=True)
        ctx.api.release(name)
    except IronsError as error:
        ctx.progress(f"irons: {name} can't be kept: {error.message}")
        return
    fate.stays = True
    ctx.progress(
        f"irons: {name} is kept for an hour: irons ssh {name} shows what is there, irons destroy {name} --force ends it"
    )
