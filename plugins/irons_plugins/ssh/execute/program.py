"""Running one program in a sandbox by OpenSSH and telling how it ended: what `exec` shares with all that runs programs."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from irons.errors import TimedOut
from irons.record import NamedTuple
from irons_plugins.ssh.connect.kept import kept_socket, over_kept
from irons_plugins.ssh.connect.workdir import Workdir
from irons_plugins.ssh.ending.log import SshLog
from irons_plugins.ssh.execute.remote_script import end_line, header_of, run_line, size_of
from irons_plugins.ssh.execute.time_limit import CONNECT, ENDING, has_no_room, time_limit
from irons_plugins.ssh.openssh.command_line import ssh_argv
from irons_plugins.ssh.openssh.endings import (
    Aftermath,
    SshEnding,
    aftermath,
    ending,
    interrupted,
    out_of_time,
    was_lost,
)
from irons_plugins.ssh.openssh.exit_codes import OPENSSH_FAILED
from irons_plugins.ssh.openssh.marks import Marks
from irons_plugins.ssh.openssh.subprocess import Kept, Sink, Sinks, run_piped, writer

if TYPE_CHECKING:
    from irons.context import Context
    from irons_plugins.ssh.connect.connect_info import Entrance

INLINE = 60_000
"""Bytes of quoted words that go in OpenSSH's argument list; more of them travel on stdin, as the kernel limits one argument to 128 KiB."""


_NULL = os.makedev(1, 3)
"""The device `/dev/null` (Linux, Documentation/admin-guide/devices.txt)."""


class Program(NamedTuple):
    """What to run.

    Attributes:
        words: The program and its arguments, as they are.
        variables: Variables to set.
        workdir: Where it starts.
        timeout: Seconds after which all that it started is ended; None for no limit.
        no_stdin: It reads nothing of the call's stdin.
    """

    words: tuple[str, ...]
    variables: Mapping[str, str] = {}
    workdir: Workdir = Workdir()
    timeout: float | None = None
    no_stdin: bool = False


class ProgramRun(NamedTuple):
    """What became of it.

    Attributes:
        ending: How it ended.
        seconds: How long it took, from the program's start where that was reported.
        interrupt: Ctrl-C, TERM or HUP, which ended the call and what it started in the sandbox; else None.
    """

    ending: SshEnding
    seconds: float
    interrupt: KeyboardInterrupt | None = None


def run_program(
    ctx: Context,
    way: Entrance,
    program: Program,
    sinks: Sinks = Sinks(),  # noqa: B008 - a tuple
    check: Callable[[], None] | None = None,
    *,
    bound: bool = True,
) -> ProgramRun:
    """Run a program in a sandbox to its end. Failures after it may have started are in the answer.

    Args:
        ctx: The call's context; its streams are the program's.
        way: How to get there.
        program: What to run.
        sinks: What takes its output in place of the call's streams.
        check: Called again and again; the `KeyboardInterrupt` that it raises ends the program.
        bound: OpenSSH is killed when the thread that calls this dies; a process with other threads may want it otherwise.

    Raises:
        IronsError: OpenSSH can't be run on this machine.
    """
    token = os.urandom(16).hex()
    with over_kept(ctx, way, orphaned=end_line(token)) as shared:
        return _run(ctx, shared, program, sinks, check, token, bound=bound)


