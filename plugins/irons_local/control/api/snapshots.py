"""Snapshots and copies of sandboxes over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from irons.wire_values import LONGEST_NOTE
from irons_local import times
from irons_local.control.api.routing import ApiAnswer, ApiCall, ApiRoute
from irons_local.control.api.sandboxes import HELD, NEW_NAME, STATUS, short_status
from irons_local.control.egress.rules_input import rules_of
from irons_local.control.sandbox.copies import CopyPolicy, policy_of
from irons_local.control.schema.errors import bad
from irons_local.control.schema.rules_schema import RULES
from irons_local.control.schema.schemas import Schema, listing, optional, record, text
from irons_local.control.store import sandboxes
from irons_local.control.store.snapshots import StoredSnapshot
from irons_local.images.layers import Layers
from irons_policy.modes import MODES
from irons_policy.rules import Rule

_MOST_COPIES = 100
_SNAPSHOT: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "id": {"type": "string"},
        "sandbox": {"type": "string", "description": "The name that its sandbox had then."},
        "sandbox_id": {"type": "string"},
        "engine": {"type": "string"},
        "image": {"type": "string"},
        "note": {"type": "string"},
        "created_at": {"type": "string", "format": "date-time"},
        "size": {
            "type": ["integer", "null"],
            "description": "Bytes of disk that it adds to those of older ones; null until they are counted.",
        },
        "pause": {
            "type": ["number", "null"],
            "description": "Seconds in which its sandbox was paused; null where it was stopped.",
        },
    },
    "required": ["name", "id", "sandbox", "created_at"],
}
_LIST: Schema = {"type": "object", "properties": {"snapshots": {"type": "array", "items": _SNAPSHOT}}}
_SNAPSHOTS = "/sandboxes/{name}/snapshots"


async def create_snapshot(call: ApiCall) -> ApiAnswer:
    """POST /sandboxes/{name}/snapshots."""
    body = call.body
    name = body.get("name") or None
    if name is not None:
        _check_name(name)
    made = await call.plane.copies.snapshot(call.path["name"], name, sandboxes.plain(body.get("note")))
    return ApiAnswer(201, _told(made, {}))


async def list_snapshots(call: ApiCall) -> Mapping[str, Any]:
    """GET /snapshots and GET /sandboxes/{name}/snapshots."""
    found = await call.plane.copies.listed(call.path.get("name"))
    layers = Layers(call.plane.paths.layers)
    sizes = {layer.id: layer.used for layer in await asyncio.to_thread(layers.listed)}
    return {"snapshots": [_told(each, sizes) for each in found]}


async def remove_snapshot(call: ApiCall) -> Mapping[str, Any]:
    """DELETE /snapshots/{snapshot}."""
    await call.plane.copies.remove(call.path["snapshot"])
    return {}


async def restore_sandbox(call: ApiCall) -> Mapping[str, Any]:
    """POST /sandboxes/{name}/restore."""
    return _told(await call.plane.copies.restore(call.path["name"], call.body["snapshot"]), {})


async def fork_sandbox(call: ApiCall) -> ApiAnswer:
    """POST /sandboxes/{name}/fork."""
    body = call.body
    names = [sandboxes.checked_name(name) for name in body["names"]]
    if not names:
        raise bad("names: there is none")
    given = await asyncio.to_thread(rules_of, body["rules"]) if body.get("rules") else None
    await call.plane.egress.check_pins(given or ())

    def policy(origin: StoredSnapshot, own: Sequence[Rule]) -> CopyPolicy:
        return policy_of(origin, own, body.get("mode"), given)

    held = bool(body.get("held"))
    made, kept = await call.plane.copies.fork(call.path["name"], names, policy, held=held)
    for each in made if held else ():
        call.plane.holds.begin(each.id)
    return ApiAnswer(202, {"sandboxes": [short_status(each) for each in made], "pause": _seconds(kept.pause)})


ROUTES = (
    ApiRoute(
        "POST",
        _SNAPSHOTS,
        create_snapshot,
        "Keep the files of a sandbox, with its rules and its mode, as they are now; one that runs is paused and goes on.",
        _SNAPSHOT,
        body=record({"name": optional(NEW_NAME), "note": optional(text(LONGEST_NOTE))}),
        status=201,
        fails=(404, 409, 503),
    ),
    ApiRoute(
        "GET",
        _SNAPSHOTS,
        list_snapshots,
        "The snapshots of a sandbox, or of all, oldest first.",
        _LIST,
        fails=(404,),
    ),
    ApiRoute(
        "GET",
        "/snapshots",
        list_snapshots,
        "The snapshots of a sandbox, or of all, oldest first.",
        _LIST,
    ),
    ApiRoute(
        "DELETE",
        "/snapshots/{snapshot}",
        remove_snapshot,
        "Remove a snapshot; sandboxes that were made from it stay whole.",
        {"type": "object"},
        fails=(404, 409, 503),
    ),
    ApiRoute(
        "POST",
        "/sandboxes/{name}/restore",
        restore_sandbox,
        "Put the files of a snapshot of a stopped sandbox in place of its own; answers the snapshot that keeps what was there.",
        _SNAPSHOT,
        body=record({"snapshot": text(300, minLength=1)}, required=("snapshot",)),
        fails=(404, 409, 503),
    ),
    ApiRoute(
        "POST",
        "/sandboxes/{name}/fork",
        fork_sandbox,
        "Make copies of a sandbox as it is now, all or none, with its rules and its mode or those given; then poll their status.",
        {
            "type": "object",
            "properties": {
                "sandboxes": {"type": "array", "items": STATUS},
                "pause": {"type": ["number", "null"]},
            },
        },
        body=record(
            {
                "names": listing(NEW_NAME, _MOST_COPIES),
                "mode": optional(text(8, enum=list(MODES))),
                "rules": RULES,
                "held": HELD,
            },
            required=("names",),
        ),
        status=202,
        fails=(404, 409, 503),
    ),
)


def _check_name(name: str) -> None:
    if not sandboxes.is_name(name):
        raise bad(
            "a snapshot name is 1 to 63 characters: lower-case letters, digits and hyphens, with no hyphen at either end"
        )


def _told(snapshot: StoredSnapshot, sizes: Mapping[str, int | None]) -> Mapping[str, Any]:
    return {
        "name": snapshot.name or "",
        "id": snapshot.id,
        "sandbox": snapshot.sandbox_name,
        "sandbox_id": snapshot.sandbox,
        "engine": snapshot.engine,
        "image": snapshot.image,
        "note": snapshot.note,
        "created_at": times.rfc3339(snapshot.created_at),
        "size": sizes.get(snapshot.layer) if snapshot.layer else 0,
        "pause": _seconds(snapshot.pause),
    }


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6
