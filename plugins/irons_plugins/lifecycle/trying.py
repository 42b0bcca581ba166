"""`fork --try`: a program in a copy of a sandbox; then its exit code, the files that it changed, and whether the copy stays."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from irons.command import FAILED_ITSELF, Result
from irons.errors import IronsError, UsageError
from irons.record import NamedTuple
from irons_plugins.lifecycle.changed_files import ChangedFile, compare, lines, listing
from irons_plugins.lifecycle.handlers import destroy_held
from irons_plugins.lifecycle.holding import Holder
from irons_plugins.ssh.connect.connect_info import entrance
from irons_plugins.ssh.ending.denial_summary import Refusals
from irons_plugins.ssh.ending.telling import ended_by, tell
from irons_plugins.ssh.execute.program import Program, run_program
from irons_plugins.ssh.execute.report import OutputTail, reported
from irons_plugins.ssh.openssh.subprocess import Sinks, ended_by_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from irons.context import Context
    from irons_plugins.ssh.connect.connect_info import Entrance
    from irons_plugins.ssh.execute.program import ProgramRun


BOOTED_WITHIN = 60.0
"""Seconds that boot steps are waited for: what they change is not the program's doing. A step may be a service that never ends."""

_AGAIN = 0.3
"""Seconds after which the server is asked again whether they have ended."""


class _Fate:
    """What becomes of the copy at the end: it goes, unless someone keeps it.

    Attributes:
        made: Whether the sandbox of this name is the copy; until the server has made it, it may be another one.
        kept: Whether someone keeps it.
    """

    def __init__(self, *, made: bool) -> None:
        self.made, self.kept = made, False


class _Tried(NamedTuple):
    """What came of the program.

    Attributes:
        ran: How it ended.
        changed: The files that it changed; None where that is not known.
    """

    ran: ProgramRun
    changed: tuple[ChangedFile, ...] | None


def new_name(names: tuple[str, ...]) -> str:
    """Return the name of the copy: the one that is given, or one that no sandbox has.

    Raises:
        UsageError: More than one is given.
    """
    if len(names) > 1:
        raise UsageError("--try makes one copy, and takes one name at most")
    return names[0] if names else f"try-{secrets.token_hex(4)}"


def attempt(
    ctx: Context, name: str, line: str, *, given: bool, keep: bool, begun: Callable[[], Callable[[], object]]
) -> Result:
    """Run a shell line in a copy that is to be made, show what it changed, and keep or destroy the copy.

    The server destroys the copy too where this process is killed: it is held by a request of this process's.

    Args:
        ctx: The call's context.
        name: The copy.
        line: What its shell runs.
        given: Someone chose its name, which another sandbox may have: only a copy that the server has made is destroyed.
        keep: Keep it without a question.
        begun: Has the copy made, and returns what waits until it is ready.

    Raises:
        UsageError: The line is empty.
        IronsError: irons failed, with 125; the copy is destroyed.
        KeyboardInterrupt: Ctrl-C; the copy is destroyed.
    """
    if not line.strip():
        raise UsageError("--try takes a shell line", hint="irons fork NAME --try 'make test'")
    try:
        # Asked before a thread asks, too: the first call starts the local backend.
        ctx.api.need("fork-held", "a server that ends a copy with its client")
        with ended_by_signals(), Holder(ctx, name), _ended(ctx, name, _Fate(made=not given)) as fate:
            ready = begun()
            fate.made = True
            ready()
            return _in_copy(ctx, entrance(ctx, name), line, fate, keep=keep)
    except KeyboardInterrupt as interrupt:
        raise ended_by(interrupt) from None
    except IronsError as error:
        if not isinstance(error, UsageError):
            # Every other code may be the program's.
            error.exit_code = FAILED_ITSELF
        raise


@contextmanager
def _ended(ctx: Context, name: str, fate: _Fate) -> Iterator[_Fate]:
    """Destroy the copy at the end, however that comes, unless it is kept."""
    try:
        yield fate
    finally:
        if fate.made and not fate.kept:
            destroy_held(ctx, name)


def _in_copy(ctx: Context, way: Entrance, line: str, fate: _Fate, *, keep: bool) -> Result:
    # Not by option alone, as with `exec`: what this command answers is not the program's output.
    form = ctx.settings["output"] in ("json", "jsonl")
    out, err = OutputTail(), OutputTail()
    _booted(ctx, way.name)
    before = _listed(ctx, way)
    refusals = Refusals(ctx, way.name)
    ran = run_program(ctx, way, Program(("sh", "-c", line)), Sinks(out, err) if form else Sinks())
    if ran.interrupt is not None:
        raise ran.interrupt
    if not form:
        tell(ctx, ran, refusals)
    if ran.ending.error is not None:
        raise ran.ending.error
    after = _listed(ctx, way) if before else {}
    tried = _Tried(ran, compare(before, after) if before and after else None)
    if not form:
        _show(ctx, tried)
    if keep or _wanted(ctx, way.name):
        ctx.api.release(way.name)
        fate.kept = True
        ctx.progress(f"irons: {way.name} is kept: irons ssh {way.name}")
    else:
        ctx.progress(f"irons: {way.name} is dropped")
    if not form:
        return Result(None, exit=ran.ending.code)
    report = reported(way.name, ran, out, err, refusals)._asdict()
    rows = None if tried.changed is None else [each._asdict() for each in tried.changed]
    return Result({**report, "kept": fate.kept, "changed": rows}, exit=ran.ending.code)


def _booted(ctx: Context, name: str) -> None:
    """Wait until the boot steps of the copy have ended, where the server knows of them."""
    until = time.monotonic() + BOOTED_WITHIN
    with ctx.waiting(f"{name}: waiting for its boot steps"):
        while ctx.api.status(name).metadata.get("boot") == "running":
            if time.monotonic() > until:
                ctx.progress(f"irons: the boot steps of {name} still run: what they change is listed too")
                return
            time.sleep(_AGAIN)


def _listed(ctx: Context, way: Entrance) -> Mapping[bytes, bytes]:
    """List the copy's files; where that fails the program is tried all the same."""
    try:
        with ctx.waiting(f"{way.name}: looking at its files"):
            return listing(ctx, way)
    except IronsError as error:
        ctx.progress(f"irons: what changes is not known: {error.message}")
        return {}


def _show(ctx: Context, tried: _Tried) -> None:
    code = tried.ran.ending.code
    ctx.progress(f"irons: exit code {code}")
    for line in lines(tried.changed) if tried.changed is not None else ():
        ctx.progress(line)


def _wanted(ctx: Context, name: str) -> bool:
    """Ask whether the copy is kept; where no one is there to ask, it is not."""
    streams = ctx.streams
    if ctx.settings.no_input or not (streams.stdin_is_tty and streams.stderr_is_tty):
        return False
    return ctx.confirm(f"Keep {name}?", otherwise="--keep keeps it")
