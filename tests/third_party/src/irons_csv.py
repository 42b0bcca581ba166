"""The output format `csv`: RFC 4180, with a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

from irons import hookimpl

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@hookimpl
def irons_formats() -> Mapping[str, str]:
    """Bring `-o csv`."""
    return {"csv": "irons_csv:written"}


def written(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> Iterator[str]:
    """Yield the header and a line for each row; a cell that a spreadsheet would run gets a quote before it."""
    del columns
    names: Sequence[str] = ()
    for row in rows:
        if not names:
            names = tuple(row)
            yield _line(names)
        yield _line([_cell(row.get(name)) for name in names])


def _cell(value: object) -> str:
    if isinstance(value, tuple | list):
        value = " ".join(map(str, value))
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) and not isinstance(value, int | float) else text


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()
