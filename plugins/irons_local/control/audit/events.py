"""The audit log as readers see it: pages of events, in the order in which they became known."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from irons_local.control.audit.changes import ChangedEvents
from irons_local.control.audit.settled import unsettled
from irons_local.control.schema.errors import missing
from irons_local.control.store import owners
from irons_local.times import rfc3339, rfc3339_all
from irons_policy.causes import Outcome
from irons_policy.event import FIELDS, RECORDED, HeadField
from irons_policy.modes import wire_mode

PAGE = 1_000
"""Events in one answer, where the request does not say how many."""

NEWEST = 10_000
"""Events in an answer to who asks once for all: a v0 client knows of no pages, and wants to see what has just been."""

ROTATED = 100
"""Sandboxes of which an answer says how much was rotated out at most: those that lost some last."""

AGAINST = "events.verdict <> 'allowed'"
"""The term of a partial index: SQLite uses one only where a query has its very term."""
_LOST = "events.outcome IN ('unresolved', 'unreached')"
"""That of another one."""
_OF_ONE = "events.subject = :subject"
_OWN = "events.subject IN (SELECT id FROM subjects WHERE creator = :creator)"
_OWN_IN_ORDER = f"+{_OWN}"
"""Terms for the sandboxes that a key created: for each one alone, and for all together, by their index or in the order of ids."""
_NEAR = 10_000
"""Ids from the page token to the last one that are looked through in their order, however many sandboxes a key created."""
_SELECT = "SELECT events.*, subjects.sandbox, subjects.name FROM events JOIN subjects ON subjects.id = events.subject"
_HEADS = {
    "timestamp": "events.at",
    "id": "events.id",
    "sandbox_name": "subjects.name",
    "sandbox_id": "subjects.sandbox",
}
COLUMNS: Mapping[str, str] = {
    name: _HEADS.get(name, f"events.{name}")
    for name in (kind.key if isinstance(kind, HeadField) else name for name, kind in FIELDS.items())
}
"""The fields of an event by their names on the wire, and the column of the store that has each."""

_OPTIONAL = tuple(name for name in RECORDED if name not in ("host", "allowed"))
"""Fields that an event on the wire has only where there is a value."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which events are wanted.

    Attributes:
        name: a sandbox's name or id; None is every sandbox.
        after: only events with a greater id (the page token).
        since: only attempts at or after this time, microseconds since 1970.
        until: only attempts at or before this time.
        verdicts: only these verdicts; empty is all.
        outcomes: only these outcomes; empty is all.
        host: a host, in which `*` stands for any text; None is all.
        limit: only the newest so many; None is all.
        size: events in one answer at most.
        tells_rest: count what `limit` leaves out.
        changes: also events up to `after` that changed since this cursor; None asks for none.
        ids: only these events; None is all.
        export: say which events may still change, and how many there are.
        columns: fields, by their names on the wire: the answer has these alone, a list of values for each.
        creator: only events of sandboxes that the API key of this id created, also of those that are gone; None is all.
    """

    name: str | None = None
    after: int = 0
    since: int | None = None
    until: int | None = None
    verdicts: Sequence[str] = ()
    outcomes: Sequence[str] = ()
    host: str | None = None
    limit: int | None = None
    size: int = PAGE
    tells_rest: bool = False
    changes: int | None = None
    ids: Sequence[int] | None = None
    export: bool = False
    columns: Sequence[str] | None = None
    creator: str | None = None


class Counts(NamedTuple):
    """How many events a sandbox, or all of them, have.

    Attributes:
        ever: events that there ever were.
        left: events after the page token that are still there.
        sandbox: the id of the sandbox; empty for all.
    """

    ever: int
    left: int
    sandbox: str


@dataclass(frozen=True, slots=True)
class Page:
    """One answer.

    Attributes:
        events: in order of their ids, as the wire has them.
        token: the id up to which everything was looked at; 0 where there is nothing yet.
        left_out: matching events older than the first one, where the query asks for their number.
        rotated: per sandbox, how many events made room for others, and before when; none from before `since`.
        changed: events up to the query's `after` that changed since its cursor of changes, as they are now.
        cursor: the cursor of the next such query; 0 where the query has none.
        unsettled: the ids of those events that may still change, where the query is for an export.
        counts: how many events there are, where the query is for an export.
        columns: the values of each field, where the query names fields; `events` is empty then.
    """

    events: list[dict[str, Any]]
    token: int
    left_out: int = 0
    rotated: Sequence[dict[str, Any]] = ()
    changed: Sequence[dict[str, Any]] = ()
    cursor: int = 0
    unsettled: Sequence[int] = ()
    counts: Counts | None = None
    columns: Mapping[str, Sequence[Any]] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is neither an event in it, as an object or in columns, nor a change."""
        return not (self.events or self.changed or any((self.columns or {}).values()))


