"""Handlers: ssh, scp, forward."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from irons.cli.values import check_sandbox_name
from irons.command import Exec, Result
from irons.errors import IronsError, UsageError
from irons_plugins.ssh.connect.connect_info import Entrance, entrance
from irons_plugins.ssh.connect.kept import over_existing
from irons_plugins.ssh.connect.variables import variables_of
from irons_plugins.ssh.connect.workdir import workdir_of
from irons_plugins.ssh.openssh.command_line import local_path, remote_line, remote_path, scp_argv, ssh_argv
from irons_plugins.ssh.session import carried, send_options, session_line

if TYPE_CHECKING:
    from irons.context import Context
    from irons_plugins.ssh.connect.target import Target


def ssh(
    ctx: Context,
    *,
    name: str,
    printed: bool,
    strict_hostkeys: bool,
    forward_agent: bool,
    refused: bool,
    env: tuple[str, ...],
    workdir: str | None,
    words: tuple[str, ...],
) -> Exec | Result | str:
    """Run OpenSSH in this process's place, or return the command line that would.

    A v0 server may name a remote command to run in place of a shell; words of the caller's own win over it.

    Raises:
        UsageError: A variable that is not set here, or a value where its name belongs.
    """
    variables = variables_of(env, ctx.settings.env, ctx.face)
    start = workdir_of(workdir, ctx.settings.env)
    if variables and printed:
        raise UsageError(
            "--env does not go with --command: the printed line would have to hold the value",
            hint=f"irons ssh {name} --env {env[0]} runs it",
        )

    def line_for(target: Target) -> str | None:
        if variables or workdir:
            return session_line(words, target.command, variables, start)
        return remote_line(words)

    if printed:
        with _with_codes_of_its_own():
            way = _entrance(ctx, name, strict=strict_hostkeys, agent=forward_agent, direct=False)
        remote = line_for(way.target)
        instead = way.target.command if remote is None else ""
        # What stands in place of a shell gets a terminal, as the shell would.
        flags = ("-t",) if instead or (workdir and not words) else ()
        return shlex.join(ssh_argv(way.target, way.options, flags, instead or remote))
    way = _entrance(ctx, name, strict=strict_hostkeys, agent=forward_agent)
    if not variables:
        # OpenSSH sends the variables that the kept connection was made to send: none.
        way = over_existing(ctx, way)
    person = ctx.streams.stdin_is_tty and ctx.streams.stdout_is_tty
    line = line_for(way.target) or way.target.command or None
    options = (*send_options(variables), *way.options)
    from irons_plugins.ssh.ending.leaving import Leaving

    leaving = Leaving.of(ctx, name) if person and ctx.streams.stderr_is_tty else None
    if leaving is not None and "LogLevel" not in dict(options):
        # OpenSSH would say that the connection is closed, next to the line that says more.
        options = (("LogLevel", "ERROR"), *options)
    argv = ssh_argv(way.target, options, ("-t" if person else "-T",), line)
    environment = {**ctx.settings.env, **carried(variables)}
    if not refused and leaving is None:
        return Exec(argv, environment)
    from irons_plugins.ssh.ending.denial_summary import Refusals
    from irons_plugins.ssh.ending.ending_soon import telling_end
    from irons_plugins.ssh.openssh.attached import run_attached

    refusals = Refusals(ctx, name) if refused else None
    with telling_end(ctx, name, raw=person):
        code = run_attached(argv, environment)
    if refusals is not None:
        refusals.report()
    if leaving is not None:
        leaving.report(code, command=bool(words))
    return Result(None, exit=code)


@contextmanager
def _with_codes_of_its_own() -> Iterator[None]:
    """Keep each error's own exit code: a line that is printed runs nothing, so no code is another program's."""
    try:
        yield
    except IronsError as error:
        vars(error).setdefault("exit_code", error.exit_code)
        raise


def _entrance(ctx: Context, name: str, *, strict: bool, agent: bool, direct: bool = True) -> Entrance:
    way = entrance(ctx, name, strict=strict, direct=direct)
    return way._replace(options=(("ForwardAgent", "yes"), *way.options)) if agent else way


def scp(ctx: Context, *, source: str, target: str, recursive: bool, strict_hostkeys: bool) -> Exec:
    """Copy between this machine and a sandbox by OpenSSH's scp."""
    ends = [_end(source), _end(target)]
    names = [name for name, _ in ends if name is not None]
    if not names:
        raise UsageError(
            "neither SOURCE nor TARGET is in a sandbox",
            hint="a path in a sandbox is NAME:path, such as my-sandbox:/srv",
        )
    if len(names) == 2:
        raise UsageError(
            "both SOURCE and TARGET are in a sandbox", hint="copy to this machine first, then from it"
        )
    way = over_existing(ctx, entrance(ctx, names[0], strict=strict_hostkeys))
    paths = [local_path(path) if name is None else remote_path(way.target, path) for name, path in ends]
    return Exec(scp_argv(way.target, way.options, paths, recursive=recursive))


def _end(word: str) -> tuple[str | None, str]:
    """A sandbox's name and a path there, or None and a path here; a slash before the first colon makes it a path here."""
    name, colon, path = word.partition(":")
    if not colon or "/" in name:
        if not word:
            raise UsageError("a path is empty")
        return None, word
    return check_sandbox_name(name), path
