"""What the server is and how it is, its keys, the members of its fleet, and its own description."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irons.version import __version__
from irons.wire_values import KEY_ROLES
from irons_local import times
from irons_local.control.api.routing import ApiAnswer, ApiCall, ApiRoute, ApiText
from irons_local.control.metrics import exposition
from irons_local.control.metrics.collect import Measured, collect
from irons_local.control.schema.errors import conflict, missing
from irons_local.control.schema.schemas import Schema, optional, record, text
from irons_local.control.store import keys, sandboxes
from irons_local.control.store.keys import StoredKey
from irons_local.errors import CellError
from irons_local.images.catalog import Images

if TYPE_CHECKING:
    from irons_local.control.fleet.fleet import Fleet

EXTENSIONS = (
    "rules",
    "check",
    "audit-filters",
    "wait",
    "policy",
    "images",
    "keys",
    "live-check",
    "labels",
    "terms",
    "audit-hosts",
    "audit-outcomes",
    "audit-totals",
    "audit-changes",
    "holds",
    "access",
    "entrypoint",
    "status-wait",
    "rule-batches",
    "change-log",
    "audit-export",
    "audit-columns",
    "timed-rules",
    "snapshots",
    "questions",
    "key-roles",
    "policy-never",
    "fork-held",
    "create-on",
)
END_NOTICES = "end-notices"
"""The extension of a control plane whose engines all write to open terminals before the end of a `ttl`."""
_TEXT: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_NAME = "^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"
_MEMBER: Schema = {
    "type": "object",
    "description": "One member: `invited` has not joined yet, `ahead` has policies that this server does not know; `pending` sandboxes have another policy there than they should; `backlog` bytes of its "
    "log are not here; `skew` is how many seconds its clock is ahead.",
    "properties": {
        "name": _TEXT,
        "state": {"type": "string", "enum": ["connected", "away", "invited", "ahead"]},
        "version": _TEXT,
        "sandboxes": _INTEGER,
        "workers": _INTEGER,
        "revision": _INTEGER,
        "pending": _INTEGER,
        "backlog": _INTEGER,
        "skew": {"type": "number"},
    },
    "required": ["name", "state", "sandboxes", "revision", "pending"],
}
_WORKER: Schema = {
    "type": "object",
    "description": "One worker of the gateway; `error` alone where it does not answer.",
    "properties": {
        "worker": _INTEGER,
        "pid": _INTEGER,
        "cells": _INTEGER,
        "connections": _INTEGER,
        "names": _INTEGER,
        "memory": _INTEGER,
        "run": _TEXT,
        "error": _TEXT,
    },
}
_STATUS: Schema = {
    "type": "object",
    "properties": {
        "version": _TEXT,
        "server": {"type": "object"},
        "keeper": {
            "type": "object",
            "properties": {
                "pid": _INTEGER,
                "gateways": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "worker": _INTEGER,
                            "pid": {"type": ["integer", "null"]},
                            "failures": _INTEGER,
                            "cells": {"type": "array", "items": _TEXT},
                            "memory": {"type": ["integer", "null"]},
                        },
                    },
                },
            },
        },
        "gateway": {**_WORKER, "description": "What all workers of the gateway have together."},
        "gateways": {"type": "array", "items": _WORKER},
        "engines": {"type": "array", "items": _TEXT},
        "listen": {"type": ["string", "null"]},
        "sandboxes": {"type": "object"},
    },
}
_KEY: Schema = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "label": _TEXT,
        "role": {"type": "string", "enum": list(KEY_ROLES)},
        "created_at": {"type": "string", "format": "date-time"},
        "used_at": {"type": ["string", "null"], "format": "date-time"},
    },
}


async def version(call: ApiCall) -> Mapping[str, Any]:
    """GET /version."""
    extensions = [*EXTENSIONS, *([END_NOTICES] if call.plane.deadlines.announces else [])]
    return {"name": "irons", "version": __version__, "api": "v0", "extensions": extensions}


async def status(call: ApiCall) -> Mapping[str, Any]:
    """GET /status."""
    plane = call.plane
    known = await plane.store.read(sandboxes.all_of)
    workers = await _gateways(call)
    return {
        "version": __version__,
        "server": {
            "pid": os.getpid(),
            "started_at": times.rfc3339(plane.began),
            "memory": _memory(),
            "database": plane.store.path.stat().st_size,
        },
        "keeper": await _keeper(call),
        "gateway": _all_together(workers),
        "gateways": workers,
        "engines": sorted(plane.engines),
        "listen": None if plane.config.host is None else f"{plane.config.host}:{plane.config.port}",
        "sandboxes": dict(Counter(sandbox.status for sandbox in known)),
    }


async def metrics(call: ApiCall) -> ApiText:
    """GET /metrics."""
    plane = call.plane
    logs = plane.paths.gateway / "audit"
    measured = Measured(plane.store, logs, plane.tally, plane.gateways, plane.questions.count, plane.began)
    return ApiText(exposition.text_of(await collect(measured)))


async def list_keys(call: ApiCall) -> Mapping[str, Any]:
    """GET /keys."""
    return {"keys": [_key(key) for key in await call.plane.store.read(keys.all_of)]}


async def create_key(call: ApiCall) -> ApiAnswer:
    """POST /keys."""
    body = call.body
    key, secret = await call.plane.keys.create(body["label"], body.get("role") or KEY_ROLES[0])
    return ApiAnswer(201, {**_key(key), "key": secret})


async def revoke_key(call: ApiCall) -> Mapping[str, Any]:
    """DELETE /keys/{id}."""
    name = call.path["id"]
    found = await call.plane.keys.revoke(name)
    if not found:
        raise missing(f"there is no key {name!r}", "irons local key list shows what there is")
    if found > 1:
        raise conflict(f"{found} keys are labelled {name!r}; name one by its id")
    return {}


async def list_images(call: ApiCall) -> Mapping[str, Any]:
    """GET /images."""
    paths = call.plane.paths
    images = Images(paths.images, paths.sandboxes)
    found = await asyncio.to_thread(images.listed)
    return {
        "images": [
            {
                "name": image.name,
                "created_at": times.rfc3339(image.created_at),
                "size": images.size(image),
                "os": image.os,
                "source": image.source,
                "kind": image.kind,
            }
            for image in found
        ]
    }


def _fleet(call: ApiCall) -> Fleet:
    if call.plane.fleet is None:
        raise conflict(
            "this server has no fleet: members have nowhere to connect",
            "set [local] fleet_listen to HOST:PORT, then run irons local down and irons local up",
        )
    return call.plane.fleet


async def list_members(call: ApiCall) -> Mapping[str, Any]:
    """GET /fleet/members."""
    return {"members": await _fleet(call).status()}


async def add_member(call: ApiCall) -> ApiAnswer:
    """POST /fleet/members."""
    token = await _fleet(call).add(call.body["name"], call.body.get("address"))
    return ApiAnswer(201, {"name": token.name, "address": token.address, "token": token.text()})


async def remove_member(call: ApiCall) -> Mapping[str, Any]:
    """DELETE /fleet/members/{name}."""
    await _fleet(call).remove(call.path["name"])
    return {}


ROUTES = (
    ApiRoute(
        "GET",
        "/images",
        list_images,
        "The images that sandboxes can start from, newest first; they are made by `irons local image`.",
        {
            "type": "object",
            "properties": {
                "images": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": _TEXT,
                            "created_at": {"type": "string", "format": "date-time"},
                            "size": {"type": ["integer", "null"]},
                            "os": _TEXT,
                            "source": _TEXT,
                            "kind": {"type": "string", "enum": ["files", "disk"]},
                        },
                    },
                }
            },
        },
    ),
    ApiRoute(
        "GET",
        "/version",
        version,
        "What this server is, and what it can beyond the v0 API.",
        {
            "type": "object",
            "properties": {
                "name": _TEXT,
                "version": _TEXT,
                "api": _TEXT,
                "extensions": {"type": "array", "items": _TEXT},
            },
        },
    ),
    ApiRoute("GET", "/status", status, "How the backend's processes are.", _STATUS),
    ApiRoute(
        "GET",
        "/metrics",
        metrics,
        "Counts and states for Prometheus, in its text format 0.0.4.",
        _TEXT,
        media=exposition.CONTENT_TYPE,
    ),
    ApiRoute(
        "GET",
        "/keys",
        list_keys,
        "The API keys there are, without the keys themselves.",
        {"type": "object", "properties": {"keys": {"type": "array", "items": _KEY}}},
        fails=(403,),
        owner_only=True,
    ),
    ApiRoute(
        "POST",
        "/keys",
        create_key,
        "Make an API key of the role `admin`, or of another; it is shown in this answer and never again.",
        {**_KEY, "properties": {**_KEY["properties"], "key": _TEXT}},
        body=record(
            {"label": text(200, minLength=1), "role": optional(text(8, enum=list(KEY_ROLES)))},
            required=("label",),
        ),
        status=201,
        leads_to={"revoke_key": "id"},
        fails=(403, 413),
        owner_only=True,
    ),
    ApiRoute(
        "DELETE",
        "/keys/{id}",
        revoke_key,
        "Revoke an API key, by its id or label.",
        {"type": "object"},
        fails=(403, 404, 409),
        owner_only=True,
    ),
    ApiRoute(
        "GET",
        "/fleet/members",
        list_members,
        "How each member of the fleet is.",
        {"type": "object", "properties": {"members": {"type": "array", "items": _MEMBER}}},
        fails=(403, 409),
        owner_only=True,
    ),
    ApiRoute(
        "POST",
        "/fleet/members",
        add_member,
        "Make a token by which one machine joins the fleet under a name, once, within 10 minutes; it is shown in this answer and never again.",
        {"type": "object", "properties": {"name": _TEXT, "address": _TEXT, "token": _TEXT}},
        body=record(
            {"name": text(63, pattern=_NAME), "address": optional(text(300, minLength=3))}, required=("name",)
        ),
        status=201,
        leads_to={"remove_member": "name"},
        fails=(403, 409, 413),
        owner_only=True,
    ),
    ApiRoute(
        "DELETE",
        "/fleet/members/{name}",
        remove_member,
        "Remove a member: its certificate is worthless and its connections are cut, at once.",
        {"type": "object"},
        fails=(403, 404, 409),
        owner_only=True,
    ),
)


def _key(key: StoredKey) -> Mapping[str, Any]:
    return {
        "id": key.id,
        "label": key.label,
        "role": key.role,
        "created_at": times.rfc3339(key.created_at),
        "used_at": None if key.used_at is None else times.rfc3339(key.used_at),
    }


async def _keeper(call: ApiCall) -> Mapping[str, Any]:
    try:
        return await call.plane.keeper.status()
    except CellError as error:
        return {"error": str(error)}


async def _gateways(call: ApiCall) -> list[Mapping[str, Any]]:
    """Each worker of the gateway, by its number."""
    said = await call.plane.gateways.stats()
    return [{"worker": number, **each} for number, each in said.items()]


def _all_together(workers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What the workers have together, as one gateway says it of itself."""
    speaking = [each for each in workers if "error" not in each]
    if not speaking:
        return {"error": workers[0]["error"] if workers else "not running"}
    first = speaking[0]
    return {
        name: sum(each.get(name, 0) for each in speaking)
        if isinstance(value, int) and name not in ("pid", "worker")
        else value
        for name, value in first.items()
        if name != "worker"
    }


def _memory() -> int:
    """This process's own memory in bytes (`RssAnon` of proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
