"""What the terminal has of a picture of prompt_toolkit's, and the rows that a typed line takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompt_toolkit.layout.screen import Char
from prompt_toolkit.utils import get_cwidth

if TYPE_CHECKING:
    from prompt_toolkit.data_structures import Size
    from prompt_toolkit.layout.screen import Screen


def drawn_rows(screen: Screen, size: Size) -> set[str]:
    """Return the rows of a picture as far as the terminal has them, blank ends cut."""
    found: set[str] = set()
    for at in range(min(screen.height, size.rows)):
        row = screen.data_buffer[at]
        cells = [row[column].char if column in row else " " for column in range(size.columns)]
        found.add("".join(cells).rstrip())
    return found


def rows_of(text: str, before: int, columns: int, most: int) -> int:
    """Return how many rows a typed text takes.

    Args:
        text: The text, of one line or more.
        before: Columns before its first row; as many are before each further one.
        columns: The terminal's width.
        most: Rows beyond which the number does not matter.
    """
    # A wide character may leave a column empty.
    room = max(1, columns - 1 - before)
    # The cursor has a place after the last character.
    widths = [_width(line) + 1 for line in text[: columns * most].split("\n")]
    return sum(-(-width // room) for width in widths)


def _width(text: str) -> int:
    return sum(get_cwidth(Char.display_mappings.get(each, each)) for each in text)
