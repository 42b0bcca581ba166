"""Lines of several programs on one stream, each after the name of its sandbox, so that none can write in another's name."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from irons.terminal.cells import rows
from irons.terminal.room import write_all
from irons.text import clean

if TYPE_CHECKING:
    from typing import TextIO

LONGEST = 1 << 16
"""Bytes of a line; what is longer goes on in a next line, after the name again."""

_TAB = 8


class Shared:
    """A stream that several sandboxes write whole lines to.

    Args:
        stream: Where they go.
        columns: How wide the terminal is; None where the stream is not a terminal, and lines pass byte for byte.
    """

    def __init__(self, stream: TextIO, columns: int | None) -> None:
        self._stream = stream
        self._columns = columns
        self._lock = Lock()

    def write(self, name: str, line: bytes) -> None:
        """Write one line, without its end, of a sandbox."""
        if self._columns is None:
            data = b"%s: %s\n" % (name.encode(), line)
        else:
            text = line.decode(errors="backslashreplace").removesuffix("\r").expandtabs(_TAB)
            width = max(self._columns - len(name) - 2, 1)
            # A terminal goes on in its next row by itself, where the line would stand without a name.
            named = (f"{name}: {row}\n" for row in rows(_printable(text), width))
            data = "".join(named).encode(self._stream.encoding or "utf-8", "backslashreplace")
        with self._lock:
            self._put(data)

    def _put(self, data: bytes) -> None:
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._stream.write(data.decode(errors="backslashreplace"))
            return
        self._stream.flush()
        write_all(descriptor, data)


def _printable(text: str) -> str:
    """`text` cleaned, with what has no width of its own in every terminal (private use, unassigned) as escapes too."""
    shown = clean(text)
    if shown.isprintable():
        return shown
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in shown)


class Prefixed:
    """One sandbox's way to a shared stream. It is a `Sink`: call it with each piece, and `end` it."""

    def __init__(self, name: str, shared: Shared) -> None:
        self._name = name
        self._shared = shared
        self._held = b""

    def __call__(self, data: bytes) -> None:
        """Take a piece and write the lines that are whole."""
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            self._shared.write(self._name, line)
        while len(self._held) >= LONGEST:
            self._shared.write(self._name, self._held[:LONGEST])
            self._held = self._held[LONGEST:]

    def end(self) -> None:
        """Write a last line that has no end."""
        if self._held:
            self._shared.write(self._name, self._held)
            self._held = b""
