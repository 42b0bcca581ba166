"""Lines from a terminal that can do nothing but lines (`TERM=dumb`): no menu, no colours, no toolbar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons_repl.line.lexer import left_open

if TYPE_CHECKING:
    from irons.terminal.streams import Streams


def is_plain(streams: Streams) -> bool:
    """Tell whether the terminal can place no cursor."""
    return streams.env.get("TERM", "") in ("", "dumb")


def read_plain(streams: Streams, message: str) -> str:
    """Read a line, and those that an open quote or a last backslash takes along.

    Raises:
        EOFError: The person leaves.
    """
    line = _one(streams, message)
    while left_open(line):
        line += "\n" + _one(streams, "... ")
    return line


def _one(streams: Streams, message: str) -> str:
    streams.stdout.write(message)
    streams.stdout.flush()
    line = streams.stdin.readline()
    if not line:
        streams.stdout.write("\n")
        raise EOFError
    return line.removesuffix("\n")
