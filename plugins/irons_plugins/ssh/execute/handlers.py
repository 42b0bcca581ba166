"""Handler of `exec`: a program in a sandbox, or in several, without a terminal, with its exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.command import Result, View
from irons.errors import IronsError, UsageError
from irons_plugins.selection import selected
from irons_plugins.ssh.connect.connect_info import entrance, failing_as_ssh
from irons_plugins.ssh.connect.variables import variables_of
from irons_plugins.ssh.connect.workdir import workdir_of
from irons_plugins.ssh.ending.denial_summary import Refusals
from irons_plugins.ssh.ending.ending_soon import telling_end
from irons_plugins.ssh.ending.telling import asked_form, ended_by, tell
from irons_plugins.ssh.execute.program import Program, run_program
from irons_plugins.ssh.openssh.subprocess import Sinks

if TYPE_CHECKING:
    from irons.context import Context
    from irons_plugins.ssh.execute.report import Report
    from irons_plugins.ssh.execute.several import SandboxResult

_NAMED_AT_MOST = 10


def execute(
    ctx: Context,
    *,
    names: tuple[str, ...],
    everything: bool,
    labels: tuple[str, ...],
    timeout: float | None,
    env: tuple[str, ...],
    workdir: str | None,
    no_stdin: bool,
    strict_hostkeys: bool,
    words: tuple[str, ...],
) -> Result:
    """Run a program in sandboxes and return its exit code, the worst of several; 124 out of time, 125 where irons itself failed.

    Raises:
        UsageError: No program, a variable that is not set here.
        IronsError: OpenSSH could not get there, or lost it; TERM or HUP came.
        KeyboardInterrupt: Ctrl-C; what was started in the sandboxes has been ended.
    """
    if not words or not words[0]:
        where = names[0] if names else "--all"
        raise UsageError("exec needs a program to run", hint=f"CMD goes after --: irons exec {where} -- CMD")
    if timeout is not None and timeout <= 0:
        raise UsageError("--timeout takes a duration above 0")
    program = Program(
        words,
        variables_of(env, ctx.settings.env, ctx.face),
        workdir_of(workdir, ctx.settings.env),
        timeout,
        no_stdin,
    )
    meant = selected(ctx, names, everything=everything, labels=labels)
    if everything or labels or len(meant) != 1:
        return _on_several(ctx, meant, program, strict=strict_hostkeys)
    return _on_one(ctx, meant[0], program, strict=strict_hostkeys)


def _on_one(ctx: Context, name: str, program: Program, *, strict: bool) -> Result:
    if asked_form(ctx):
        return _reported(ctx, name, program, strict=strict)
    way = entrance(ctx, name, strict=strict)
    refusals = Refusals(ctx, name)
    with telling_end(ctx, name, raw=False):
        ran = run_program(ctx, way, program)
    tell(ctx, ran, refusals)
    if ran.ending.error is not None:
        raise ran.ending.error
    if ran.interrupt is not None:
        raise ended_by(ran.interrupt)
    return Result(None, exit=ran.ending.code)


def _reported(ctx: Context, name: str, program: Program, *, strict: bool) -> Result:
    """Run it and return its report, which also tells why it was not started."""
    from irons_plugins.ssh.execute.report import OutputTail, failed, reported

    out, err = OutputTail(), OutputTail()
    try:
        with failing_as_ssh():
            way = entrance(ctx, name, strict=strict)
            refusals = Refusals(ctx, name)
            ran = run_program(ctx, way, program, Sinks(out, err))
    except IronsError as error:
        return Result(failed(name, error), exit=error.exit_code)
    return Result(reported(name, ran, out, err, refusals), exit=ran.ending.code)


def _on_several(ctx: Context, names: tuple[str, ...], program: Program, *, strict: bool) -> Result:
    """Run it in all of them; reports come as JSON lines as each ends, or as one array at the end."""
    from irons.terminal.output import show
    from irons_plugins.ssh.execute.prefixed import Shared
    from irons_plugins.ssh.execute.several import Outputs, run_on_all

    form = asked_form(ctx)
    streams = ctx.streams
    done: list[SandboxResult] = []
    reports: list[Report] = []

    def finished(one: SandboxResult) -> None:
        done.append(one)
        if one.report is None:
            return
        if form == "jsonl":
            show([one.report], View(), "jsonl", streams, follow=True)
        else:
            reports.append(one.report)

    outputs = Outputs(
        Shared(streams.stdout, (streams.columns or 80) if streams.stdout_is_tty else None),
        Shared(streams.stderr, (streams.stderr_columns or 80) if streams.stderr_is_tty else None),
    )
    interrupt = run_on_all(ctx, names, program, finished, strict=strict, outputs=None if form else outputs)
    worst = max((one.code for one in done), default=0)
    if form:
        return Result(reports if form == "json" else None, exit=worst)
    if not names:
        ctx.progress("this profile made no sandbox")
    failed = sorted((one for one in done if one.code), key=lambda one: one.name)
    if failed:
        listed = ", ".join(f"{one.name} ({one.code})" for one in failed[:_NAMED_AT_MOST])
        more = len(failed) - _NAMED_AT_MOST
        listed += f" and {more} more" if more > 0 else ""
        ctx.progress(f"irons: exit codes of {len(failed)} of {len(names)} sandboxes: {listed}")
    if interrupt is not None:
        raise ended_by(interrupt)
    return Result(None, exit=worst)