def page(
    connection: sqlite3.Connection,
    query: Query,
    changed: ChangedEvents | None = None,
    looked_at: int | None = None,
) -> Page:
    """The next page of what a query asks for.

    Args:
        connection: the store's.
        query: what is asked for.
        changed: what changed, for a query that asks for it; found before this is called.
        looked_at: see `settled.unsettled`.

    Raises:
        HttpError: no sandbox has, or had, that name.
    """
    where, values = _conditions(connection, query)
    newest = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    last = 0 if newest is None else int(newest[0])
    left_out = 0
    if query.limit is not None:
        start = _before_newest(connection, query, query.limit)
        if start and query.tells_rest:
            left_out = _count(connection, where, {**values, "before": start})
        values["after"] = max(query.after, start)
    if query.creator is not None:
        where, values = _own_page(connection, query, values["after"], last)
    if query.columns is not None:
        cut = f"WHERE {where} ORDER BY events.id LIMIT {query.size}"
        ids, columns = _columns(connection, query.columns, cut, values)
        token = ids[-1] if len(ids) == query.size else max(last, query.after)
        return Page([], token, left_out, _rotated(connection, query, values.get("subject")), columns=columns)
    sql = f"{_SELECT} WHERE {where} ORDER BY events.id LIMIT {query.size}"
    rows = connection.execute(sql, values).fetchall()
    token = int(rows[-1]["id"]) if len(rows) == query.size else max(last, query.after)
    rotated = _rotated(connection, query, values.get("subject"))
    told = _of(connection, query, changed.events) if changed is not None else []
    cursor = changed.cursor if changed is not None else 0
    found = Page([_event(row) for row in rows], token, left_out, rotated, told, cursor)
    if not query.export:
        return found
    return replace(
        found,
        unsettled=unsettled(connection, (row["id"] for row in rows), looked_at),
        counts=_counts(connection, query, last, values.get("subject")),
    )


def _counts(connection: sqlite3.Connection, query: Query, last: int, subject: int | None) -> Counts:
    after = {"after": query.after, "subject": subject}
    if subject is None:
        # Ids have no gaps but those that retention makes.
        left = connection.execute("SELECT count(*) FROM events WHERE id > :after", after).fetchone()
        return Counts(last, int(left[0]), "")
    left = connection.execute(
        "SELECT count(*) FROM events WHERE id > :after AND subject = :subject", after
    ).fetchone()
    events, rotated, sandbox = connection.execute(
        "SELECT events, rotated, sandbox FROM subjects WHERE id = :subject", after
    ).fetchone()
    return Counts(int(events) + int(rotated), int(left[0]), str(sandbox))


