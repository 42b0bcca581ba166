"""Data into text: a table for a person, tab-separated lines for a pipe, json and jsonl for programs.

Every text that came from outside is cleaned on its way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from irons.errors import IronsError
from irons.text import LONGEST, age, clean, local_time, rfc3339

if TYPE_CHECKING:
    from irons.command import Column, View
    from irons.terminal.streams import Streams

Format = Literal["table", "plain", "json", "jsonl"]

FLUSH_EVERY = 512
"""Rows of a long answer between two flushes when no one watches."""

KEPT = 4096
"""Rows of a JSON array kept in memory until it is whole; what is longer waits in a temporary file."""


_CODES = {"green": 32, "red": 31, "yellow": 33, "bright_black": 90}
"""Colours of followed lines, as a terminal takes them (ECMA-48)."""


def choose_format(asked: str | None, streams: Streams) -> Format:
    """Return the format asked for, else a table for a terminal and plain lines for a pipe."""
    if asked:
        return cast("Format", asked)
    return "table" if streams.stdout_is_tty else "plain"


def show(data: object, view: View, form: Format, streams: Streams, *, follow: bool = False) -> None:
    """Write an answer to stdout.

    Args:
        data: A row (dataclass, NamedTuple or mapping), an iterable of rows or strings, a string, or None.
        view: How rows are shown to a person.
        form: The format.
        streams: Where to write.
        follow: Rows come as they happen: each is flushed, and a table is plain lines.
    """
    if data is None:
        if form == "json":
            streams.stdout.write("null\n")
        return
    if isinstance(data, str):
        _show_text(data, form, streams)
        return
    if is_row(data):
        _show_record(data, view, form, streams)
        return
    if not isinstance(data, Iterable):
        message = f"a handler returns a row, rows, a string, Result, Exec or None, not {type(data).__name__}"
        raise TypeError(message)
    rows = iter(cast("Iterable[object]", data))
    match form:
        case "json":
            _show_array(rows, streams)
        case "jsonl":
            _lines((_dumps(row) for row in rows), streams, follow=follow)
        case "plain":
            _lines(_plain(rows, view), streams, follow=follow)
        case "table":
            _show_table(rows, view, streams, follow=follow)


def show_error(error: IronsError, form: str | None, streams: Streams) -> None:
    """Write an error to stderr: one to three lines for a person, one JSON object for a program."""
    if form in ("json", "jsonl"):
        told = {
            "code": error.code,
            "message": clean(error.message, limit=LONGEST),
            "hint": clean(error.hint, limit=LONGEST),
            "exit": error.exit_code,
        }
        streams.stderr.write(json.dumps({"error": told}) + "\n")
    else:
        streams.stderr.write(f"irons: {clean(error.message, limit=LONGEST)}\n")
        if error.hint:
            streams.stderr.write(f"  {clean(error.hint, limit=LONGEST)}\n")
    streams.stderr.flush()


def as_mapping(row: Any) -> Mapping[str, Any]:
    """Return a row as key → value, in the order of its fields."""
    if isinstance(row, Mapping):
        return row
    as_dict = getattr(row, "_asdict", None)
    if as_dict is not None:
        return cast("Mapping[str, Any]", as_dict())
    kind: type = type(row)
    return _reader(kind)(row)


@lru_cache
def _reader(kind: type) -> Callable[[object], dict[str, Any]]:
    """How a dataclass's instances are read: long logs are rows by the hundred thousand."""
    from dataclasses import fields
    from operator import attrgetter

    if not hasattr(kind, "__dataclass_fields__"):
        message = f"a row is a dataclass, a named tuple or a mapping, not {kind.__name__}"
        raise TypeError(message)

    names = tuple(field.name for field in fields(kind))
    if len(names) < 2:
        return lambda row: {name: getattr(row, name) for name in names}
    read = attrgetter(*names)
    return lambda row: dict(zip(names, read(row), strict=True))


def is_row(data: object) -> bool:
    """Tell whether data is one row: a mapping, a named tuple or a dataclass."""
    return isinstance(data, Mapping) or hasattr(data, "_asdict") or hasattr(data, "__dataclass_fields__")


def _default(value: object) -> object:
    if isinstance(value, datetime):
        return rfc3339(value)
    if is_row(value):
        return dict(as_mapping(value))
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


