"""The context of a program that uses the library: no terminal, no face, one client; what commands would print is logged."""

from __future__ import annotations

import io
import logging
from typing import IO, TYPE_CHECKING, TextIO, cast

from irons.context import Context
from irons.terminal.streams import Streams
from irons_plugins.box.cancelling import is_cancelled

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.command import Exec
    from irons.host import PluginHost
    from irons.settings.settings import Settings

FACE = "library"

LOG = "irons"
"""The logger that gets what commands print on stderr, as INFO."""


class Notes(io.TextIOBase):
    """A text stream whose lines are logged."""

    def write(self, text: str) -> int:
        """Log each line."""
        for line in filter(None, text.splitlines()):
            logging.getLogger(LOG).info("%s", line)
        return len(text)


class _NoStreams(Streams):
    """The streams of a call from Python: what it follows ends once no task waits for it."""

    __slots__ = ()

    @property
    def is_unread(self) -> bool:
        """True once the task was cancelled that waits for the call."""
        return is_cancelled()


class _Shared:
    """Lends one client to every context that is made of it."""

    used: str | None = None

    def __init__(self, api: Api) -> None:
        self._api = api

    def api(self, settings: Settings) -> Api:
        del settings  # each context is made with those of the client
        return self._api

    def execute(self, program: Exec) -> int:
        raise NotImplementedError(program.argv[0])

    def use(self, sandbox: str | None) -> None:
        """Choose nothing: each call of the library names its sandbox."""


class Library:
    """What the calls of one program share.

    Attributes:
        settings: What `irons.connect` would use.
        api: The client; it may be shared between threads.
        face: Who calls, as the server logs it.
    """

    def __init__(self, settings: Settings, host: PluginHost, api: Api, face: str = FACE) -> None:
        """Take the settings, the host of the plugins and the client; closing the client is the caller's."""
        self.settings = settings
        self.api = api
        api.face = face
        self.face = face
        self._host = host
        self._session = _Shared(api)

    def context(self, stdin: IO[bytes] | None = None) -> Context:
        """Return the context of one call, with a program's stdin where it has one."""
        streams = _NoStreams(
            cast("TextIO", io.StringIO() if stdin is None else stdin),
            io.StringIO(),
            cast("TextIO", Notes()),
            self.settings.env,
            stdin_tty=False,
            stdout_tty=False,
            stderr_tty=False,
        )
        return Context(self.settings, self._host, streams, face=self.face, session=self._session)
