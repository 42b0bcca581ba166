"""The events of the audit log, read from the rows and the columns of an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import Any, cast

from irons.client.models.fields import (
    LARGEST,
    MOST_ROWS,
    text_of,
    time_of,
    times_of,
    whole_of,
)
from irons.errors import ApiError
from irons_policy.event import FIELDS, Event, HeadField, Kind, NumberField, TextField, WordField
from irons_policy.modes import read_mode


def _is_text(kind: Kind) -> bool:
    return kind.holds == "text" if isinstance(kind, HeadField) else isinstance(kind, TextField | WordField)


def _is_whole(kind: Kind) -> bool:
    return (
        kind.holds == "number"
        if isinstance(kind, HeadField)
        else isinstance(kind, NumberField) and kind.whole
    )


_KEYS = {name: kind.key if isinstance(kind, HeadField) else name for name, kind in FIELDS.items()}
_TEXTS = [name for name, kind in FIELDS.items() if _is_text(kind)]
_NUMBERS = [name for name, kind in FIELDS.items() if _is_whole(kind)]
_TEXT_KEYS = frozenset(_KEYS[name] for name in _TEXTS)
_OTHERS = ["time", "allowed", "duration_ms"]
"""Fields that are read one by one: of their kinds there is one each."""
_texts_of = itemgetter(*(_KEYS[name] for name in _TEXTS))
_numbers_of = itemgetter(*(_KEYS[name] for name in _NUMBERS))
_ABSENT = {_KEYS[name]: "" if name in _TEXTS else None for name in FIELDS}
_STR, _INT, _INT_OR_NONE = frozenset((str,)), frozenset((int,)), frozenset((int, type(None)))
_FLAGS, _FRACTIONS = frozenset((bool,)), frozenset((float, type(None)))
_FEW = 8
"""Events up to which reading them one by one takes no longer."""
_SANDBOX, _VERDICT, _COUNT = _TEXTS.index("sandbox"), _TEXTS.index("verdict"), _NUMBERS.index("count")
_in_order = itemgetter(*map([*_TEXTS, *_NUMBERS, *_OTHERS].index, FIELDS))
"""From values as they are read, by kind, to values as an event has them."""
_event = cast("Callable[[tuple[Any, ...]], Event]", partial(tuple.__new__, Event))
"""Make an event of its values; `Event._make` counts them once more."""


def events_of(rows: Sequence[Mapping[str, Any]], sandbox: str) -> tuple[Event, ...]:
    """Read the events of a page as `event_of` reads each; long logs are events by the hundred thousand.

    Events that have the same fields are read together, field by field: nearly all of them are what they should be, and that is
    found in half the time for a whole column.
    """
    if rows and (columns := _alike(rows)) is not None:
        return tuple(_read_alike(rows, sandbox, columns))
    kinds = list(map(tuple, rows))
    alike: dict[tuple[str, ...], list[int]] = {}
    for at, kind in enumerate(kinds):
        alike.setdefault(kind, []).append(at)
    found: list[Event | None] = [None] * len(rows)
    for places in alike.values():
        some = [rows[at] for at in places]
        for at, event in zip(places, _read_alike(some, sandbox, _alike(some) or {}), strict=True):
            found[at] = event
    return cast("tuple[Event, ...]", tuple(found))


def events_in_columns(columns: object, sandbox: str) -> tuple[Event, ...]:
    """Read events of which an answer has some fields, a list of values for each; nothing where it has none.

    Raises:
        ApiError: There are too many, or one field has more values than another.
    """
    if not isinstance(columns, dict) or not columns:
        return ()
    told = {name: values for name, values in columns.items() if isinstance(values, list)}
    sizes = set(map(len, told.values()))
    if len(sizes) != 1 or len(told) != len(columns):
        raise ApiError("the fields of the server's audit log have not as many values each")
    (size,) = sizes
    if size > MOST_ROWS:
        raise ApiError(f"the server sent {size:,} events at once; {MOST_ROWS:,} is the most")
    if size > _FEW and (found := _columns(_filled(told, sandbox, size))) is not None:
        return tuple(map(_event, zip(*found, strict=False)))
    rows = zip(*told.values(), strict=True)
    return tuple(
        event_of({name: value for name, value in zip(told, row, strict=True) if value is not None}, sandbox)
        for row in rows
    )


def _filled(told: Mapping[str, Sequence[Any]], sandbox: str, size: int) -> Mapping[str, Sequence[Any]]:
    """Return columns with what each event has, also where it was not asked for, and texts for those that are absent."""
    filled = {
        name: ["" if value is None else value for value in column]
        if name in _TEXT_KEYS and None in column
        else column
        for name, column in told.items()
    }
    for name, value in ((_KEYS["sandbox"], sandbox), (_KEYS["verdict"], ""), (_KEYS["count"], 1)):
        if name not in filled and value:
            filled[name] = [value] * size
    return filled


def _alike(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Any]] | None:
    """Return the columns of events that have the same fields; None where they have not."""
    names = tuple(rows[0])
    if len(names) <= 1 or set(map(len, rows)) != {len(names)}:
        return None
    try:
        return dict(zip(names, zip(*map(itemgetter(*names), rows), strict=True), strict=True))
    except KeyError:
        return None


def _read_alike(
    rows: Sequence[Mapping[str, Any]], sandbox: str, told: Mapping[str, Sequence[Any]]
) -> Iterable[Event]:
    """Read events that have the same fields, and their columns."""
    columns = None if len(rows) <= _FEW else _columns(told)
    if columns is None:
        return [event_of(row, sandbox) for row in rows]
    return map(_event, zip(*columns, strict=False))


def _columns(told: Mapping[str, Sequence[Any]]) -> Sequence[Iterable[Any]] | None:
    """Return the fields of events, each as a column, in the order of `FIELDS`; None where one lacks something or is of another type."""
    columns: dict[str, Iterable[Any]] = {}
    for name in _TEXTS:
        texts = told.get(_KEYS[name])
        if texts is not None and not _are_texts(texts):
            return None
        columns[name] = repeat("") if texts is None else texts
    for name in _NUMBERS:
        numbers = told.get(_KEYS[name])
        if numbers is not None and not _are_whole(numbers):
            return None
        columns[name] = repeat(None) if numbers is None else numbers
    flags, durations, times = (told.get(key, ()) for key in ("allowed", "duration_ms", "timestamp"))
    if not _FLAGS.issuperset(map(type, flags)) or not _FRACTIONS.issuperset(map(type, durations)):
        return None
    # Each event has these.
    if not all(told.get(_KEYS[name]) and all(told[_KEYS[name]]) for name in ("sandbox", "verdict", "count")):
        return None
    if "ask" in told and "mode" in told:
        asking = zip(told["mode"], told["ask"], strict=True)
        columns["mode"] = [read_mode({"mode": mode, "ask": ask}) for mode, ask in asking]
    columns["allowed"] = flags or repeat(False)
    columns["duration_ms"] = durations or repeat(None)
    columns["time"] = times_of(times) if times else repeat(None)
    return [columns[name] for name in FIELDS]


def _are_texts(column: Sequence[Any]) -> bool:
    """Tell whether a column has texts alone. Joining them looks at their types, faster than a look at each."""
    try:
        "".join(column)
    except TypeError:
        return False
    return True


def _are_whole(column: Sequence[Any]) -> bool:
    """Tell whether a column has whole numbers and None alone, and none below 0 or too large."""
    numbers = [number for number in column if number is not None]
    return _INT.issuperset(map(type, numbers)) and (
        not numbers or (min(numbers) >= 0 and max(numbers) < LARGEST)
    )


def event_of(row: Mapping[str, Any], sandbox: str) -> Event:
    """Read an audit event; `sandbox` is whose log was asked for, where the event does not say it."""
    whole = {**_ABSENT, **row}
    if "ask" in row:
        whole["mode"] = read_mode(row)
    texts, numbers = _texts_of(whole), _numbers_of(whole)
    if (
        not _STR.issuperset(map(type, texts))
        or not _INT_OR_NONE.issuperset(map(type, numbers))
        or not texts[_SANDBOX]
        or not texts[_VERDICT]
        or not numbers[_COUNT]
    ):
        return _repaired(whole, sandbox)
    for number in numbers:
        if number is not None and not 0 <= number < LARGEST:
            return _repaired(whole, sandbox)
    duration = whole["duration_ms"]
    return _event(
        _in_order(
            (
                *texts,
                *numbers,
                time_of(whole["timestamp"]),
                whole["allowed"] is True,
                duration if type(duration) is float else whole_of(duration),
            )
        )
    )


def _repaired(row: Mapping[str, Any], sandbox: str) -> Event:
    """Read an event that lacks something, or has something of another type."""
    allowed, duration = row["allowed"] is True, row["duration_ms"]
    values: list[Any] = [
        value if type(value) is str else text_of(value) if value else "" for value in _texts_of(row)
    ]
    numbers = [
        value if value is None or (type(value) is int and 0 <= value < LARGEST) else whole_of(value)
        for value in _numbers_of(row)
    ]
    if not values[_SANDBOX]:
        values[_SANDBOX] = sandbox
    if not values[_VERDICT]:
        # A server that tells no verdict tells at least whether the connection passed.
        values[_VERDICT] = "allowed" if allowed else "blocked"
    if numbers[_COUNT] is None:
        numbers[_COUNT] = 1
    values += numbers
    values += (
        time_of(row["timestamp"]),
        allowed,
        duration if type(duration) is float else whole_of(duration),
    )
    return _event(_in_order(values))