def _run(
    ctx: Context,
    way: Entrance,
    program: Program,
    sinks: Sinks,
    check: Callable[[], None] | None,
    token: str,
    *,
    bound: bool,
) -> ProgramRun:
    header, line = _request(program, token)
    marks = Marks(token, way.target.host)
    stderr = sinks.stderr or writer(ctx.streams.stderr)
    stdout = _checked(sinks.stdout, ctx.streams.stdout)
    began = time.monotonic()

    def full() -> bool:
        return stdout is None and has_no_room(ctx.streams.stdout)

    def ran(told: SshEnding, interrupt: KeyboardInterrupt | None = None) -> ProgramRun:
        return ProgramRun(told, time.monotonic() - (marks.began or began), interrupt)

    with SshLog() as log:
        options = (("LogLevel", "ERROR"), ("ConnectTimeout", str(CONNECT)), *way.options)
        argv = ssh_argv(way.target, options, ("-T", "-E", log.path), line)
        limit, path = program.timeout, kept_socket(way)
        try:
            code = run_piped(
                argv,
                ctx.streams,
                header=header,
                no_stdin=program.no_stdin,
                raw=True,
                # Over a kept connection another process ends what runs, and OpenSSH's client ends with it.
                bound=bound and path is None,
                kept=None if path is None else Kept(path, line),
                sinks=Sinks(stdout, lambda data: _pass(marks.feed(data), stderr)),
                deadline=None if limit is None and check is None else time_limit(marks, limit, check, full),
            )
        except KeyboardInterrupt as error:
            if not _end(ctx, way, token):
                ctx.progress("irons: the sandbox could not be reached to end what runs there")
            return ran(interrupted(error), error)
        except TimedOut:
            if marks.end is None:
                return ran(out_of_time(limit or 0.0, ended=_end(ctx, way, token)))
            # Something that the program has left there held on to the session. Its code is not OpenSSH's, whose 255 is a failure.
            code = min(marks.end.code, OPENSSH_FAILED - 1)
        _pass(marks.finish(), stderr)
    unwritten = "" if stdout is None else stdout.error
    after = _aftermath(ctx, way, marks, lost=was_lost(marks, code, log))
    return ran(ending(way, marks, code, log, after, limit or 0.0, unwritten))


class _Checked:
    """A sink that keeps the error by which it took no more; one whose reader has gone is not an error."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.error = ""

    def __call__(self, data: bytes) -> None:
        try:
            self._sink(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.error = error.strerror or str(error)
            raise


def _checked(sink: Sink | None, stdout: TextIO) -> _Checked | None:
    """What takes the program's stdout where that can fail but for its reader; else None, and OpenSSH writes there itself.

    OpenSSH reports no failure to write, and exits with the program's code.
    """
    if sink is not None:
        return _Checked(sink)
    try:
        found = os.fstat(stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return None
    if stat.S_ISREG(found.st_mode) or (
        stat.S_ISCHR(found.st_mode) and found.st_rdev != _NULL and not stdout.isatty()
    ):
        return _Checked(writer(stdout))
    return None


def _request(program: Program, token: str) -> tuple[bytes, str]:
    """Return the first bytes of stdin and the line for the sandbox's shell."""
    inline, sent = (program.words, ()) if size_of(program.words) <= INLINE else ((), program.words)
    header = header_of(sent, program.variables)
    limit = program.timeout or 0.0
    return header, run_line(inline, token=token, limit=limit, header=header, workdir=program.workdir)


def _pass(data: bytes, sink: Sink) -> None:
    if data:
        # Marks are read also where no one reads the program's stderr any more.
        with contextlib.suppress(OSError):
            sink(data)


def _aftermath(ctx: Context, way: Entrance, marks: Marks, *, lost: bool) -> Aftermath:
    """Ask the server only where it can know more: the connection was lost, or the program failed where kills are counted."""
    if lost and marks.end is not None and marks.end.killed != "time":
        return aftermath(ctx, way)
    if marks.failed or (marks.end is not None and (marks.end.killed == "time" or marks.end.code == 0)):
        return Aftermath()
    if marks.end is not None and way.target.oom_kills is None:
        return Aftermath()
    return aftermath(ctx, way)


def _end(ctx: Context, way: Entrance, token: str) -> bool:
    """End what the program left behind in the sandbox, by a connection of its own; tells whether that was done."""
    from irons.terminal.streams import Streams

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
            return run_piped(argv, streams, deadline=lambda: until) == 0
        except (TimedOut, KeyboardInterrupt):
            return False
