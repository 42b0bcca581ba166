"""Records as bytes of a file: JSON lines and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from irons.text import clean, rfc3339
from irons_plugins.audit.export.records import ExportRecord

_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\N{FULLWIDTH EQUALS SIGN}",
    "\N{FULLWIDTH PLUS SIGN}",
    "\N{FULLWIDTH HYPHEN-MINUS}",
    "\N{FULLWIDTH COMMERCIAL AT}",
)
"""What a spreadsheet takes for the beginning of a formula (OWASP, CSV injection)."""


class Encoder(Protocol):
    """Makes bytes of records."""

    def head(self) -> bytes:
        """Return what a file begins with."""
        ...

    def encode(self, records: Iterable[ExportRecord]) -> bytes:
        """Return records, each a line."""
        ...


class JsonLines:
    """A JSON object a line, in ASCII; times are RFC 3339."""

    def head(self) -> bytes:
        """Return nothing."""
        return b""

    def encode(self, records: Iterable[ExportRecord]) -> bytes:
        """Return records, each a line."""
        return b"".join(self._line(each) for each in records)

    @staticmethod
    def _line(record: ExportRecord) -> bytes:
        return json.dumps({"type": record.type, **record.fields}, default=_json).encode() + b"\n"


class Csv:
    """CSV (RFC 4180) with a head; lines end with a line feed.

    Args:
        columns: The columns after `type`.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = ("type", *columns)

    def head(self) -> bytes:
        """Return the line of column names."""
        return self._line(self._columns)

    def encode(self, records: Iterable[ExportRecord]) -> bytes:
        """Return records, each a line; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
        return b"".join(
            self._line(
                [_cell(record.type if name == "type" else record.fields.get(name)) for name in self._columns]
            )
            for record in records
        )

    @staticmethod
    def _line(cells: Sequence[str]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return json.dumps(value, default=_json) if value else ""
    text = str(value)
    # Before it is cleaned, which makes other text of control characters; spaces in front do not stop a spreadsheet.
    guarded = text.lstrip(" ").startswith(_FORMULA)
    return f"'{clean(text)}" if guarded else clean(text)


def _json(value: object) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    return str(value)
