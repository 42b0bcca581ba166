"""The audit log: what the API answers about it, and what its requests may say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import Any, TypedDict, cast

from irons.client.models.fields import (
    LARGEST,
    MOST_ROWS,
    count_of,
    rows_of,
    text_of,
    time_of,
    times_of,
    whole_of,
    wholes_of,
)
from irons.errors import ApiError
from irons.record import NamedTuple
from irons_policy.event import FIELDS, Event, HeadField, Kind, NumberField, TextField, WordField
from irons_policy.modes import read_mode


class HostFilters(TypedDict, total=False):
    """Which rows of what a sandbox tried are wanted; None is left out.

    Attributes:
        verdict: `allowed`, `denied` or `would-deny`, or several with commas between them; the API's words are taken too.
        host: A host, or a pattern of hosts.
        limit: The most rows, the latest.
    """

    verdict: str | None
    host: str | None
    limit: int | None


class AuditFilters(HostFilters, total=False):
    """Which events are wanted; only irons' own server knows of it. None is left out.

    Attributes:
        since: From this time on (RFC 3339).
        until: Up to this time (RFC 3339).
        outcome: One outcome, or several with commas between them.
        wait: Seconds that the server may hold its answer until there is an event.
        page_size: Events of one page, the oldest first.
        changes: The cursor of changes; 0 begins one.
        ids: Only these events, their ids with commas between them; 500 at most.
        export: Ask which events may still change, and how many there are.
        columns: Fields, by their names on the wire with commas between them: the events have these alone. Needs `audit-columns`.
    """

    since: str | None
    until: str | None
    outcome: str | None
    wait: float | None
    page_size: int | None
    changes: int | None
    ids: str | None
    export: bool | None
    columns: str | None


class EventUpdate(Event):
    """An event that a follower has seen before, as it is now: it ended, or was repeated."""

    __slots__ = ()
    update = True

    def _asdict(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {**super()._asdict(), "update": self.update}


class HostTried(NamedTuple):
    """What a sandbox tried of one host, port and verdict; with `folded`, of a whole domain or the rest."""

    host: str
    verdict: str
    port: int | None = None
    first: datetime | None = None
    last: datetime | None = None
    count: int = 1  # type: ignore[assignment]
    reached: int | None = None
    """Of these, attempts that may have reached a server."""
    bytes_in: int | None = None
    bytes_out: int | None = None
    folded: str = ""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> HostTried:
        """Read a row of `GET /sandboxes/{name}/audit/hosts`."""
        get = row.get
        count = whole_of(get("count"))
        return cls(
            host=text_of(get("host")),
            verdict=text_of(get("verdict")),
            port=whole_of(get("port")),
            first=time_of(get("first")),
            last=time_of(get("last")),
            count=1 if count is None else count,
            reached=whole_of(get("reached")),
            bytes_in=whole_of(get("bytes_in")),
            bytes_out=whole_of(get("bytes_out")),
            folded=text_of(get("folded")),
        )


class Totals(NamedTuple):
    """How many connections a sandbox has tried in its life, and how many of them were refused."""

    connections: int
    refused: int

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Totals:
        """Read an answer of `GET /sandboxes/{name}/audit/totals`."""
        return cls(*(count_of(answer.get(name)) for name in cls._fields))


class Rotated(NamedTuple):
    """How many events of a sandbox made room for others, all of them from before a time."""

    sandbox: str
    events: int
    before: datetime | None

    @classmethod
    def of(cls, row: Mapping[str, Any], sandbox: str) -> Rotated:
        """Read a row of a page; `sandbox` is whose log was asked for, where the row does not say it."""
        get = row.get
        return cls(text_of(get("sandbox_name")) or sandbox, count_of(get("events")), time_of(get("before")))

    @property
    def line(self) -> str:
        """The line for people."""
        from irons.text import clean, local_time

        when = f" before {local_time(self.before)}" if self.before else ""
        events = f"{self.events:,} event{'s' if self.events != 1 else ''}"
        of = f" of {clean(self.sandbox)}" if self.sandbox else ""
        were = "were" if self.events != 1 else "was"
        return f"{events}{of}{when} {were} rotated out; irons audit hosts {clean(self.sandbox) or 'NAME'} counts them"


class Unrecorded(NamedTuple):
    """How many refusals of a sandbox are not in its log, because the log cannot be written now."""

    sandbox: str
    count: int  # type: ignore[assignment]

    @classmethod
    def of(cls, row: Mapping[str, Any], sandbox: str) -> Unrecorded:
        """Read a row of a page; `sandbox` is whose log was asked for, where the row does not say it."""
        return cls(text_of(row.get("sandbox_name")) or sandbox, count_of(row.get("count")))

    @property
    def line(self) -> str:
        """The line for people."""
        from irons.text import clean

        what = f"{self.count:,} attempt{'s' if self.count != 1 else ''} of {clean(self.sandbox)}"
        were = "were" if self.count != 1 else "was"
        return f"{what} {were} refused and not recorded: the disk that holds the audit log is full"


class EventCounts(NamedTuple):
    """How many events there ever were, how many after the page token are left, and the id of the sandbox, empty for all."""

    ever: int
    left: int
    sandbox: str

    @classmethod
    def of(cls, answer: object) -> EventCounts | None:
        """Read the counts of a page; None where it has none."""
        if not isinstance(answer, dict):
            return None
        return cls(count_of(answer.get("ever")), count_of(answer.get("left")), text_of(answer.get("sandbox")))


class AuditPage(NamedTuple):
    """A part of the audit log and the token that continues it (0: keep the one you have).

    `left_out` is how many older events the server has and did not send. `changed` is what changed of events up to the
    token that was sent, where the question had a cursor of changes; `change_token` is the next one. `unsettled` are the ids
    of events that may still change, where the question was for an export.
    """

    events: tuple[Event, ...]
    token: int = 0
    left_out: int = 0
    rotated: tuple[Rotated, ...] = ()
    unrecorded: tuple[Unrecorded, ...] = ()
    changed: tuple[Event, ...] = ()
    change_token: int = 0
    unsettled: tuple[int, ...] = ()
    counts: EventCounts | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any], sandbox: str) -> AuditPage:
        """Read a page; `sandbox` is whose log was asked for, where a row does not say it."""
        events, changed = (events_of(rows_of(answer, key), sandbox) for key in ("events", "changed"))
        return cls(
            events or events_in_columns(answer.get("columns"), sandbox),
            count_of(answer.get("page_token")),
            count_of(answer.get("left_out")),
            tuple(Rotated.of(row, sandbox) for row in rows_of(answer, "rotated")),
            tuple(Unrecorded.of(row, sandbox) for row in rows_of(answer, "unrecorded")),
            changed,
            count_of(answer.get("change_token")),
            wholes_of(answer.get("unsettled")),
            EventCounts.of(answer.get("counts")),
        )


class Pages:
    """The pages that one reading of a log has turned to: a server must not have it read on for ever."""

    MOST = 10_000
    """Pages of one log."""

    def __init__(self) -> None:
        self._tokens: set[int] = set()

    def to(self, token: int) -> None:
        """Turn to the page after a token. Raises `ApiError` where that was turned to before, or a log has no so many pages."""
        if token in self._tokens:
            raise ApiError("the server's audit log repeats a page; it has no end")
        if len(self._tokens) >= self.MOST:
            raise ApiError(f"the server's audit log has more than {self.MOST:,} pages")
        self._tokens.add(token)


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
