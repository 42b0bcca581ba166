"""Tables for a person; the only module that imports rich, and itself imported only where one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from irons.record import NamedTuple

_NARROW = 26
_FOLDED = 10
_STEPS: tuple[tuple[Literal["start", "end"], int], ...] = (
    ("end", 20),
    ("start", 28),
    ("end", 8),
    ("start", 12),
)
"""Where not all fit: which columns give way one after the other, by the side on which they are cut, and the cells that they keep."""
_GAP = 2


class ColumnHead(NamedTuple):
    """A column: its title, on which side it is cut where not all fit, and whether it is left out where it says nothing."""

    title: str
    cut: Literal["", "start", "end"] = ""
    hide: Literal["", "empty", "same"] = ""


Cell = tuple[str, str]
"""A colour, empty for none, and a text."""


def render_table(
    heads: Sequence[ColumnHead], lines: Sequence[Sequence[Cell]], columns: int | None, *, colour: bool
) -> str:
    """Return a table as text.

    Args:
        heads: The columns.
        lines: The cells of each row, cleaned.
        columns: How wide the terminal is; None for a file, which has no width, so that nothing is folded there.
        colour: Whether it may have colour.
    """
    kept = [at for at, head in enumerate(heads) if _says(head, [line[at][1] for line in lines])]
    needs = {at: max(cell_len(heads[at].title), *(cell_len(line[at][1]) for line in lines)) for at in kept}
    width = columns or sum(needs.values()) + _GAP * len(needs)
    widths = _fitted({at: heads[at] for at in kept}, needs, width)
    kept = [at for at in kept if widths[at]]
    whole = _kept_whole([widths[at] for at in kept], width)
    # Rich ends the process where the reader of a pipe has gone; written by ourselves, that is one case for all forms.
    text = StringIO()
    console = Console(
        file=text,
        force_terminal=colour,
        no_color=not colour,
        color_system="standard" if colour else None,
        width=width,
        highlight=False,
        emoji=False,
        markup=False,
    )
    if whole is None:
        for number, line in enumerate(lines):
            _stack(console, heads, line, first=not number)
        return text.getvalue()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, keep in zip(kept, whole, strict=True):
        table.add_column(heads[at].title, overflow="fold", no_wrap=keep)
    for line in lines:
        table.add_row(*(Text(_cut(line[at][1], widths[at], heads[at].cut), style=line[at][0]) for at in kept))
    console.print(table)
    return text.getvalue()


def _stack(console: Console, heads: Sequence[ColumnHead], line: Sequence[Cell], *, first: bool) -> None:
    """Print a row as titled lines, after an empty one, for a terminal that is too narrow for its columns."""
    told = [(f"{head.title.lower()}:", cell) for head, cell in zip(heads, line, strict=True) if cell[1]]
    left = max((cell_len(title) for title, _ in told), default=0)
    if not first:
        console.print()
    for title, (colour, value) in told:
        gap = " " * (left - cell_len(title) + 1)
        console.print(Text.assemble((title, "bold"), gap, (value, colour)), soft_wrap=True)


def _says(head: ColumnHead, texts: Sequence[str]) -> bool:
    """Tell whether a column is shown."""
    if head.hide == "empty":
        return any(texts)
    return head.hide != "same" or len(set(texts)) > 1


def _fitted(heads: dict[int, ColumnHead], needs: dict[int, int], width: int) -> dict[int, int]:
    """Return the width of each column, where not all fit narrower for those that may be cut; 0 leaves one out."""
    widths = dict(needs)
    over = sum(needs.values()) + _GAP * len(needs) - width
    if over <= 0:
        return widths
    for side, least in _STEPS:
        for at, head in heads.items():
            # A title is never cut.
            kept = max(least, cell_len(head.title), widths[at] - over)
            if head.cut == side and over > 0 and widths[at] > kept:
                over -= widths[at] - kept
                widths[at] = kept
    for at, head in heads.items():
        if head.cut == "end" and over > 0:
            # What is left of it would say nothing: names get its room.
            over -= widths[at] + _GAP
            widths[at] = 0
    # What is left over goes to names first, then to prose from the right: the last column is what a row is about.
    names = [at for at, head in heads.items() if head.cut == "start"]
    prose = [at for at, head in heads.items() if head.cut == "end"]
    for at in (*names, *reversed(prose)):
        if widths[at] and over < 0:
            more = min(needs[at] - widths[at], -over)
            widths[at] += more
            over += more
    return widths


def _cut(text: str, width: int, side: Literal["", "start", "end"]) -> str:
    """Return a text that is cut on one side, with an ellipsis, to so many cells."""
    if not side or cell_len(text) <= width:
        return text
    # Most characters take a cell; of those that take two fewer fit.
    kept = text[-(width - 1) :] if side == "start" else text[: width - 1]
    while cell_len(kept) > width - 1:
        kept = kept[1:] if side == "start" else kept[:-1]
    return f"…{kept}" if side == "start" else f"{kept.rstrip()}…"


def _kept_whole(needs: list[int], width: int) -> list[bool] | None:
    """Return which columns keep their width where not all fit: the narrow ones; None where the others have too little left to fold in."""
    if sum(needs) + _GAP * len(needs) <= width:
        return [True] * len(needs)
    whole = [need <= _NARROW for need in needs]
    folded = whole.count(False)
    left = width - _GAP * len(needs) - sum(need for need, keep in zip(needs, whole, strict=True) if keep)
    return whole if folded and left >= folded * _FOLDED else None