# ASCII alone: neither control nor bidi characters reach a terminal raw.
_ENCODER = json.JSONEncoder(default=_default)


def _dumps(row: object) -> str:
    return _ENCODER.encode(row if isinstance(row, str | dict) else dict(as_mapping(row)))


def _show_text(text: str, form: Format, streams: Streams) -> None:
    if form in ("json", "jsonl"):
        streams.stdout.write(json.dumps({"text": text}) + "\n")
    else:
        shown = "\n".join(_kept_tabs(line) for line in text.split("\n"))
        streams.stdout.write(shown if shown.endswith("\n") else f"{shown}\n")
    streams.stdout.flush()


def _kept_tabs(line: str) -> str:
    return line if line.isprintable() else "\t".join(clean(part) for part in line.split("\t"))


def _show_record(row: object, view: View, form: Format, streams: Streams) -> None:
    if form in ("json", "jsonl"):
        streams.stdout.write(_dumps(row) + "\n")
    elif view.record:
        titles = _record(as_mapping(row), view, table=form == "table")
        if form == "table":
            width = max((len(title) for title, _ in titles), default=0)
            _lines((f"{title + ':':<{width + 1}} {value}" for title, value in titles), streams)
        else:
            _lines((f"{title}\t{value}" for title, value in titles), streams)
    elif form == "table" and not view.line:
        _show_table(iter([row]), view, streams, follow=False)
    else:
        _lines(_plain(iter([row]), view), streams)
    streams.stdout.flush()


def _record(row: Mapping[str, Any], view: View, *, table: bool) -> list[tuple[str, str]]:
    shown: list[tuple[str, str]] = []
    for column in _columns(view, row):
        value = row.get(column.key) if column.key else row
        if not column.key:
            told = _cell(column)(row)
            if told:
                shown.append((column.title, told))
            continue
        if value in (None, "", {}, ()):
            continue
        if isinstance(value, Mapping):
            inner = _function(column.text)(value) if column.text else value
            shown.extend(
                (clean(str(key)), clean(str(item))) for key, item in cast("Mapping[str, Any]", inner).items()
            )
        else:
            text = _record_cell(column) if table else _cell(column)
            shown.append((column.title or column.key, text(value)))
    return shown


def _record_cell(column: Column) -> Callable[[object], str]:
    """How a value of a record is made text for a person: a time with its age."""
    if column.table:
        text = _function(column.table)
        return lambda value: clean(text(value))
    other = _cell(column)
    if column.text:
        return other
    from datetime import UTC

    now = datetime.now(UTC)
    return lambda value: _dated(value, now) if isinstance(value, datetime) else other(value)


def _dated(time: datetime, now: datetime) -> str:
    """Return a time with its age; without one where the age is told as a date."""
    shown, told = local_time(time), age(time, now)
    return shown if shown.startswith(told) else f"{shown} ({told})"


def _columns(view: View, row: Mapping[str, Any]) -> tuple[Column, ...]:
    if view.columns:
        return view.columns
    from irons.command import Column

    return tuple(Column(key) for key in row)


def _plain(rows: Iterator[object], view: View) -> Iterator[str]:
    return map(_function(view.line), rows) if view.line else _plain_cells(rows, view)


def _plain_cells(rows: Iterator[object], view: View) -> Iterator[str]:
    cells: list[tuple[str, Callable[[object], str]]] | None = None
    for row in rows:
        if isinstance(row, str):
            yield clean(row)
            continue
        mapping = as_mapping(row)
        if cells is None:
            cells = [(column.key, _cell(column)) for column in _columns(view, mapping)]
        yield "\t".join(cell(mapping.get(key) if key else mapping) for key, cell in cells)


def _cell(column: Column) -> Callable[[object], str]:
    if not column.text:
        return _text
    text = _function(column.text)
    return lambda value: clean(text(value))


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return local_time(value)
    if isinstance(value, (tuple, list)):
        return clean(", ".join(str(item) for item in value))
    return clean(str(value))


def _function(name: str) -> Callable[[Any], str]:
    module, _, attribute = name.partition(":")
    return cast("Callable[[Any], str]", getattr(import_module(module), attribute))


