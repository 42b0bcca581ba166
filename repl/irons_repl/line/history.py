"""The lines that were typed, kept in the state directory for their owner alone; never one with a key, or one that begins with a space.

One JSON string a line, so that a line with several lines stays one entry. A file that is something else is kept aside.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import History

from irons.files import write_whole
from irons_repl.line.quarantine import set_aside

MOST = 10_000
"""Entries kept."""

LONGEST = 10_000
"""Characters of an entry worth keeping."""

_SECRET = re.compile(r"api[-_]?key|(?:secret|token|passw(?:or)?d|credential)s?[\"']?\s*=", re.IGNORECASE)


def worth_keeping(line: str, key: str | None) -> bool:
    """Tell whether a line goes into the history: not blank, no space before it, no key in it; `key` is the one in use."""
    if not line.strip() or line[0] == " " or len(line) > LONGEST:
        return False
    return not _SECRET.search(line) and not (key and key in line)


class FileHistory(History):
    """History in a file of mode 0600.

    Attributes:
        said: A line about the file for people; empty where all is well.
    """

    def __init__(self, path: Path, key: str | None = None) -> None:
        """Take the file, and the API key in use, which no line in it may hold."""
        super().__init__()
        self._path = path
        self._key = key
        self.said = ""
        self._entries = self._read()

    def load_history_strings(self) -> Iterable[str]:
        """Yield entries, the newest first."""
        yield from reversed(self._entries)

    def append_string(self, string: str) -> None:
        """Take in a line that was typed, if it is worth keeping."""
        if worth_keeping(string, self._key):
            super().append_string(string)

    def store_string(self, string: str) -> None:
        """Write an entry in one piece, so that several prompts can share the file; a file that can't be written is done without."""
        data = (json.dumps(string) + "\n").encode()
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
            return []
        except OSError as error:
            self.said = f"the history {self._path} can't be read ({error.strerror}); lines are remembered only while this prompt is open"
            return []
        entries, broken = _entries(data)
        if broken:
            self._keep_aside(entries)
        elif len(entries) > MOST + MOST // 10:
            entries = entries[-MOST:]
            self._write(entries)
        self._own()
        return entries[-MOST:]

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
