"""What the prompt keeps between commands: the environment, the sandbox in use, the last exit code, the open connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from irons.errors import IronsError
from irons.settings.keys import KEYS
from irons.settings.settings import Settings, load
from irons.terminal.streams import Streams
from irons_repl.run.again import Again
from irons_repl.run.connections import Connections
from irons_repl.run.external import run_program

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.command import Exec
    from irons.host import PluginHost

SANDBOX = "IRONS_SANDBOX"

BackendKey = tuple[str, str, str | None]
"""Which backend settings choose: its URL, the profile, the key."""


def backend_key(settings: Settings) -> BackendKey:
    """Return which backend settings choose."""
    return settings.api_url, settings.profile, settings.api_key


class ShellSession:
    """One open prompt, or one script. Implements `irons.context.Session`.

    Attributes:
        used: The sandbox that `use` chose last; None where it chose none.
        host: The plugins and their commands.
        streams: Where commands read and write; `env` of it is this session's own and changes with `use`.
        code: The exit code of the last command.
        debug: Whether each command says what it does.
        stdin: What programs read, as `subprocess` takes it.
        asked: The backend that a command asked last.
        pages: Whether long answers go through a pager.
        history: Returns the lines typed before, the oldest first; none in a script.
        again: The command that egress refused last.
    """

    def __init__(
        self,
        host: PluginHost,
        streams: Streams,
        flags: Mapping[str, object] | None = None,
        *,
        stdin: int | None = None,
    ) -> None:
        """Take the host, the streams, and the global options the prompt was opened with.

        Args:
            host: The plugins and their commands.
            streams: Where commands read and write.
            flags: Global options by their `dest`; they hold for every command.
            stdin: What programs read, as `subprocess` takes it; by default what this process does.
        """
        self.host = host
        self.env: dict[str, str] = {**streams.env, **_as_environment(flags or {})}
        self.streams = _with_env(streams, self.env)
        self.code = 0
        self.used: str | None = None
        self.debug = bool((flags or {}).get("debug"))
        self.stdin = stdin
        self.pages = False
        self.history: Callable[[], list[str]] = list
        self.asked: BackendKey | None = None
        self._output: TextIO | None = None
        self._connections = Connections(host, self._say)
        self.again = Again(lambda: self.sandbox)

    @property
    def sandbox(self) -> str | None:
        """The sandbox in use: what `use`, the variable or the setting chose."""
        try:
            sandbox: str | None = self.settings(in_passing=True)["sandbox"]
        except IronsError:
            sandbox = self.env.get(SANDBOX) or None
        return sandbox

    def settings(self, *, in_passing: bool = False) -> Settings:
        """Return what holds now, the configuration file read again; `in_passing` starts no local backend.

        Raises:
            ConfigError: The file or a variable is invalid.
        """
        return load({}, {**self.env, "IRONS_NO_START": "1"} if in_passing else self.env)

    def api(self, settings: Settings) -> Api:
        """Return the client these settings choose, for a command: the open one, unless they choose another backend."""
        self.asked = backend_key(settings)
        return self._connections.api(settings)

    def api_in_passing(self, settings: Settings) -> Api:
        """Return the same client for what no command asked for."""
        return self._connections.api(settings)

    def execute(self, program: Exec) -> int:
        """Run another program on the terminal, its output where the command's goes; return its exit code."""
        self.flush()
        env = dict(self.env if program.env is None else program.env)
        return run_program(program.argv, env, self._output, self.stdin)

    def use(self, sandbox: str | None) -> None:
        """Make `sandbox` the one that is meant where none is named."""
        self.used = sandbox
        if sandbox:
            self.env[SANDBOX] = sandbox
        else:
            self.env.pop(SANDBOX, None)

    def hear_refused(self, sandbox: str, places: Sequence[tuple[str, int | None]]) -> None:
        """Note what egress refused to the line that runs."""
        self.again.refused(sandbox, places)

    def hear_allowed(self, sandbox: str | None, patterns: Sequence[str]) -> None:
        """Offer the refused line again where this allows what it wanted."""
        self.again.allowed(sandbox, patterns)

    def writing_to(self, output: TextIO | None) -> Streams:
        """Return the streams of a command whose output goes to `output`, and have programs it runs write there too."""
        self._output = output
        if output is None:
            return self.streams
        base = self.streams
        return Streams(base.stdin, output, base.stderr, self.env, base.stdin_tty, None, base.stderr_tty)

    def flush(self) -> None:
        """Write out what commands have printed, so that a program's output comes after it."""
        for stream in (self.streams.stdout, self.streams.stderr):
            with suppress(OSError, ValueError):
                stream.flush()

    def close(self) -> None:
        """Close the connection."""
        self._connections.close()

    def _say(self, line: str) -> None:
        self.streams.stderr.write(f"{line}\n")
        self.streams.stderr.flush()


def _with_env(streams: Streams, env: Mapping[str, str]) -> Streams:

    return streams.changed(env=env)


def _as_environment(flags: Mapping[str, object]) -> dict[str, str]:
    """Global options the prompt was opened with, as the variables that mean the same for each of its commands."""
    variables = {name: key.env for name, key in KEYS.items() if key.env}
    variables |= {"profile": "IRONS_PROFILE", "no_input": "IRONS_NO_INPUT"}
    given = {name: flags.get(name) for name in variables}
    return {variables[name]: "1" if value is True else str(value) for name, value in given.items() if value}
