"""The change log over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irons_local.control.api.audit import time_in
from irons_local.control.api.routing import ApiCall, ApiRoute
from irons_local.control.audit.log import LONGEST_WAIT
from irons_local.control.schema.schemas import Schema, text
from irons_local.control.store.changelog import PAGE, ChangeQuery, What
from irons_policy.event import LARGEST

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "integer"}
_QUERY: Mapping[str, Schema] = {
    "pageToken": {"type": "integer", "minimum": 0, "maximum": LARGEST},
    "since": text(40, format="date-time"),
    "until": text(40, format="date-time"),
    "limit": {"type": "integer", "minimum": 1, "maximum": 10_000_000},
    "wait": {"type": "number", "minimum": 0, "maximum": 86_400},
    "page_size": {"type": "integer", "minimum": 1, "maximum": 10_000},
}
_CHANGE: Schema = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": ["change"]},
        "id": _NUMBER,
        "timestamp": {"type": "string", "format": "date-time"},
        "what": {"type": "string", "enum": list(What)},
        "by": {
            "type": "string",
            "enum": ["uid", "key", "irons"],
            "description": "A user at the unix socket, an API key, or the control plane itself.",
        },
        "uid": {**_NUMBER, "description": "The user, as the kernel knows it (SO_PEERCRED)."},
        "key_id": _TEXT,
        "key_label": {**_TEXT, "description": "The label that the key had."},
        "claimed_face": {**_TEXT, "description": "What the client claims to be; nothing checks this."},
        "request": {**_TEXT, "description": "The id of the request; the logs have it, too."},
        "sandbox_name": {**_TEXT, "description": "Without it the change is for all sandboxes."},
        "sandbox_id": _TEXT,
        "subject": {**_TEXT, "description": "A pattern, a fingerprint, or the label of a key."},
        "before": {"type": "object"},
        "after": {"type": "object"},
        "reason": {**_TEXT, "description": "Why, where no client asked for it."},
    },
    "required": ["type", "id", "timestamp", "what", "by"],
}
_PAGE: Schema = {
    "type": "object",
    "properties": {
        "changes": {"type": "array", "items": _CHANGE},
        "page_token": _NUMBER,
        "ever": {**_NUMBER, "description": "How many changes there ever were, of all scopes."},
        "rotated": {
            **_NUMBER,
            "description": "How many changes after `pageToken`, up to `page_token`, made room for others, of all scopes.",
        },
    },
    "required": ["changes"],
}


async def read_changes(call: ApiCall) -> Mapping[str, Any]:
    """GET …/audit/changes."""
    given = call.query
    query = ChangeQuery(
        name=call.path.get("name"),
        after=given.get("pageToken", 0),
        since=time_in(given, "since"),
        until=time_in(given, "until"),
        limit=given.get("limit"),
        size=given.get("page_size", PAGE),
    )
    page = await call.plane.changes.page(query, wait=given.get("wait", 0.0))
    answer: dict[str, Any] = {"changes": page.changes, "ever": page.ever}
    if page.token:
        answer["page_token"] = page.token
    if page.rotated:
        answer["rotated"] = page.rotated
    return answer


_WHAT = (
    f"Changes of rules, modes, keys and sandboxes after `pageToken`, oldest first: {PAGE:,} in an answer, or `page_size`. "
    f"`limit` keeps the newest so many, `wait` holds the answer until there is one, for {LONGEST_WAIT:.0f} seconds at most. "
)

ROUTES = (
    ApiRoute(
        "GET",
        "/audit/changes",
        read_changes,
        f"{_WHAT}Of all sandboxes, with those for all of them.",
        _PAGE,
        query=_QUERY,
        fails=(503,),
    ),
    ApiRoute(
        "GET",
        "/sandboxes/{name}/audit/changes",
        read_changes,
        f"{_WHAT}Of one sandbox, or, where none has the name, of the last that had it.",
        _PAGE,
        query=_QUERY,
        fails=(404, 503),
    ),
)
