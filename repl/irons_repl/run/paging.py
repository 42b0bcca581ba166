"""Long answers through a pager: what is longer than the screen is shown page by page, as `git` and `man` do."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final, TextIO, cast

from irons_repl.run.external import SHELL, code_of, left_to_programs

if TYPE_CHECKING:
    from irons.settings.settings import Settings
    from irons.tree import Tree

OFF: Final = ("off", "cat", "")
"""Values of `PAGER` that mean no pager."""

LESS: Final = "FRX"
"""Options of `less` where nothing else sets them: end at once where all fits, keep colours, leave the text on the screen."""

_UNSEEN: Final = re.compile(r"\x1b\[[0-9;]*m")


def pager_of(settings: Settings, env: Mapping[str, str]) -> str:
    """Return the command of the pager: the setting, else `$PAGER`, else `less`; empty for none, also where it is not installed."""
    import shlex
    from shutil import which

    chosen = settings["pager"]
    command: str = env.get("PAGER", "less") if chosen is None else chosen
    if command.strip() in OFF:
        return ""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    return command if words and which(words[0], path=env.get("PATH")) else ""


def may_be_long(words: Sequence[str], tree: Tree) -> bool:
    """Tell whether a command answers at once, and perhaps at length: no one types while it runs, and nothing is followed."""
    if words[0] in ("help", "?", "history") or not {"-h", "--help"}.isdisjoint(words):
        return True
    match = tree.find(words[1:] if words[0] == "irons" else words)
    return match is not None and match.command.pace_of(match.rest) == "quick"


class Paged:
    """A terminal's stdout whose text goes to a pager once it is longer than the screen; it stands in for a `TextIO`.

    What is flushed before is shown at once, and then nothing is paged: a person is to read it now, perhaps to answer a question.
    """

    def __init__(self, terminal: TextIO, command: str, env: Mapping[str, str]) -> None:
        """Take the terminal, the pager, and the environment that it runs in."""
        self._terminal = terminal
        self._command = command
        self._env = {"LESS": LESS, "LV": "-c", **env}
        self._held: list[str] = []
        self._rows = 0
        self._direct = False
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: TextIO | None = None
        self.encoding = terminal.encoding
        self._size = os.get_terminal_size(terminal.fileno())

    def write(self, text: str) -> int:
        """Take in text."""
        if self._pipe is not None:
            return self._pipe.write(text)
        if self._direct:
            return self._terminal.write(text)
        self._held.append(text)
        self._rows += self._rows_of(text)
        if self._rows >= self._size.lines:
            self._begin()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Take in several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Show what there is; where it is less than a screen, the rest is not paged."""
        if self._pipe is not None:
            self._pipe.flush()
        elif self._held:
            self._show()
        else:
            self._terminal.flush()

    def isatty(self) -> bool:
        """True: a person reads it."""
        return True

    def fileno(self) -> int:
        """The terminal's descriptor, by which its size is asked for."""
        return self._terminal.fileno()

    def close(self) -> None:
        """Show what is held, or let the person read to the end."""
        if self._process is None:
            self._show()
            return
        try:
            if self._pipe is not None:
                self._pipe.close()
        except BrokenPipeError:
            pass  # the person has read enough
        finally:
            with left_to_programs():
                code_of(self._process)

    def _show(self) -> None:
        self._terminal.write("".join(self._held))
        self._terminal.flush()
        self._held, self._direct = [], True

    def _begin(self) -> None:
        """Start the pager with what is held."""
        self._terminal.flush()
        with left_to_programs():
            self._process = subprocess.Popen(
                (SHELL, "-c", self._command), env=self._env, stdin=subprocess.PIPE
            )
        pipe = cast("IO[bytes]", self._process.stdin)
        self._pipe = os.fdopen(os.dup(pipe.fileno()), "w", encoding="utf-8", errors="backslashreplace")
        pipe.close()
        held, self._held = self._held, []
        self._pipe.write("".join(held))

    def _rows_of(self, text: str) -> int:
        """How many rows a text takes, lines that are longer than the screen is wide folded."""
        lines = _UNSEEN.sub("", text).split("\n")
        width = max(1, self._size.columns)
        return len(lines) - 1 + sum((len(line) - 1) // width for line in lines if len(line) > width)


@contextmanager
def paged(terminal: TextIO, command: str, env: Mapping[str, str]) -> Iterator[TextIO]:
    """Give a stdout whose text goes through a pager where it is longer than the screen; at the end the person has read it.

    Args:
        terminal: The terminal's stdout.
        command: The pager, as `pager_of` returns it.
        env: What it runs in.
    """
    stream = Paged(terminal, command, env)
    try:
        yield cast("TextIO", stream)
    finally:
        stream.close()
