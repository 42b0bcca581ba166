"""The audit log over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irons_local import times
from irons_local.control.api.routing import ApiCall, ApiRoute
from irons_local.control.audit.events import COLUMNS, NEWEST, PAGE, Query
from irons_local.control.audit.hosts_tried import HostQuery
from irons_local.control.audit.log import LONGEST_WAIT
from irons_local.control.audit.summary import MOST, OTHERS
from irons_local.control.schema.errors import bad, forbidden
from irons_local.control.schema.rules_schema import SHOWN_MODE
from irons_local.control.schema.schemas import Schema, text
from irons_local.control.store import sandboxes
from irons_policy.causes import Outcome
from irons_policy.event import FIELDS, LARGEST, RECORDED, BoolField, HeadField, Kind, NumberField, WordField
from irons_policy.modes import VERDICTS

MOST_IDS = 500
"""Events that a request names at most."""

_SPELLINGS = {"allowed": "allowed", "blocked": "blocked", "denied": "blocked", "warn": "warn"}
_VERDICT = "|".join(_SPELLINGS)
_OUTCOME = "|".join(Outcome)
_FIELD = "|".join(COLUMNS)
_QUERY: Mapping[str, Schema] = {
    "pageToken": {"type": "integer", "minimum": 0, "maximum": LARGEST},
    "since": text(40, format="date-time"),
    "until": text(40, format="date-time"),
    "verdict": text(60, pattern=f"^(({_VERDICT})(,({_VERDICT}))*)?$"),
    "outcome": text(80, pattern=f"^(({_OUTCOME})(,({_OUTCOME}))*)?$"),
    "host": text(300, minLength=1, pattern=r"^\S+$"),
    "limit": {"type": "integer", "minimum": 1, "maximum": 10_000_000},
    "wait": {"type": "number", "minimum": 0, "maximum": 86_400},
    "page_size": {"type": "integer", "minimum": 1, "maximum": NEWEST},
    "changes": {"type": "integer", "minimum": 0, "maximum": LARGEST},
    "ids": text(MOST_IDS * 20, minLength=1, pattern=r"^[0-9]{1,18}(,[0-9]{1,18})*$"),
    "export": {"type": "boolean"},
    "columns": text(400, pattern=f"^({_FIELD})(,({_FIELD}))*$"),
}
_NOT_V1 = "this is the v0 API; its events are in `events`"
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "integer"}
_TIME: Schema = {"type": "string", "format": "date-time"}


def _schema_of(kind: Kind) -> Schema:
    """Describe a field of an event on the wire."""
    if isinstance(kind, HeadField):
        return {"text": _TEXT, "number": _NUMBER, "time": _TIME}[kind.holds]
    if isinstance(kind, WordField):
        return {"type": "string", "enum": list(kind.words)}
    if isinstance(kind, BoolField):
        return {"type": "boolean"}
    return _NUMBER if isinstance(kind, NumberField) else _TEXT


_EVENT: Schema = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": ["egress"]},
        **{kind.key: _schema_of(kind) for kind in FIELDS.values() if isinstance(kind, HeadField)},
        **{name: _schema_of(kind) for name, kind in RECORDED.items()},
        **SHOWN_MODE,
    },
    "required": ["type", "id", "timestamp", "sandbox_name", "sandbox_id", "host", "allowed"],
}
_ROTATED: Schema = {
    "type": "object",
    "description": "How many events of this sandbox were removed to make room for others, all from before that time.",
    "properties": {
        "sandbox_name": _TEXT,
        "sandbox_id": _TEXT,
        "events": _NUMBER,
        "before": _TIME,
    },
}
_UNRECORDED: Schema = {
    "type": "object",
    "description": "How many refusals of this sandbox are not in the log, because the disk is full.",
    "properties": {"sandbox_name": _TEXT, "sandbox_id": _TEXT, "count": _NUMBER},
}
_HOST: Schema = {
    "type": "object",
    "properties": {
        "host": {"type": "string", "description": f"Or *.DOMAIN, NETWORK, or {OTHERS}; see folded."},
        "port": _NUMBER,
        "verdict": {"type": "string", "enum": list(VERDICTS)},
        "first": _TIME,
        "last": _TIME,
        "count": _NUMBER,
        "reached": {"type": "integer", "description": "Of these, attempts that may have reached a server."},
        "bytes_in": _NUMBER,
        "bytes_out": _NUMBER,
        "folded": {
            "type": "string",
            "enum": ["domain", "rest"],
            "description": "The row is of all hosts of a domain, or of the rest.",
        },
    },
    "required": ["host", "verdict", "first", "last", "count"],
}
_HOSTS: Schema = {
    "type": "object",
    "properties": {"hosts": {"type": "array", "items": _HOST}},
    "required": ["hosts"],
}
_TOTALS: Schema = {
    "type": "object",
    "properties": {"connections": _NUMBER, "refused": _NUMBER},
    "required": ["connections", "refused"],
}
_HOSTS_QUERY: Mapping[str, Schema] = {
    "verdict": _QUERY["verdict"],
    "host": _QUERY["host"],
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST},
}
_PAGE: Schema = {
    "type": "object",
    "properties": {
        "events": {"type": "array", "items": _EVENT},
        "page_token": _NUMBER,
        "data": {
            **_TEXT,
            "description": "Of all sandboxes only: a text where the later v1 API has a list, so that its clients fail and do not show nothing.",
        },
        "left_out": {**_NUMBER, "description": "How many older events match and are not in this answer."},
        "rotated": {"type": "array", "items": _ROTATED},
        "unrecorded": {"type": "array", "items": _UNRECORDED},
        "changed": {
            "type": "array",
            "items": _EVENT,
            "description": "Events up to pageToken that changed since `changes`, as they are now.",
        },
        "columns": {
            "type": "object",
            "description": "With `columns`: for each of these fields its values, one an event, null where an event lacks it. `events` is empty.",
            "additionalProperties": {"type": "array"},
        },
        "change_token": {**_NUMBER, "description": "For `changes` of the next request."},
        "unsettled": {
            "type": "array",
            "items": _NUMBER,
            "description": "With `export`: the ids of those events that may still change.",
        },
        "counts": {
            "type": "object",
            "description": "With `export`: how many events there ever were, and how many after `pageToken` are left.",
            "properties": {"ever": _NUMBER, "left": _NUMBER, "sandbox": _TEXT},
        },
    },
    "required": ["events"],
}


def time_in(given: Mapping[str, Any], name: str) -> int | None:
    """Return a time of a query in microseconds since 1970; None where it has none.

    Raises:
        HttpError: it is not a time.
    """
    if name not in given:
        return None
    try:
        return times.parse(given[name])
    except ValueError as error:
        raise bad(f"{name}: {error}") from None


def verdicts_of(text: str) -> tuple[str, ...]:
    """Verdicts as a request names them, separated by commas.

    Raises:
        HttpError: one of them is none.
    """
    given = [each.strip() for each in text.split(",") if each.strip()]
    unknown = [each for each in given if each not in _SPELLINGS]
    if unknown:
        raise bad(f"{unknown[0]!r} is not a verdict; there are allowed, blocked and warn")
    return tuple(dict.fromkeys(_SPELLINGS[each] for each in given))


def outcomes_of(text: str) -> tuple[str, ...]:
    """Outcomes as a request names them, separated by commas.

    Raises:
        HttpError: one of them is unknown.
    """
    given = [each.strip() for each in text.split(",") if each.strip()]
    unknown = [each for each in given if each not in list(Outcome)]
    if unknown:
        raise bad(f"{unknown[0]!r} is not an outcome; there are {', '.join(Outcome)}")
    return tuple(dict.fromkeys(given))


def ids_of(text: str, most: int) -> tuple[int, ...]:
    """Ids as a request names them, separated by commas.

    Raises:
        HttpError: one of them is not an id, or there are more than `most`.
    """
    given = text.split(",")
    if len(given) > most:
        raise bad(f"ids: {most} is the most")
    for each in given:
        if not (each.isascii() and each.isdecimal() and len(each) < 19):
            raise bad(f"{each[:20]!r} is not the id of an event")
    return tuple(dict.fromkeys(map(int, given)))


def columns_of(text: str) -> tuple[str, ...]:
    """Fields of events as a request names them, separated by commas.

    Raises:
        HttpError: one of them is not a field.
    """
    given = tuple(dict.fromkeys(text.split(",")))
    unknown = [each for each in given if each not in COLUMNS]
    if unknown:
        raise bad(f"{unknown[0][:60]!r} is not a field; there are {', '.join(COLUMNS)}")
    return given


async def read_audit(call: ApiCall) -> Mapping[str, Any]:
    """GET …/audit/egress."""
    given = call.query
    # A v0 client asks once, says none of these, and shows what it gets.
    at_once = given.keys().isdisjoint(("limit", "wait", "page_size"))
    whole = at_once and not given.get("pageToken")
    query = Query(
        name=call.path.get("name"),
        after=given.get("pageToken", 0),
        since=time_in(given, "since"),
        until=time_in(given, "until"),
        verdicts=verdicts_of(given.get("verdict", "")),
        outcomes=outcomes_of(given.get("outcome", "")),
        host=given.get("host"),
        limit=NEWEST if whole else given.get("limit"),
        size=NEWEST if at_once else given.get("page_size", PAGE),
        tells_rest=whole,
        changes=given.get("changes"),
        ids=None if "ids" not in given else ids_of(given["ids"], MOST_IDS),
        export=given.get("export", False),
        columns=None if "columns" not in given else columns_of(given["columns"]),
        creator=None if call.owned is None else call.owned.key,
    )
    if query.export and call.owned is not None:
        # It counts the events of all sandboxes.
        raise forbidden(
            "a key of the role user exports the log of one sandbox, not of all", "--sandbox NAME names one"
        )
    if query.columns is not None and (query.export or query.changes is not None):
        raise bad("columns: neither `changes` nor `export` goes with it")
    page = await call.plane.audit.page(query, wait=given.get("wait", 0.0))
    answer: dict[str, Any] = {"events": page.events}
    if "name" not in call.path:
        answer["data"] = _NOT_V1
    if page.columns is not None:
        answer["columns"] = page.columns
    if page.left_out:
        answer["left_out"] = page.left_out
    if page.token:
        answer["page_token"] = page.token
    if page.cursor:
        answer["change_token"] = page.cursor
    if page.changed:
        answer["changed"] = page.changed
    if page.rotated:
        answer["rotated"] = page.rotated
    if page.counts is not None:
        answer["unsettled"] = list(page.unsettled)
        answer["counts"] = page.counts._asdict()
    unrecorded = await _unrecorded(call)
    if unrecorded:
        answer["unrecorded"] = unrecorded
    return answer


async def _unrecorded(call: ApiCall) -> list[Mapping[str, Any]]:
    """Per sandbox that was asked for, how many refusals could not be recorded."""
    counts = call.plane.gateways.unrecorded
    if not counts:
        return []
    asked = call.path.get("name")
    known = await call.plane.store.read(sandboxes.all_of)
    return [
        {"sandbox_name": each.name, "sandbox_id": each.id, "count": counts[each.id]}
        for each in known
        if each.id in counts and asked in (None, each.name, each.id)
    ]


async def read_hosts(call: ApiCall) -> Mapping[str, Any]:
    """GET …/audit/hosts."""
    given = call.query
    query = HostQuery(
        name=call.path["name"],
        verdicts=verdicts_of(given.get("verdict", "")),
        host=given.get("host"),
        limit=given.get("limit", MOST),
    )
    return {"hosts": await call.plane.audit.hosts(query)}


async def read_totals(call: ApiCall) -> Mapping[str, Any]:
    """GET …/audit/totals."""
    return await call.plane.audit.totals(call.path["name"])


_WHAT = (
    f"Egress events after `pageToken`, oldest first: {PAGE:,} in an answer, or `page_size`. `limit` keeps the newest so many, "
    f"`wait` holds the answer until there is an event, for {LONGEST_WAIT:.0f} seconds at most. "
    "`changes` asks for events up to `pageToken` that changed since, such as connections that ended: it is the "
    f"`change_token` of the answer before, and {LARGEST} means from now on. "
    f"`ids` asks for these events alone, {MOST_IDS} at most, and `export` which events may still change. "
    "`columns` names fields, and the answer has these alone, a list of values for each: long logs are read in a fraction of the time. "
    "Where an event has mode `ask`, the column `ask` comes with `mode`; neither `changes` nor `export` goes with `columns` (400). "
    f"Without `limit`, `wait` and `page_size` an answer has {NEWEST:,}, and without `pageToken` these are the newest."
)

ROUTES = (
    ApiRoute(
        "GET", "/audit/egress", read_audit, f"{_WHAT} Of all sandboxes.", _PAGE, query=_QUERY, fails=(503,)
    ),
    ApiRoute(
        "GET",
        "/sandboxes/{name}/audit/egress",
        read_audit,
        f"{_WHAT} Of one sandbox, or, where none has the name, of the last that had it.",
        _PAGE,
        query=_QUERY,
        fails=(404, 503),
    ),
    ApiRoute(
        "GET",
        "/sandboxes/{name}/audit/hosts",
        read_hosts,
        "What a sandbox tried, a row per host, port and verdict, the one tried last at the end. Outlasts the events.",
        _HOSTS,
        query=_HOSTS_QUERY,
        fails=(404, 503),
    ),
    ApiRoute(
        "GET",
        "/sandboxes/{name}/audit/totals",
        read_totals,
        "How many connections a sandbox has tried in its life, and how many of them were refused.",
        _TOTALS,
        fails=(404, 503),
    ),
)
