"""`exec` on several sandboxes: in parallel, each line with its sandbox's name before it, or a report for each."""

from __future__ import annotations

import io
import os
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO, cast

from irons.context import Context
from irons.errors import IronsError
from irons.record import NamedTuple
from irons.terminal.streams import Streams
from irons_plugins.ssh.connect.connect_info import entrance, failing_as_ssh
from irons_plugins.ssh.ending.denial_summary import Refusals
from irons_plugins.ssh.ending.telling import tell
from irons_plugins.ssh.execute.prefixed import Prefixed, Shared
from irons_plugins.ssh.execute.program import Program, ProgramRun, run_program
from irons_plugins.ssh.execute.report import OutputTail, Report, failed, reported
from irons_plugins.ssh.openssh.subprocess import Signalled, Sinks, ended_by_signals

if TYPE_CHECKING:
    from typing import Protocol

    class _Place(Protocol):
        """Where one sandbox's program writes, and what is made of its end."""

        sinks: Sinks
        narration: TextIO

        def ended(self, ctx: Context, ran: ProgramRun, refusals: Refusals, /) -> Report | None: ...
        def failed(self, ctx: Context, error: IronsError, /) -> Report | None: ...


AT_ONCE = 32
"""Sandboxes that are worked on at once."""


class Outputs(NamedTuple):
    """The streams that sandboxes write lines to."""

    stdout: Shared
    stderr: Shared


class SandboxResult(NamedTuple):
    """What became of one sandbox's program; a report only where its output was kept."""

    name: str
    code: int
    report: Report | None = None


class _Shown:
    """The program's lines go to the shared streams, and so do notes about it."""

    def __init__(self, name: str, outputs: Outputs) -> None:
        self._out, self._err = Prefixed(name, outputs.stdout), Prefixed(name, outputs.stderr)
        self.sinks = Sinks(self._out, self._err)
        self.narration = cast("TextIO", _Lines(self._err))

    def ended(self, ctx: Context, ran: ProgramRun, refusals: Refusals) -> None:
        self._out.end()
        self._err.end()
        tell(ctx, ran, refusals)
        if ran.ending.error is not None:
            self.failed(ctx, ran.ending.error)

    def failed(self, ctx: Context, error: IronsError) -> None:
        ctx.progress(f"irons: {error.message}")


class _Kept:
    """The program's output is kept for its report."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._out, self._err = OutputTail(), OutputTail()
        self.sinks = Sinks(self._out, self._err)
        self.narration: TextIO = io.StringIO()

    def ended(self, _ctx: Context, ran: ProgramRun, refusals: Refusals) -> Report:
        return reported(self._name, ran, self._out, self._err, refusals)

    def failed(self, _ctx: Context, error: IronsError) -> Report:
        return failed(self._name, error)


class _Lines(io.TextIOBase):
    """A text stream whose text goes to a sink."""

    def __init__(self, sink: Prefixed) -> None:
        self._sink = sink

    def write(self, text: str) -> int:
        self._sink(text.encode(errors="backslashreplace"))
        return len(text)


class _Stop:
    """Ends all programs at once: `check` raises what ended the call, in each one's own thread."""

    def __init__(self) -> None:
        self._by: KeyboardInterrupt | None = None

    def set(self, interrupt: KeyboardInterrupt) -> None:
        self._by = interrupt

    def check(self) -> None:
        if self._by is not None:
            raise Signalled(self._by.number) if isinstance(self._by, Signalled) else KeyboardInterrupt


def run_on_all(
    ctx: Context,
    names: tuple[str, ...],
    program: Program,
    finished: Callable[[SandboxResult], None],
    *,
    strict: bool = False,
    outputs: Outputs | None = None,
) -> KeyboardInterrupt | None:
    """Run a program in each of several sandboxes at once, without stdin.

    Args:
        ctx: The call's context.
        names: The sandboxes.
        program: What to run.
        finished: Called in this thread for each sandbox as its program ends.
        strict: Check host keys even where the server sent none.
        outputs: Where lines go; None keeps what the programs write for their reports.

    Returns:
        What ended the call before its time: Ctrl-C, TERM or HUP; else None.
    """
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[SandboxResult] = queue.SimpleQueue()
    stop = _Stop()
    for name in names:
        todo.put(name)

    def work() -> None:
        while True:
            try:
                name = todo.get_nowait()
            except queue.Empty:
                return
            place: _Place = _Kept(name) if outputs is None else _Shown(name, outputs)
            done.put(_run_one(ctx, name, program._replace(no_stdin=True), place, stop, strict=strict))

    for _ in range(min(AT_ONCE, len(names))):
        threading.Thread(target=work, daemon=True).start()
    left, interrupt = len(names), None
    with ended_by_signals():
        while left:
            try:
                finished(done.get())
                left -= 1
            except KeyboardInterrupt as error:
                if interrupt is not None:
                    raise
                interrupt = error
                stop.set(error)
    return interrupt


def _run_one(
    ctx: Context, name: str, program: Program, place: _Place, stop: _Stop, *, strict: bool
) -> SandboxResult:
    """Run it in one sandbox, in this thread, with a client of its own; nothing is raised."""
    with open(os.devnull, encoding="ascii") as nothing:  # noqa: PTH123 - a device
        streams = Streams(nothing, io.StringIO(), place.narration, ctx.streams.env)
        own = Context(ctx.settings, ctx.host, streams, face=ctx.face)
        try:
            with failing_as_ssh():
                stop.check()
                way = entrance(own, name, strict=strict)
                refusals = Refusals(own, name)
                ran = run_program(own, way, program, place.sinks, check=stop.check)
                return SandboxResult(name, ran.ending.code, place.ended(own, ran, refusals))
        except IronsError as error:
            return SandboxResult(name, error.exit_code, place.failed(own, error))
        except KeyboardInterrupt as error:
            return SandboxResult(name, 128 + (error.number if isinstance(error, Signalled) else 2))
        finally:
            own.close()
