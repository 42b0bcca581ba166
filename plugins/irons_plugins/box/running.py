"""A program in a sandbox that runs in a thread of its own, so that the caller's signals and threads stay the caller's."""

from __future__ import annotations

import contextlib
import io
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from irons.errors import IronsError
from irons.text import clean
from irons_plugins.box.cancelling import CANCELLED, is_cancelled
from irons_plugins.box.result import ExecResult, result_of
from irons_plugins.ssh.connect.connect_info import entrance
from irons_plugins.ssh.ending.denial_summary import Refusals
from irons_plugins.ssh.execute.program import Program, run_program
from irons_plugins.ssh.execute.report import KEPT, OutputTail
from irons_plugins.ssh.openssh.endings import NotStarted
from irons_plugins.ssh.openssh.subprocess import Signalled, Sinks

if TYPE_CHECKING:
    from irons_plugins.box.calls import Library
    from irons_plugins.ssh.execute.program import ProgramRun

Taker = Callable[[bytes], object]
"""Takes what a program writes, piece by piece; it is called in a thread."""

_LOOK_EVERY = 0.1
"""Seconds between two looks at whether the waiting task was cancelled."""


_REASON = 200
"""Characters of why a program was not started."""


class RunningProgram:
    """One program, from its start to its result."""

    def __init__(
        self,
        library: Library,
        name: str,
        program: Program,
        *,
        stdin: IO[bytes] | None = None,
        on_stdout: Taker | None = None,
        on_stderr: Taker | None = None,
        keep: int = KEPT,
        egress: bool = True,
    ) -> None:
        """Start it.

        Args:
            library: What calls share.
            name: The sandbox.
            program: What to run.
            stdin: An open file that it reads; it is closed at the end.
            on_stdout: Takes each piece of stdout.
            on_stderr: Takes each piece of stderr.
            keep: Bytes of each stream that the result has: the last ones.
            egress: Ask what egress refused while it ran.
        """
        self._library = library
        self._name = name
        self._program = program._replace(no_stdin=stdin is None)
        self._stdin = stdin
        self._out, self._err = _Taken(self, on_stdout, keep), _Taken(self, on_stderr, keep)
        self._egress = egress
        self._stop = threading.Event()
        self._over = threading.Event()
        self._result: ExecResult | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"irons exec {name}", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            # Ctrl-C, and the thread may run already.
            self.stop()
            raise

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    def stop(self) -> None:
        """Have it ended, and all that it started: TERM, and two seconds later KILL."""
        self._stop.set()
        for taken in (self._out, self._err):
            taken.stop()

    def fail(self, error: BaseException) -> None:
        """End it for an error of the caller's, which `wait` raises."""
        self._error = self._error or error
        self.stop()

    def wait(self, timeout: float | None = None) -> ExecResult | None:
        """Wait for its result; None where the time is up before.

        Raises:
            IronsError: OpenSSH could not get there, or lost the connection.
            KeyboardInterrupt: Ctrl-C came; what was started in the sandbox has been ended.
        """
        try:
            if CANCELLED.get() is None:
                self._over.wait(timeout)
            else:
                self._until_over(timeout)
        except BaseException:
            self.stop()
            self._thread.join()
            raise
        if not self._over.is_set():
            return None
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result

    def _until_over(self, timeout: float | None) -> None:
        """Wait likewise, and have it ended once the task is cancelled that waits for this."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        while not self._over.wait(max(0.0, min(_LOOK_EVERY, until - time.monotonic()))):
            if is_cancelled():
                self.stop()
                until = math.inf
            if time.monotonic() >= until:
                return

    def _run(self) -> None:
        try:
            context = self._library.context(self._stdin)
            way = entrance(context, self._name)
            refusals = Refusals(context, self._name) if self._egress else None
            sinks = Sinks(self._out, self._err)
            ran = run_program(context, way, self._program, sinks, check=self._check, bound=False)
            self._ended(ran, refusals)
        except KeyboardInterrupt:
            self._error = self._error or IronsError(f"the program in {self._name} was ended before it began")
        except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
            self._error = self._error or error
        finally:
            if self._stdin is not None:
                with contextlib.suppress(OSError):
                    self._stdin.close()
            self._out.close()
            self._err.close()
            self._over.set()

    def _ended(self, ran: ProgramRun, refusals: Refusals | None) -> None:
        if isinstance(ran.ending.error, NotStarted):
            # A caller gets no stderr with an error.
            lines = self._err.kept.output().text.splitlines()
            raise NotStarted(clean(lines[-1].removeprefix("irons: "), limit=_REASON) if lines else "")
        if ran.ending.error is not None:
            raise ran.ending.error
        try:
            found = refusals.found() if refusals is not None else None
        except IronsError:
            found = None
        self._result = result_of(self._name, ran, self._out.kept, self._err.kept, found)

    def _check(self) -> None:
        if self._stop.is_set():
            raise Signalled(signal.SIGTERM)


class _Taken:
    """One stream: its end is kept, and each piece goes to who takes it. It is a `Sink`."""

    def __init__(self, running: RunningProgram, taker: Taker | None, keep: int) -> None:
        self.kept = OutputTail(keep)
        self._running = running
        self._taker = taker

    def __call__(self, data: bytes) -> None:
        """Take a piece; an error of who takes it ends the program."""
        self.kept(data)
        if self._taker is None:
            return
        try:
            self._taker(data)
        except BrokenPipeError:
            # Who reads has gone, as of a pipe.
            raise
        except BaseException as error:
            self._running.fail(error)
            raise BrokenPipeError from error

    def stop(self) -> None:
        """Wait no more for a reader that is behind."""
        if isinstance(self._taker, Pipe):
            self._taker.stopped.set()

    def close(self) -> None:
        """Tell a pipe that nothing comes any more."""
        if isinstance(self._taker, Pipe):
            self._taker.close()


class Pipe:
    """Pieces that go to a reader of this process; it waits while the reader is behind, until the program is ended."""

    def __init__(self) -> None:
        """Open a pipe."""
        read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self.reader: IO[bytes] = os.fdopen(read, "rb")
        self.stopped = threading.Event()

    def __call__(self, data: bytes) -> None:
        """Write a piece; it is lost where its reader is behind and the program is being ended. Raises `BrokenPipeError` where it has gone."""
        room = select.poll()
        room.register(self._write, select.POLLOUT)
        while data:
            if not room.poll(_LOOK_EVERY * 1000):
                if self.stopped.is_set():
                    return
                continue
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(self._write, data) :]

    def close(self) -> None:
        """Close the writing end."""
        os.close(self._write)


def held_bytes(data: bytes) -> IO[bytes]:
    """Return an open file with these bytes, for a program to read; it is not in a file system where that can be."""
    if not hasattr(os, "memfd_create"):
        import tempfile

        file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - its reader closes it
    else:
        file = os.fdopen(os.memfd_create("irons-stdin", os.MFD_CLOEXEC), "w+b")
    file.write(data)
    file.seek(0, io.SEEK_SET)
    return file