def _of(connection: sqlite3.Connection, query: Query, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Those of some events, up to the page token, that a query asks for."""
    if not ids:
        return []
    where, values = _conditions(connection, replace(query, after=0))
    values |= {"upto": query.after, "ids": json.dumps(ids)}
    among = "events.id <= :upto AND events.id IN (SELECT value FROM json_each(:ids))"
    sql = f"{_SELECT} WHERE {where} AND {among} ORDER BY events.id"
    return [_event(row) for row in connection.execute(sql, values)]


def host_pattern(text: str) -> str:
    """Return what GLOB takes for a host in which `*` stands for any text, and nothing else for anything."""
    return text.lower().replace("[", "[[]").replace("?", "[?]")


def _conditions(connection: sqlite3.Connection, query: Query, own: str = _OWN) -> tuple[str, dict[str, Any]]:
    """What events a query asks for; `own` is the term for the sandboxes that a key created."""
    values: dict[str, Any] = {"after": query.after}
    parts = ["events.id > :after"]
    if query.name is not None:
        values["subject"] = subject_of(connection, query.name)
        parts.append("events.subject = :subject")
    if query.creator is not None:
        values["creator"] = query.creator
        parts.append(own)
    for name, column, sign in (("since", query.since, ">="), ("until", query.until, "<=")):
        if column is not None:
            values[name] = column
            parts.append(f"events.at {sign} :{name}")
    if query.verdicts:
        parts.append(f"events.verdict IN ({', '.join(repr(each) for each in query.verdicts)})")
        if "allowed" not in query.verdicts:
            parts.append(AGAINST)
    if query.outcomes:
        parts.append(f"events.outcome IN ({', '.join(repr(each) for each in query.outcomes)})")
        if {*query.outcomes} <= {Outcome.UNRESOLVED, Outcome.UNREACHED}:
            parts.append(_LOST)
    if query.host is not None:
        values["host"] = host_pattern(query.host)
        parts.append("events.host GLOB :host")
    if query.ids is not None:
        values["among"] = json.dumps(list(query.ids))
        parts.append("events.id IN (SELECT value FROM json_each(:among))")
    return " AND ".join(parts), values


def subject_of(connection: sqlite3.Connection, name: str) -> int:
    """Whose events a name means: the sandbox that has it, else the last one that had it and still has events.

    Raises:
        HttpError: no sandbox has, or had, that name.
    """
    row = connection.execute(
        "SELECT id FROM subjects WHERE (name = :name OR sandbox = :name) AND (gone_at IS NULL OR events > 0) "
        "ORDER BY gone_at IS NOT NULL, gone_at DESC LIMIT 1",
        {"name": name},
    ).fetchone()
    if row is None:
        raise missing(f"no sandbox is named {name!r}")
    return int(row[0])


def _rotated(connection: sqlite3.Connection, query: Query, subject: int | None) -> list[dict[str, Any]]:
    """Whose events were rotated out, and how many: also events that a filter would have left out."""
    rows = connection.execute(
        "SELECT name, sandbox, rotated, rotated_before FROM subjects WHERE rotated > 0 "
        "AND (:subject IS NULL OR id = :subject) AND (:creator IS NULL OR creator = :creator) AND rotated_before > :since ORDER BY rotated_before DESC LIMIT :most",
        {"subject": subject, "creator": query.creator, "since": query.since or 0, "most": ROTATED},
    )
    return [
        {
            "sandbox_name": row["name"],
            "sandbox_id": row["sandbox"],
            "events": row["rotated"],
            "before": rfc3339(row["rotated_before"]),
        }
        for row in rows
    ]


def _before_newest(connection: sqlite3.Connection, query: Query, limit: int) -> int:
    """The id after which exactly the newest `limit` matches lie."""
    where, values = _conditions(connection, query, _OF_ONE)
    sql = f"SELECT events.id FROM events WHERE {where} ORDER BY events.id DESC"  # noqa: S608 (names of ours)
    if query.creator is not None:
        found = owners.events(connection, query.creator, sql, values, most=1, skip=limit, newest_first=True)
        return found[0] if found else 0
    row = connection.execute(f"{sql} LIMIT 1 OFFSET {limit}", values).fetchone()
    return 0 if row is None else int(row[0])


def _own_page(
    connection: sqlite3.Connection, query: Query, after: int, last: int
) -> tuple[str, dict[str, Any]]:
    """What is true of the events of a page after an id, of sandboxes that a key created, without sorting all that it has."""
    later = replace(query, after=after)
    if query.creator is None or last - after <= _NEAR:
        return _conditions(connection, later, _OWN_IN_ORDER)
    where, values = _conditions(connection, later, _OF_ONE)
    sql = f"SELECT events.id FROM events WHERE {where} ORDER BY events.id"  # noqa: S608 (names of ours)
    ids = owners.events(connection, query.creator, sql, values, most=query.size)
    return "events.id IN (SELECT value FROM json_each(:page))", {"page": json.dumps(ids)}


def _count(connection: sqlite3.Connection, where: str, values: dict[str, Any]) -> int:
    """How many matches there are up to an id."""
    sql = f"SELECT count(*) FROM events WHERE {where} AND events.id <= :before"  # noqa: S608 (names of ours)
    return int(connection.execute(sql, values).fetchone()[0])


def _event(row: sqlite3.Row) -> dict[str, Any]:
    event = {
        "type": "egress",
        "id": row["id"],
        "timestamp": rfc3339(row["at"]),
        "sandbox_name": row["name"],
        "sandbox_id": row["sandbox"],
        "host": row["host"],
        "allowed": bool(row["allowed"]),
    }
    for name in _OPTIONAL:
        value = row[name]
        if value is not None:
            event[name] = value
    if row["mode"] == "ask":
        event |= wire_mode("ask")
    return event


def _columns(
    connection: sqlite3.Connection, names: Sequence[str], cut: str, values: Mapping[str, Any]
) -> tuple[Sequence[int], Mapping[str, Sequence[Any]]]:
    """Return the ids of events, and of each field its values: that costs a fraction of an object for each event."""
    fields = ", ".join(COLUMNS[name] for name in names)
    cursor = connection.cursor()
    # Tuples: a `sqlite3.Row` is looked into by name.
    cursor.row_factory = None
    rows = cursor.execute(
        f"SELECT events.id, {fields} FROM events JOIN subjects ON subjects.id = events.subject {cut}",  # noqa: S608 (names of ours)
        values,
    ).fetchall()
    if not rows:
        return (), dict.fromkeys(names, ())
    ids, *columns = zip(*rows, strict=True)
    told: dict[str, Sequence[Any]] = dict(zip(names, columns, strict=True))
    if "timestamp" in told:
        told["timestamp"] = rfc3339_all(told["timestamp"])
    if "allowed" in told:
        told["allowed"] = list(map(bool, told["allowed"]))
    if "ask" in told.get("mode", ()):
        # A further column, as the field of an event is; see `wire_mode`.
        told["ask"] = [mode == "ask" or None for mode in told["mode"]]
        told["mode"] = ["deny" if mode == "ask" else mode for mode in told["mode"]]
    return ids, told
