"""The audit log: what the API answers about it, and what its requests may say."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict

from irons.client.models.events import events_in_columns, events_of
from irons.client.models.fields import (
    count_of,
    rows_of,
    text_of,
    time_of,
    whole_of,
    wholes_of,
)
from irons.errors import ApiError
from irons.record import NamedTuple
from irons_policy.event import Event


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
