"""A program in a sandbox as an object, in the manner of `subprocess.Popen`."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import IO, TYPE_CHECKING

from irons.errors import IronsError, TimedOut
from irons_plugins.box.running import Pipe, RunningProgram

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from irons_plugins.box.calls import Library
    from irons_plugins.box.result import ExecResult
    from irons_plugins.ssh.execute.program import Program


class BoxProcess:
    """A program that runs in a sandbox.

    It waits while no one reads what it writes, as with a pipe. Leaving it as a context ends it.

    Attributes:
        stdin: What is written to it the program reads; close it to end the program's input.
        stdout: What the program writes there.
        stderr: What the program writes there.
    """

    def __init__(self, library: Library, name: str, program: Program) -> None:
        """Start it; `irons.Box.popen` does that."""
        self._name = name
        read, write = os.pipe()
        self.stdin: IO[bytes] = os.fdopen(write, "wb", buffering=0)
        out, err = Pipe(), Pipe()
        self.stdout: IO[bytes] = out.reader
        self.stderr: IO[bytes] = err.reader
        self._running = RunningProgram(
            library, name, program, stdin=os.fdopen(read, "rb", buffering=0), on_stdout=out, on_stderr=err
        )

    def poll(self) -> ExecResult | None:
        """Return its result, or None while it runs. Raises as `wait` does."""
        return self._running.wait(0) if self._running.is_over else None

    def wait(self, timeout: float | None = None) -> ExecResult:
        """Wait for its end and return its result.

        Args:
            timeout: Seconds to wait; None for as long as it takes.

        Raises:
            TimedOut: It runs on after that time.
            IronsError: OpenSSH could not get there, or lost the connection.
        """
        found = self._running.wait(timeout)
        if found is None:
            raise TimedOut(f"the program in {self._name} still runs after {timeout:g} s")
        return found

    def kill(self) -> None:
        """End it and all that it started: TERM, and two seconds later KILL. `wait` returns how it ended."""
        self._running.stop()

    def communicate(self, data: bytes = b"") -> tuple[bytes, bytes]:
        """Write all of its input, read all that it writes, and wait for its end; returns stdout and stderr."""
        errors: list[bytes] = []
        reader = threading.Thread(target=lambda: errors.append(self.stderr.read()), daemon=True)
        writer = threading.Thread(target=self._write, args=(data,), daemon=True)
        for thread in (reader, writer):
            thread.start()
        with self.stdout, self.stderr:
            out = self.stdout.read()
            for thread in (reader, writer):
                thread.join()
        self.wait()
        return out, errors[0]

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError), self.stdin:
            view = memoryview(data)
            while view:
                view = view[self.stdin.write(view) :]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.stop()
        for file in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(OSError):
                file.close()
        try:
            self._running.wait()
        except IronsError:
            # What ended the block counts more.
            if error is None:
                raise
