"""A program that runs with streams of its own or of the call: a child of this process, or a session elsewhere that is like one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Protocol

from irons.errors import IronsError

if TYPE_CHECKING:
    import subprocess

PIPE = -1
"""In place of a descriptor: a new pipe, whose other end becomes an attribute."""


class Attached(Protocol):
    """A program that was started."""

    @property
    def stdin(self) -> IO[bytes] | None:
        """What it reads from, where `PIPE` was asked for."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """What it writes to, likewise."""

    @property
    def stderr(self) -> IO[bytes] | None:
        """What it writes to, likewise."""

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when there is something to `wait` for; None where there is none."""

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the exit code, -n where signal n killed it; None where it runs on after so many seconds."""

    def kill(self) -> None:
        """Kill it, where it still runs."""


class ChildProcess:
    """A child of this process; see `Attached`."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        stdin: int,
        stdout: int,
        stderr: int,
        *,
        preexec: Callable[[], object] | None = None,
    ) -> None:
        """Start it.

        Args:
            argv: The program and its arguments.
            env: Its environment.
            stdin: What it reads from: a descriptor, or `PIPE`.
            stdout: Where it writes, likewise.
            stderr: Where it writes, likewise.
            preexec: Called in the child; one system call, looked up before the fork.

        Raises:
            IronsError: It can't be started.
        """
        import subprocess

        self._descriptor: int | None = None
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                argv,
                env=dict(env),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                preexec_fn=preexec,  # noqa: PLW1509 - see its description
            )
        except FileNotFoundError:
            raise IronsError(
                f"{argv[0]} is not installed",
                hint="install OpenSSH's client: apt-get install openssh-client",
            ) from None
        except OSError as error:
            raise IronsError(f"{argv[0]} can't be run: {error.strerror}") from error
        self.stdin, self.stdout, self.stderr = (
            self._process.stdin,
            self._process.stdout,
            self._process.stderr,
        )

    def fileno(self) -> int | None:
        """Return a descriptor that is readable once it has ended (pidfd_open(2)); None where there are none."""
        if self._descriptor is None:
            with contextlib.suppress(AttributeError, OSError):
                self._descriptor = os.pidfd_open(self._process.pid)
        return self._descriptor

    def wait(self, seconds: float | None = None) -> int | None:
        """See `Attached`. With a limit it looks again and again, up to 50 ms late."""
        import subprocess

        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        return code

    def kill(self) -> None:
        """See `Attached`."""
        self._process.kill()
