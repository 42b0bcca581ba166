"""The routes of the fake v0 API about its two logs: events of egress, and changes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from irons.testing.answers import sandbox_of

if TYPE_CHECKING:
    from irons.testing.fake_state import Call, FakeState


def audit(api: FakeState, call: Call, name: str | None) -> dict[str, Any]:
    """Answer with the events of a sandbox, or of all (None), that a request asks for, and wait for them if asked to."""
    token = int(call.query.get("pageToken") or 0)
    filters = "audit-filters" in api.extensions
    deadline = time.monotonic() + (float(call.query.get("wait") or 0) if "wait" in api.extensions else 0)
    while True:
        found = [
            (at, event)
            for at, event in enumerate(api.events[token:], token + 1)
            if (name is None or event["sandbox_name"] == name) and at not in api.rotated_ids
        ]
        if filters:
            found = [each for each in found if is_wanted(each[1], call.query)]
        if "ids" in call.query:
            asked = set(map(int, call.query["ids"].split(",")))
            found = [each for each in found if each[0] in asked]
        changed = _changed(api, call, name, token)
        left = deadline - time.monotonic()
        if found or changed or left <= 0 or api.closing.is_set():
            break
        api.lock.wait(left)
    if filters and "limit" in call.query:
        found = found[-int(call.query["limit"]) :] if int(call.query["limit"]) else []
    part = found[: int(call.query.get("page_size") or api.page)]
    told: dict[str, Any] = {"events": [event for _, event in part]}
    if filters and call.query.keys().isdisjoint(("limit", "wait", "page_size")):
        part = found[: api.newest] if token else found[-api.newest :]
        told = {"events": [event for _, event in part]}
        if len(part) < len(found) and not token:
            told["left_out"] = len(found) - len(part)
    if api.tokens and (part or (filters and api.events)):
        # Irons' own server says up to where it has looked.
        told["page_token"] = (
            max(token, len(api.events)) if filters and len(part) == len(found) else part[-1][0]
        )
    if api.rotated and filters:
        told["rotated"] = api.rotated
    if api.unrecorded and filters:
        told["unrecorded"] = api.unrecorded
    if "export" in call.query and "audit-export" in api.extensions:
        told["unsettled"] = [at for at, _ in part if at in api.unsettled]
        of = [event["id"] for event in api.events if name in (None, event["sandbox_name"])]
        left = sum(1 for number in of if number > token and number not in api.rotated_ids)
        told["counts"] = {
            "ever": len(of),
            "left": left,
            "sandbox": "" if name is None else sandbox_of(api, name).id,
        }
    if "columns" in call.query and "audit-columns" in api.extensions:
        names = [
            *call.query["columns"].split(","),
            *(["ask"] if any("ask" in row for row in told["events"]) else []),
        ]
        told |= {"columns": {name: [row.get(name) for row in told["events"]] for name in names}, "events": []}
    if "changes" in call.query and "audit-changes" in api.extensions:
        told |= {"changed": changed, "change_token": len(api.changes) + 1}
    return told


def _changed(api: FakeState, call: Call, name: str | None, token: int) -> list[dict[str, Any]]:
    """Events up to a token that changed after the cursor in a question; cursors count from 1."""
    since = min(int(call.query.get("changes") or sys.maxsize), len(api.changes) + 1)
    return [
        event
        for event in api.changes[since - 1 :]
        if event["id"] <= token and name in (None, event["sandbox_name"]) and is_wanted(event, call.query)
    ]


def change_log(api: FakeState, call: Call, name: str | None) -> dict[str, Any]:
    """Answer with the changes of a sandbox, or of all (None), likewise."""
    token = int(call.query.get("pageToken") or 0)
    deadline = time.monotonic() + float(call.query.get("wait") or 0)
    while True:
        found = [
            row
            for row in api.change_log
            if row["id"] > token
            and row["id"] not in api.rotated_changes
            and name in (None, row.get("sandbox_name"))
        ]
        left = deadline - time.monotonic()
        if found or left <= 0 or api.closing.is_set():
            break
        api.lock.wait(left)
    if "limit" in call.query:
        found = found[-int(call.query["limit"]) :]
    part = found[: int(call.query.get("page_size") or api.page)]
    last = part[-1]["id"] if len(part) < len(found) else max(token, len(api.change_log))
    rotated = sum(1 for gone in api.rotated_changes if token < gone <= last)
    return {
        "changes": part,
        "page_token": last,
        "ever": len(api.change_log),
        **({"rotated": rotated} if rotated else {}),
    }


_FILTERS: Mapping[str, Callable[[dict[str, Any], str], bool]] = {
    "since": lambda event, value: event["timestamp"] >= value,
    "until": lambda event, value: event["timestamp"] <= value,
    "verdict": lambda event, value: (
        event.get("verdict", "allowed" if event.get("allowed") else "blocked") == value
    ),
    "outcome": lambda event, value: event.get("outcome") in value.split(","),
    "host": lambda event, value: fnmatchcase(
        event["host"], value.lower().replace("[", "[[]").replace("?", "[?]")
    ),
}


def is_wanted(event: dict[str, Any], query: Mapping[str, str]) -> bool:
    """Whether the filters of a request let an event through."""
    return all(holds(event, query[name]) for name, holds in _FILTERS.items() if name in query)
