"""Handler of `exec`: a program in a sandbox, without a terminal, with its exit code."""

from __future__ import annotations

import re
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from irons.command import Result
from irons.errors import IronsError, TimedOut, UsageError
from irons_plugins.ssh.child import run_piped
from irons_plugins.ssh.entrance import FAILED, Entrance, entrance, failing_as_ssh
from irons_plugins.ssh.log import Log
from irons_plugins.ssh.openssh import ssh_argv
from irons_plugins.ssh.refused import Refusals
from irons_plugins.ssh.remote import GRACE, end_line, environment, run_line
from irons_plugins.ssh.variables import variables_of
from irons_plugins.ssh.workdir import workdir_of

if TYPE_CHECKING:
    from irons.context import Context

OUT_OF_TIME = 124
CONNECT = 30
"""Seconds that OpenSSH may take to connect; the limit of `--timeout` runs from then on."""

ENDING = 5.0
"""Seconds for ending what an interrupted call has started."""

LATE = 1.0
"""Seconds that the sandbox has for saying that the time was up."""


def execute(
    ctx: Context,
    *,
    name: str,
    timeout: float | None,
    env: tuple[str, ...],
    workdir: str | None,
    strict_hostkeys: bool,
    words: tuple[str, ...],
) -> Result:
    """Run a program in the sandbox and return its exit code; 124 where its time ran out, 125 where irons itself failed.

    Raises:
        UsageError: No program, a variable that is not set here.
        IronsError: OpenSSH could not get there, or lost it.
        KeyboardInterrupt: Ctrl-C; what was started in the sandbox has been ended.
    """
    if not words:
        raise UsageError("exec needs a program to run", hint=f"irons exec {name} -- CMD…")
    if timeout is not None and timeout <= 0:
        raise UsageError("--timeout takes a duration above 0")
    header = environment(variables_of(env, ctx.settings.env)) if env else b""
    token = secrets.token_hex(16)
    line = run_line(
        words, token=token, limit=timeout or 0.0, header=header, workdir=workdir_of(workdir, ctx.settings.env)
    )
    with failing_as_ssh():
        way = entrance(ctx, name, strict=strict_hostkeys)
        refusals = Refusals(ctx, name)
        began = time.monotonic()
        try:
            code = _run(ctx, way, line, header, timeout)
        except KeyboardInterrupt:
            _end(ctx, way, token)
            raise
        except TimedOut:
            _end(ctx, way, token)
            code = OUT_OF_TIME
    if code == OUT_OF_TIME and timeout is not None and time.monotonic() - began >= timeout:
        ctx.progress(f"irons: time is up after {timeout:g} s: all that it started was ended")
    refusals.report()
    return Result(None, exit=code)


def _run(ctx: Context, way: Entrance, line: str, header: bytes, timeout: float | None) -> int:
    """Run ssh with its own words in a pipe: exit code 255 is the program's only where OpenSSH notes that it was told so."""
    with tempfile.TemporaryDirectory(prefix="irons-exec-") as directory, Log(Path(directory) / "log") as log:
        options = (("LogLevel", "DEBUG1"), ("ConnectTimeout", str(CONNECT)), *way.options)
        argv = ssh_argv(way.target, options, ("-T", "-E", str(log.path)), line)
        deadline = None if timeout is None else _deadline(log, timeout + GRACE)
        code = run_piped(argv, ctx.streams, header=header, deadline=deadline)
    said = log.lines() if code == 255 else []
    if code == 255 and _TOLD not in said:
        why = next((line for line in reversed(said) if not _NOISE.match(line)), "the connection was lost")
        raise IronsError(f"OpenSSH could not run it: {why}", hint=f"irons ssh {way.name} may tell more")
    return code


_TOLD = "debug1: Exit status 255"
_NOISE = re.compile(
    r"debug[0-9]: |OpenSSH_|Authenticated to |Transferred: |Bytes per second: |Warning: Permanently added"
)


def _deadline(log: Log, seconds: float) -> Callable[[], float]:
    """The program has its time from when it was asked for; OpenSSH ends later only where something it left there holds on to it."""
    at_most = time.monotonic() + CONNECT + ENDING + seconds
    return lambda: at_most if log.began is None else min(at_most, log.began + seconds + LATE)


def _end(ctx: Context, way: Entrance, token: str) -> None:
    """End what the program left behind in the sandbox, by a connection of its own."""
    from irons.streams import Streams

    options = (
        ("LogLevel", "QUIET"),
        ("ConnectTimeout", str(int(ENDING))),
        ("BatchMode", "yes"),
        *way.options,
    )
    until = time.monotonic() + ENDING
    with Path("/dev/null").open("r+") as nothing:
        streams = Streams(nothing, nothing, nothing, ctx.settings.env)
        try:
            argv = ssh_argv(way.target, options, ("-T",), end_line(token))
            code = run_piped(argv, streams, deadline=lambda: until)
        except (TimedOut, KeyboardInterrupt):
            code = FAILED
    if code:
        ctx.progress("irons: the sandbox could not be reached to end what runs there")