def _lines(lines: Iterable[str], streams: Streams, *, follow: bool = False) -> None:
    write, flush = streams.stdout.write, streams.stdout.flush
    if follow or streams.stdout_is_tty:
        for number, line in enumerate(lines, 1):
            write(f"{line}\n")
            if follow or not number % FLUSH_EVERY:
                flush()
        flush()
        return
    # Long logs are lines by the hundred thousand, and a call for each would be a tenth of what they take.
    coming, kept = iter(lines), list[str]()
    try:
        while True:
            kept.extend(islice(coming, FLUSH_EVERY))
            if not kept:
                break
            write("\n".join((*kept, "")))
            kept.clear()
            flush()
    except BaseException:
        # What came before a failure is shown.
        if kept:
            write("\n".join((*kept, "")))
        raise
    flush()


def _show_array(rows: Iterator[object], streams: Streams) -> None:
    """Write a JSON array once it is whole, so that an answer that fails midway leaves stdout empty, in constant memory."""
    kept: list[str] = []
    spilled: IO[str] | None = None
    separator = "\n  "
    try:
        for row in rows:
            kept.append(f"{separator}{_dumps(row)}")
            separator = ",\n  "
            if len(kept) == KEPT:
                if spilled is None:
                    from tempfile import TemporaryFile

                    spilled = TemporaryFile("w+", encoding="ascii")  # noqa: SIM115 - closed below
                spilled.writelines(kept)
                kept.clear()
        write = streams.stdout.write
        write("[")
        if spilled is not None:
            spilled.seek(0)
            while piece := spilled.read(1 << 20):
                write(piece)
        write("".join(kept))
        write("]\n" if separator == "\n  " else "\n]\n")
        streams.stdout.flush()
    finally:
        if spilled is not None:
            spilled.close()


def _show_table(rows: Iterator[object], view: View, streams: Streams, *, follow: bool) -> None:
    first = next(rows, None)
    if first is None:
        if view.empty:
            streams.stderr.write(f"{view.empty}\n")
        return
    whole = chain([first], rows)
    colour = streams.colour(tty=streams.stdout_is_tty)
    if follow and view.live and not isinstance(first, str):
        _lines(_live(whole, view, streams, colour=colour), streams, follow=True)
        return
    if follow or not view.columns or isinstance(first, str):
        _lines(_plain(whole, view), streams, follow=follow)
        return
    from irons.terminal.tables import ColumnHead, render_table

    cells = [_table_cell(column) for column in view.columns]
    styles = [_function(column.style) if column.style else None for column in view.columns]
    lines: list[list[tuple[str, str]]] = []
    for row in whole:
        mapping = as_mapping(row)
        lines.append(
            [
                (style(mapping) if style else "", cell(mapping))
                for style, cell in zip(styles, cells, strict=True)
            ]
        )
    heads = [
        ColumnHead((column.title or column.key).upper(), column.cut, column.hide) for column in view.columns
    ]
    streams.stdout.write(render_table(heads, lines, streams.columns, colour=colour))
    streams.stdout.flush()


def _table_cell(column: Column) -> Callable[[Mapping[str, Any]], str]:
    """How a cell of a table is made text: as elsewhere, but of a time it is the age."""
    key = column.key
    if column.table:
        text = _function(column.table)
        return lambda row: clean(text(row.get(key) if key else row))
    other = _cell(column)
    if column.text or not key:
        return lambda row: other(row.get(key) if key else row)
    from datetime import UTC

    now = datetime.now(UTC)

    def told(row: Mapping[str, Any]) -> str:
        value = row.get(key)
        return age(value, now) if isinstance(value, datetime) else other(value)

    return told


def _live(rows: Iterator[object], view: View, streams: Streams, *, colour: bool) -> Iterator[str]:
    """Rows that are followed on a terminal, a line each."""
    module, _, attribute = view.live.partition(":")
    parts: Callable[[object, int | None], Iterable[tuple[str, str]]] = getattr(
        import_module(module), attribute
    )
    for row in rows:
        yield "".join(_painted(text, style if colour else "") for style, text in parts(row, streams.columns))


def _painted(text: str, style: str) -> str:
    code = _CODES.get(style)
    return clean(text) if code is None else f"\x1b[{code}m{clean(text)}\x1b[0m"
