"""One sandbox as an object: programs, files, ports and events."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from irons.errors import UsageError
from irons_plugins.box.files import LARGEST, MOST_ENTRIES, FileEntry, list_directory, read_file, write_file
from irons_plugins.box.process import BoxProcess
from irons_plugins.box.result import ExecResult
from irons_plugins.box.running import RunningProgram, Taker, held_bytes
from irons_plugins.box.transfer import MOST, fetch, send
from irons_plugins.run.placing import Placed
from irons_plugins.ssh.connect.variables import checked_variables
from irons_plugins.ssh.connect.workdir import Workdir
from irons_plugins.ssh.execute.program import Program
from irons_plugins.ssh.execute.report import KEPT

if TYPE_CHECKING:
    from irons.client.api import Api, Sandbox
    from irons.client.models.egress import CheckResult, RulesChanged
    from irons.client.models.snapshots import SnapshotInfo
    from irons_plugins.box.calls import Library
    from irons_policy.event import Event


class Box:
    """A sandbox that is ready. `irons.sandbox` makes it; it may be used from several threads at once.

    Attributes:
        name: Its name.
        id: What no other sandbox has, ever.
    """

    def __init__(self, library: Library, name: str, sandbox_id: str) -> None:
        """Take what calls share, and which sandbox it is."""
        self.name = name
        self.id = sandbox_id
        self._library = library

    def __repr__(self) -> str:
        return f"<irons sandbox {self.name}>"

    @property
    def api(self) -> Api:
        """The client, for all other calls: `box.api.mode(box.name)`."""
        return self._library.api

    # Programs

    def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | str | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        on_stdout: Taker | None = None,
        on_stderr: Taker | None = None,
        keep: int = KEPT,
    ) -> ExecResult:
        """Run a program to its end.

        Args:
            argv: The program and its arguments, as they are. A shell's line is `["sh", "-c", line]`.
            stdin: What it reads: bytes, a text, or an open file with a descriptor; None is an empty one.
            env: Variables to set. No argument list, of this machine or of the sandbox, has them.
            cwd: Where it starts; `~` is the home directory there, which is the default.
            timeout: Seconds after which it and all that it started is ended; the result then has `timed_out`.
            on_stdout: Called with each piece of stdout as it comes, in a thread. What it raises ends the program.
            on_stderr: As `on_stdout`, for stderr.
            keep: Bytes of each stream that the result has: the last ones.

        Raises:
            UsageError: An argument is invalid.
            IronsError: OpenSSH could not get there, or lost the connection.
        """
        program = _program(argv, env, cwd, timeout)
        source = _source(stdin)
        running = RunningProgram(
            self._library,
            self.name,
            program,
            stdin=source,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
            keep=keep,
        )
        result = running.wait()
        if result is None:
            raise RuntimeError("a wait without a limit came back")
        return result

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
    ) -> BoxProcess:
        """Start a program and return at once, in the manner of `subprocess.Popen`; the arguments are those of `exec`."""
        return BoxProcess(self._library, self.name, _program(argv, env, cwd, timeout))

    # Files

    def read(self, path: str, *, most: int = LARGEST, timeout: float | None = None) -> bytes:
        """Return a file's content.

        Args:
            path: A path in the sandbox; a relative one begins at the home directory.
            most: Bytes that it may have.
            timeout: Seconds that it may take; without it a pipe that nothing writes to is waited for.

        Raises:
            NotFound: There is no such file.
            TimedOut: The time is up.
            IronsError: It is a directory, can't be read, or is larger.
        """
        return read_file(self._library, self.name, path, most, timeout)

    def read_text(
        self, path: str, *, most: int = LARGEST, encoding: str = "utf-8", timeout: float | None = None
    ) -> str:
        """Return a file's content as text; otherwise as `read`. Raises `UnicodeDecodeError` where it is not."""
        return self.read(path, most=most, timeout=timeout).decode(encoding)

    def write(
        self, path: str, data: bytes | str, *, mode: int | None = None, timeout: float | None = None
    ) -> None:
        """Put a file in place, whole or not at all; directories above it are made.

        Args:
            path: A path in the sandbox; a relative one begins at the home directory. A link is replaced, not followed.
            data: The content; a text is written as UTF-8.
            mode: Its permission bits, such as `0o755`; by default those of the file that it replaces.
            timeout: Seconds that it may take.

        Raises:
            TimedOut: The time is up.
            IronsError: It can't be written.
        """
        content = data.encode() if isinstance(data, str) else data
        write_file(self._library, self.name, path, content, mode, timeout)

    def list(
        self, path: str = "~", *, most: int = MOST_ENTRIES, timeout: float | None = None
    ) -> tuple[FileEntry, ...]:
        """Return the entries of a directory, sorted by name. Names are the sandbox's: hostile text.

        Args:
            path: A path in the sandbox; a relative one begins at the home directory.
            most: Entries that it may have.
            timeout: Seconds that it may take.

        Raises:
            NotFound: There is no such directory.
            TimedOut: The time is up.
            IronsError: It is not a directory, or has more than `most` entries.
        """
        return list_directory(self._library, self.name, path, most, timeout)

    def upload(self, source: str | os.PathLike[str], into: str = "~") -> None:
        """Copy a file or a directory of this machine, under its own name, into a directory of the sandbox.

        Links are copied as links; empty directories, sockets and devices are left out. Needs `tar` there.

        Raises:
            IronsError: It can't be read here, or did not get there.
        """
        send(self._library, self.name, Path(source), into)

    def download(self, path: str, into: str | os.PathLike[str] = ".", *, most: int = MOST) -> Placed:
        """Copy a file or a directory of the sandbox, under its own name, into a directory of this machine.

        Nothing is written outside of `into`, through a link, or over a directory. Repositories (`.git`), devices and links that lead
        out are left out and counted in the answer. Needs `tar` there.

        Args:
            path: A path in the sandbox; a relative one begins at the home directory.
            into: A directory that is there.
            most: Bytes that may come.

        Raises:
            NotFound: There is no such file.
            IronsError: It did not arrive, or what came is refused; what is whole by then stays.
        """
        return fetch(self._library, self.name, path, Path(into), most)

    # Ports

    def forward(self, port: int, *, local_port: int = 0) -> AbstractContextManager[int]:
        """Forward a port of this machine's loopback address to a port of the sandbox while the context lasts.

        Args:
            port: The port in the sandbox.
            local_port: The port here; 0 takes a free one. The context gives it.

        Raises:
            IronsError: The port here is taken, or OpenSSH could not get there.
        """
        from irons_plugins.box.ports import forwarded

        return forwarded(self._library, self.name, port, local_port)

    # Egress

    def events(
        self,
        *,
        follow: bool = False,
        since: datetime | None = None,
        until: datetime | None = None,
        verdict: Literal["allowed", "denied", "would-deny"] | None = None,
        host: str | None = None,
    ) -> Iterator[Event]:
        """Return what the sandbox tried to reach, oldest first.

        Args:
            follow: Go on with each event as it happens, and with `EventUpdate`s where a connection ended or was repeated.
            since: Only from this time on.
            until: Only up to this time.
            verdict: Only with this verdict; `would-deny` passed only because of mode warn.
            host: Only of this host; `*` stands for any text.
        """
        from irons_plugins.box.following import events

        return events(self._library, self.name, since, until, verdict, host, follow=follow)

    def allow(self, *patterns: str, private: Sequence[str] = (), note: str = "") -> RulesChanged:
        """Allow hosts for this sandbox: all of them, or none. `private` and `note` as in `Api.allow`."""
        return self.api.change_rules("allow", patterns, self.name, private=private, note=note)

    def deny(self, *patterns: str, note: str = "") -> RulesChanged:
        """Deny hosts for this sandbox: all of them, or none."""
        return self.api.change_rules("deny", patterns, self.name, note=note)

    def check(self, host: str) -> CheckResult:
        """Return what the gateway would say of `host` or `host:port` for this sandbox."""
        return self.api.check(host, self.name)

    # Its life

    def status(self) -> Sandbox:
        """Return what the server knows of it."""
        return self.api.status(self.name)

    def snapshot(self, name: str | None = None, *, note: str | None = None) -> SnapshotInfo:
        """Keep its files as they are now, as `Api.snapshot` does; `irons.sandbox(snapshot=…)` starts from them."""
        return self.api.snapshot(self.name, name, note=note)

    def fork(self, *names: str, timeout: float | None = None) -> tuple[Box, ...]:
        """Make copies of it as it is now, all of them or none, and wait until they are ready; nothing destroys them by itself.

        Raises:
            Conflict: A name is taken.
            TimedOut: One was not ready within `timeout` seconds, by default the setting `wait_timeout`.
        """
        from irons_plugins.lifecycle.copying import copies

        found = copies(self._library.context(), self.name, names, timeout=timeout)
        return tuple(Box(self._library, row.name, row.id) for row in found)

    def stop(self, *, timeout: float | None = None) -> Sandbox:
        """Stop it and wait for that. Its files stay."""
        from irons_plugins.lifecycle.handlers import bring_down

        context = self._library.context()
        bring_down(context, self.name)
        return self.api.wait(self.name, "stopped", timeout=timeout)

    def start(self, *, timeout: float | None = None) -> Sandbox:
        """Start it and wait until it is ready."""
        from irons_plugins.lifecycle.handlers import bring_up

        bring_up(self._library.context(), self.name)
        return self.api.wait(self.name, timeout=timeout)


def _program(
    argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None, timeout: float | None
) -> Program:
    if isinstance(argv, str) or not argv:
        raise UsageError(
            "argv takes a program and its arguments, as a list", hint="a shell's line is ['sh', '-c', line]"
        )
    words = tuple(argv)
    if any("\0" in word for word in words):
        raise UsageError("an argument has a zero byte, which no program can be given")
    if cwd is not None and "\0" in cwd:
        raise UsageError("cwd has a zero byte, which no path has")
    if timeout is not None and not timeout > 0:
        raise UsageError("timeout takes seconds above 0")
    return Program(words, checked_variables(env or {}), Workdir(cwd or ""), timeout)


def _source(stdin: bytes | str | IO[bytes] | None) -> IO[bytes] | None:
    """Return what a program reads as an open file of its own."""
    if stdin is None:
        return None
    if isinstance(stdin, str):
        return held_bytes(stdin.encode())
    if isinstance(stdin, bytes | bytearray | memoryview):
        return held_bytes(bytes(stdin))
    # It is closed at the end, and the caller's stays open.
    return os.fdopen(os.dup(stdin.fileno()), "rb", buffering=0)
