"""Running commands inside a test's own process, with streams whose TTY-ness can be set."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from irons.cli.main import run_words
from irons.client.api import Api, open_api
from irons.command import Exec
from irons.host import PluginHost
from irons.settings.settings import Settings
from irons.terminal.streams import Streams


@dataclass(frozen=True)
class Outcome:
    """What became of one call: exit code, stdout, stderr, and the program it would have become (None: it did not)."""

    code: int
    out: str
    err: str
    program: Exec | None = None

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.out.splitlines()

    def json(self) -> Any:
        """What stdout says, read as one JSON document."""
        return json.loads(self.out)

    def jsonl(self) -> list[Any]:
        """What stdout says, read as JSON lines."""
        return [json.loads(line) for line in self.lines]

    def error(self) -> Any:
        """The error object on stderr's last line, as `-o json` prints it."""
        return json.loads(self.err.splitlines()[-1])["error"]

    def ok(self) -> Outcome:
        """Return this outcome, or fail the test where the exit code is not 0."""
        assert self.code == 0, f"exit {self.code}\nstdout: {self.out}\nstderr: {self.err}"  # noqa: S101
        return self


@dataclass
class Runner:
    """Calls `irons WORDS…` in process.

    Attributes:
        env: The environment of every call; a test may change it.
        host: The plugin host; made from `env` when first needed. Tests register plugin objects with it.
        execute: Runs the program that a command becomes; by default it is only noted in the outcome.
    """

    env: dict[str, str]
    host: PluginHost | None = None
    execute: Callable[[Exec], int] | None = None
    warnings: list[str] = field(default_factory=list)

    def plugins(self) -> PluginHost:
        """Return the plugin host, made when first needed."""
        if self.host is None:
            self.host = PluginHost(env=self.env, warn=self.warnings.append)
        return self.host

    def __call__(
        self,
        *words: str,
        tty: bool = False,
        stdin: str = "",
        stdin_tty: bool | None = None,
        stdout_tty: bool | None = None,
        stderr_tty: bool | None = None,
        env: Mapping[str, str] | None = None,
        stdout: io.StringIO | None = None,
        stderr: io.StringIO | None = None,
    ) -> Outcome:
        """Run one command.

        Args:
            words: The words after `irons`.
            tty: Whether a person sits at all three streams; each `…_tty` says it for one.
            stdin: What the person types, or the pipe brings.
            stdin_tty: Whether stdin is a terminal.
            stdout_tty: Whether stdout is a terminal.
            stderr_tty: Whether stderr is a terminal.
            env: Variables beyond the runner's.
            stdout: Written to instead of a fresh buffer, for tests that watch it grow.
            stderr: Likewise.
        """
        out, err = stdout or io.StringIO(), stderr or io.StringIO()
        streams = Streams(
            io.StringIO(stdin),
            out,
            err,
            {**self.env, **(env or {})},
            tty if stdin_tty is None else stdin_tty,
            tty if stdout_tty is None else stdout_tty,
            tty if stderr_tty is None else stderr_tty,
        )
        session = _Session(self.plugins(), self.execute)
        with session:
            code = run_words(list(words), self.plugins(), streams, session=session)
        return Outcome(code, out.getvalue(), err.getvalue(), session.program)

    def complete(self, *words: str) -> dict[str, str]:
        """Return what the last of `words`, which may be empty, can become at Tab, each with what it is.

        Names come from what earlier commands of this runner left in the cache, such as `list`.
        """
        from irons.cli.completing import FILES, complete
        from irons.cli.on_hand import sources_of
        from irons.client.names import NameCache
        from irons.settings.settings import load

        settings = load({}, self.env, strict=False)
        sources = sources_of(
            lambda: settings,
            lambda what: NameCache.of(settings, what=what).read(),
            lambda: self.env,
            self.plugins(),
        )
        found = complete(self.plugins().tree, words, sources)
        return {each.word: each.about for each in found if each != FILES}


class _Session:
    """Stands where a face keeps its client, and where this process would become another program."""

    def __init__(self, host: PluginHost, execute: Callable[[Exec], int] | None) -> None:
        self.program: Exec | None = None
        self.used: str | None = None
        self._host = host
        self._execute = execute
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def api(self, settings: Settings) -> Api:
        return self._open.enter_context(open_api(settings, self._host))

    def execute(self, program: Exec) -> int:
        self.program = program
        return self._execute(program) if self._execute else 0

    def use(self, sandbox: str | None) -> None:
        """Keep none: each call stands alone."""
