"""The cells of a terminal that a text takes: two for a wide letter of East Asia, one for any other."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator


def cells(text: str) -> int:
    """Return how many cells `text` takes at most; it must be printable."""
    return len(text) if text.isascii() else sum(map(_of, text))


def cut(text: str, width: int) -> str:
    """Return as much of the beginning of `text` as fits into so many cells."""
    used = 0
    for at, character in enumerate(text):
        used += _of(character)
        if used > width:
            return text[:at]
    return text


def cut_left(text: str, width: int) -> str:
    """Return as much of the end of `text` as fits, with a mark where something is missing."""
    if cells(text) <= width:
        return text
    # Turned round, its end is its beginning.
    return "…" + cut(text[::-1], width - 1)[::-1] if width > 0 else ""


def cut_middle(text: str, width: int) -> str:
    """Return as much of both ends of `text` as fits, with a mark where something is missing."""
    if cells(text) <= width:
        return text
    if width < 1:
        return ""
    beginning = cut(text, (width - 1) // 2)
    return f"{beginning}…{cut(text[::-1], width - 1 - cells(beginning))[::-1]}"


def rows(text: str, width: int) -> Iterator[str]:
    """Cut `text` into rows of so many cells; at least one, and at least one character in each."""
    row, used = "", 0
    for character in text:
        taken = _of(character)
        if row and used + taken > width:
            yield row
            row, used = "", 0
        row, used = row + character, used + taken
    yield row


def _of(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
