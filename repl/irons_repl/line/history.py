"""The lines that were typed, kept in the state directory for their owner alone; never one with a secret, or one that begins with a space.

One JSON string a line, so that a line with several lines stays one entry. A file that is something else is kept aside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import History

from irons.files import write_whole
from irons_repl.line.quarantine import set_aside
from irons_repl.line.secrets import holds_secret

MOST = 10_000
"""Entries kept."""

LONGEST = 10_000
"""Characters of an entry worth keeping."""

RULES = 2
"""The version of what is left out. A file that was written under an earlier one is gone through once."""


def worth_keeping(line: str, key: str | None) -> bool:
    """Tell whether a line goes into the history: not blank, no space before it, no secret in it; `key` is the API key in use."""
    if not line.strip() or line[0] == " " or len(line) > LONGEST:
        return False
    return not (key and key in line) and not holds_secret(line)


class FileHistory(History):
    """History in a file of mode 0600.

    Attributes:
        said: A line about the file for people; empty where all is well.
        is_new: Whether there was no file yet: this is the first prompt.
    """

    def __init__(
        self, path: Path, key: str | None = None, recalled: Callable[[str], str] = lambda line: line
    ) -> None:
        """Take the file, and what its lines may hold.

        Args:
            path: The file.
            key: The API key in use, which no line in it may hold.
            recalled: Returns a line as it is kept; an empty one is left out.
        """
        super().__init__()
        self._path = path
        self._key = key
        self._recalled = recalled
        self.said = ""
        self.is_new = False
        self._entries = self._read()

    def load_history_strings(self) -> Iterable[str]:
        """Yield entries, the newest first."""
        yield from reversed(self._entries)

    @property
    def lines(self) -> list[str]:
        """The entries, the oldest first: those of the file as it was at the beginning, and those of this prompt."""
        return self._entries.copy()

    def append_string(self, string: str) -> None:
        """Take in a line that was typed, as it is recalled, if it is worth keeping and is not the last one again."""
        line = self._kept(string)
        if line and self._entries[-1:] != [line]:
            self._entries.append(line)
            super().append_string(line)

    def begin(self) -> None:
        """Make the file, so that the next prompt is not the first one; one that can't be made is done without."""
        self._append(b"")

    def store_string(self, string: str) -> None:
        """Write an entry in one piece, so that several prompts can share the file; a file that can't be written is done without."""
        self._append((json.dumps(string) + "\n").encode())

    def _append(self, data: bytes) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.write(descriptor, data)
        except OSError:
            return
        finally:
            os.close(descriptor)

    def _read(self) -> list[str]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            self.is_new = True
            self._mark()
            return []
        except OSError as error:
            self.said = f"the history {self._path} can't be read ({error.strerror}); lines are remembered only while this prompt is open"
            return []
        entries, broken = _entries(data)
        if not self._marked:
            entries, before = [line for line in map(self._kept, entries) if line], entries
            if entries != before and not broken:
                self._write(entries)
            self._mark()
        if broken:
            self._keep_aside(entries)
        elif len(entries) > MOST + MOST // 10:
            entries = entries[-MOST:]
            self._write(entries)
        self._own()
        return entries[-MOST:]

    def _kept(self, line: str) -> str:
        """Return a line as it is kept; empty where it is left out."""
        return self._recalled(line) if worth_keeping(line, self._key) else ""

    @property
    def _mark_path(self) -> Path:
        return self._path.with_name(f"{self._path.name}.rules-{RULES}")

    @property
    def _marked(self) -> bool:
        return self._mark_path.exists()

    def _mark(self) -> None:
        """Note that the lines of the file were left out by these rules."""
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._mark_path.touch(mode=0o600)

    def _keep_aside(self, entries: list[str]) -> None:
        try:
            aside = set_aside(self._path)
        except OSError as error:
            self.said = f"the history {self._path} is corrupt and can't be moved aside ({error.strerror})"
            return
        self.said = (
            f"the history was corrupt: it is kept as {aside}, and {len(entries)} whole lines of it go on"
        )
        self._write(entries)

    def _write(self, entries: list[str]) -> None:
        with suppress(OSError):
            write_whole(self._path, "".join(json.dumps(entry) + "\n" for entry in entries))

    def _own(self) -> None:
        """Close the file to others, should it have been opened to them."""
        try:
            if self._path.stat().st_mode & 0o077:
                self._path.chmod(0o600)
        except OSError:
            return


def _entries(data: bytes) -> tuple[list[str], bool]:
    """The entries of a file's bytes, and whether something else was among them."""
    entries: list[str] = []
    broken = False
    for line in data.split(b"\n"):
        if not line:
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, str) and "\0" not in entry:
            entries.append(entry)
        else:
            broken = True
    return entries, broken
