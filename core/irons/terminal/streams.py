"""The streams a face gives a command: where it reads and writes, and whether a person sits there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from os import devnull, environ, get_terminal_size
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from typing import TextIO


class Streams:
    """stdin, stdout, stderr and the environment of one call; the `_tty` fields are settable, as tests and xonsh need."""

    __slots__ = ("env", "stderr", "stderr_tty", "stdin", "stdin_tty", "stdout", "stdout_tty")

    def __init__(
        self,
        stdin: TextIO | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        env: Mapping[str, str] | None = None,
        stdin_tty: bool | None = None,
        stdout_tty: bool | None = None,
        stderr_tty: bool | None = None,
    ) -> None:
        """Take streams and environment; by default this process's."""
        self.stdin: TextIO = stdin or sys.stdin or _nowhere("r")
        self.stdout: TextIO = stdout or sys.stdout or _nowhere("w")
        self.stderr: TextIO = stderr or sys.stderr or _nowhere("w")
        self.env = environ if env is None else env
        self.stdin_tty = stdin_tty
        self.stdout_tty = stdout_tty
        self.stderr_tty = stderr_tty

    def changed(self, **fields: Any) -> Streams:
        """Return the same with other values of these fields."""
        return Streams(**{name: fields.get(name, getattr(self, name)) for name in self.__slots__})

    @property
    def stdin_is_tty(self) -> bool:
        """True when a person types into stdin."""
        return _tty(self.stdin) if self.stdin_tty is None else self.stdin_tty

    @property
    def stdout_is_tty(self) -> bool:
        """True when a person reads stdout."""
        return _tty(self.stdout) if self.stdout_tty is None else self.stdout_tty

    @property
    def stderr_is_tty(self) -> bool:
        """True when a person reads stderr."""
        return _tty(self.stderr) if self.stderr_tty is None else self.stderr_tty

    @property
    def is_unread(self) -> bool:
        """True when stdout is a pipe that no one reads any more: what would be written there is lost."""
        import select

        poll = select.poll()
        try:
            poll.register(self.stdout.fileno(), 0)
        except (OSError, ValueError, AttributeError):
            return False
        return any(event & select.POLLERR for _, event in poll.poll(0))

    @property
    def columns(self) -> int | None:
        """How wide stdout is: `$COLUMNS`, else what its terminal says; None where it is not a terminal."""
        return self._columns(self.stdout)

    @property
    def stderr_columns(self) -> int | None:
        """How wide stderr is, likewise."""
        return self._columns(self.stderr)

    def _columns(self, stream: TextIO) -> int | None:
        named = self.env.get("COLUMNS", "")
        if named.isascii() and named.isdigit() and int(named):
            return int(named)
        try:
            return get_terminal_size(stream.fileno()).columns or None
        except (OSError, ValueError, AttributeError):
            return None

    def colour(self, *, tty: bool) -> bool:
        """Tell whether to colour a stream: NO_COLOR, then FORCE_COLOR / CLICOLOR_FORCE, then whether it is a capable terminal."""
        if self.env.get("NO_COLOR"):
            return False
        if self.env.get("FORCE_COLOR") or self.env.get("CLICOLOR_FORCE", "0") not in ("", "0"):
            return True
        return tty and self.env.get("TERM") != "dumb"


def _nowhere(mode: str) -> TextIO:
    """Stand in for a stream that was closed before this process began; Python has None there."""
    return cast("TextIO", open(devnull, mode, encoding="utf-8"))  # noqa: PTH123 - open for as long as the process is


def _tty(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False
