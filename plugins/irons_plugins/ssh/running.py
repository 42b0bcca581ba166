"""Handler of `exec`: a program in a sandbox, without a terminal, with its exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.command import Result
from irons.errors import IronsError, UsageError
from irons_plugins.ssh.ending_soon import telling_end
from irons_plugins.ssh.entrance import entrance, failing_as_ssh
from irons_plugins.ssh.program import Program, Ran, run_program
from irons_plugins.ssh.refused import Refusals
from irons_plugins.ssh.variables import variables_of
from irons_plugins.ssh.workdir import workdir_of

if TYPE_CHECKING:
    from irons.context import Context


def execute(
    ctx: Context,
    *,
    name: str,
    timeout: float | None,
    env: tuple[str, ...],
    workdir: str | None,
    no_stdin: bool,
    strict_hostkeys: bool,
    words: tuple[str, ...],
) -> Result:
    """Run a program in the sandbox and return its exit code; 124 where its time ran out, 125 where irons itself failed.

    Raises:
        UsageError: No program, a variable that is not set here.
        IronsError: OpenSSH could not get there, or lost it; TERM or HUP came.
        KeyboardInterrupt: Ctrl-C; what was started in the sandbox has been ended.
    """
    if not words:
        raise UsageError("exec needs a program to run", hint=f"irons exec {name} -- CMD…")
    if timeout is not None and timeout <= 0:
        raise UsageError("--timeout takes a duration above 0")
    program = Program(
        words,
        variables_of(env, ctx.settings.env),
        workdir_of(workdir, ctx.settings.env),
        timeout,
        no_stdin,
    )
    with failing_as_ssh():
        way = entrance(ctx, name, strict=strict_hostkeys)
        refusals = Refusals(ctx, name)
        with telling_end(ctx, name, raw=False):
            ran = run_program(ctx, way, program)
    return _told(ctx, ran, refusals)


def _told(ctx: Context, ran: Ran, refusals: Refusals) -> Result:
    """Say how it ended and what egress refused, whatever came of it."""
    ending = ran.ending
    if ending.sentence and ran.interrupt is None:
        ctx.progress(f"irons: {ending.sentence}")
    refusals.report()
    if ending.error is not None:
        raise ending.error
    if ran.interrupt is not None:
        if not ending.sentence:
            raise ran.interrupt
        error = IronsError(ending.sentence)
        error.exit_code = ending.code
        raise error
    return Result(None, exit=ending.code)
