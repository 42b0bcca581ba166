"""What a handler is given: settings, the API, the host, the streams, and ways to narrate and to ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from irons.errors import UsageError
from irons.text import LONGEST, clean

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.client.names import NameCache
    from irons.command import Exec
    from irons.host import PluginHost
    from irons.settings.settings import Settings
    from irons.terminal.progress import Spinner
    from irons.terminal.streams import Streams


class Session(Protocol):
    """What a face that outlives one command keeps between its commands: the prompt, xonsh.

    It may also have `hear_refused` and `hear_allowed`, with the arguments of `Context.refused` and `Context.allowed`.

    Attributes:
        used: The sandbox that `use` chose last; None where it chose none.
    """

    used: str | None

    def api(self, settings: Settings) -> Api:
        """Return the client these settings choose, kept open from command to command."""
        ...

    def execute(self, program: Exec) -> int:
        """Run another program on the face's terminal and return its exit code."""
        ...

    def use(self, sandbox: str | None) -> None:
        """Make `sandbox` the one that is meant where none is named; None takes that back."""
        ...


class Context:
    """One call's dependencies, made when first touched.

    Attributes:
        settings: What holds for this call.
        host: The plugin host.
        streams: Where the call reads and writes; handlers return data and write to neither.
        face: Who called: `cli`, `prompt` or `xonsh`.
        session: What the face keeps between commands; None where it runs just one.
    """

    def __init__(
        self,
        settings: Settings,
        host: PluginHost,
        streams: Streams,
        *,
        face: str = "cli",
        session: Session | None = None,
    ) -> None:
        """Take what the face has; a session's client is used and never closed here."""
        self.settings = settings
        self.host = host
        self.streams = streams
        self.face = face
        self.session = session
        self._api: Api | None = None
        self._names: NameCache | None = None

    @property
    def api(self) -> Api:
        """The client of the v0 API, opened when first touched. Raises `ConfigError` or `LocalError`."""
        if self._api is None and self.session is not None:
            self._api = self.session.api(self.settings)
            self._api.begin_command()
            self._api.face = self.face
        if self._api is None:
            from irons.client.api import open_api

            self._api = open_api(self.settings, self.host, self.progress if self.settings.debug else None)
            self._api.face = self.face
        return self._api

    @property
    def names(self) -> NameCache:
        """The sandbox names on hand, shared with completion."""
        if self._names is None:
            from irons.client.names import NameCache

            self._names = NameCache.of(self.settings)
        return self._names

    def plugin_settings(self, name: str) -> Mapping[str, Any]:
        """Return a plugin's own settings, `[plugins.NAME]` with what `irons_settings` declares.

        Args:
            name: The plugin's name, as `irons plugins` shows it.

        Raises:
            ConfigError: A value in the file or a variable is invalid.
        """
        return self.host.plugin_settings(name, self.settings)

    def progress(self, line: str) -> None:
        """Say one line to the person, on stderr, after what stdout has been given so far.

        At the prompt the commands in it go without the word `irons`, as they are typed there.
        """
        if self.face == "prompt":
            from irons.tree import at_prompt

            line = at_prompt(line, self.host.tree)
        self.streams.stdout.flush()
        self.streams.stderr.write(f"{clean(line, limit=LONGEST)}\n")
        self.streams.stderr.flush()

    @contextmanager
    def waiting(self, line: str) -> Iterator[Spinner]:
        """Show that something takes its time, on a terminal's stderr only; the spinner's `tell` changes the line."""
        from irons.terminal.progress import Spinner

        spinner = Spinner(self.streams, clean(line))
        with spinner:
            yield spinner

    def confirm(self, question: str, *, otherwise: str) -> bool:
        """Ask the person yes or no. Without one (no terminal, or `--no-input`) it is an error that says what to do `otherwise`.

        Raises:
            UsageError: No one is there to ask.
        """
        if self.settings.no_input or not (self.streams.stdin_is_tty and self.streams.stderr_is_tty):
            raise UsageError(f"{question} There is no one to ask.", hint=otherwise)
        self.streams.stderr.write(f"{clean(question)} [y/N] ")
        self.streams.stderr.flush()
        return self.streams.stdin.readline().strip().lower() in ("y", "yes")

    def refused(self, sandbox: str, places: Sequence[tuple[str, int | None]]) -> None:
        """Have the face know what egress refused while a command ran in a sandbox: hosts, with the port where there is one."""
        hear = getattr(self.session, "hear_refused", None)
        if hear is not None:
            hear(sandbox, places)

    def allowed(self, sandbox: str | None, patterns: Sequence[str]) -> None:
        """Have the face know what a command has allowed for a sandbox, or for all."""
        hear = getattr(self.session, "hear_allowed", None)
        if hear is not None:
            hear(sandbox, patterns)

    def close(self) -> None:
        """Close what this call opened."""
        if self.session is None and self._api is not None:
            self._api.close()
        self._api = None
