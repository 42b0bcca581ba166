"""Tables for a person; the only module that imports rich, and itself imported only where one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_NARROW = 26
_FOLDED = 10


def render_table(
    titles: Sequence[str], lines: Sequence[Sequence[str]], columns: int | None, *, colour: bool
) -> str:
    """Return a table as text.

    Args:
        titles: The columns' titles.
        lines: The cells of each row, cleaned.
        columns: How wide the terminal is; None for a file, which has no width, so that nothing is folded there.
        colour: Whether it may have colour.
    """
    needs = [max(cell_len(text) for text in texts) for texts in zip(titles, *lines, strict=True)]
    width = columns or sum(needs) + 2 * len(needs)
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
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, keep in zip(titles, _kept_whole(needs, width), strict=True):
        table.add_column(title, overflow="fold", no_wrap=keep)
    for line in lines:
        table.add_row(*map(Text, line))
    console.print(table)
    return text.getvalue()


def _kept_whole(needs: list[int], width: int) -> list[bool]:
    """Which columns keep their width where not all fit: the narrow ones, as long as the others have something left to fold in."""
    if sum(needs) + 2 * len(needs) <= width:
        return [True] * len(needs)
    whole = [need <= _NARROW for need in needs]
    folded = whole.count(False)
    left = width - 2 * len(needs) - sum(need for need, keep in zip(needs, whole, strict=True) if keep)
    return whole if left >= folded * _FOLDED else [False] * len(needs)
