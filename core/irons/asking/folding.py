"""Texts of the questions' pane as lines of so many cells."""

from __future__ import annotations

from typing import Final

from irons.terminal.cells import cells, cut_left, rows

INDENT: Final = "  "
"""Begins each further row of a word that is too long for one."""


def folded(text: str, width: int, *, whole: bool = False) -> list[str]:
    """Fold a text at its blanks; a word that is too long is cut on its left, or with `whole` goes on in the next line, indented."""
    lines: list[str] = []
    for part in text.split("\n"):
        line = ""
        words = part.split(" ")
        for word in [row for each in words for row in _in_rows(each, width)] if whole else words:
            if line and cells(line) + 1 + cells(word) > width:
                lines.append(line)
                line = ""
            line += f" {word}" if line else cut_left(word, width)
        if line:
            lines.append(line)
    return lines


def _in_rows(word: str, width: int) -> list[str]:
    """A word as rows: each but the first is indented, so that it does not look like another word."""
    if cells(word) <= width or width <= 2 * len(INDENT):
        return list(rows(word, width))
    first, *more = rows(word, width - len(INDENT))
    return [first, *(f"{INDENT}{row}" for row in more)]
