"""Sandboxes over HTTP."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from typing import Any

from irons_plugins.local.control import sandboxes, times
from irons_plugins.local.control.egress import MODES
from irons_plugins.local.control.enginery import BUILT_IN
from irons_plugins.local.control.errors import bad, conflict, unready
from irons_plugins.local.control.labels import FILTER, LABELS, checked_labels, meets, wanted_labels
from irons_plugins.local.control.plane import Plane
from irons_plugins.local.control.public_key import checked_key
from irons_plugins.local.control.routing import Answer, Call, Route
from irons_plugins.local.control.rules_asked import rules_of
from irons_plugins.local.control.rules_schema import RULES
from irons_plugins.local.control.sandboxes import CREATING, READY, RUNNING, Sandbox
from irons_plugins.local.control.schemas import optional, record, text
from irons_plugins.local.engines import CellError, EngineError, Limits
from irons_plugins.local.image import DEFAULT, Images

_PATIENCE = 2.0

_STATUS = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "id": {"type": "string"},
        "status": {
            "type": "string",
            "enum": ["creating", "starting", "running", "ready", "stopping", "stopped", "error"],
        },
        "created_at": {"type": "string", "format": "date-time"},
        "updated_at": {"type": "string", "format": "date-time"},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["name", "id", "status", "created_at", "updated_at"],
}
_CREATE = record(
    {
        "name": text(300, pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"),
        "public_key": text(65_536),
        "mode": optional(text(8, enum=list(MODES))),
        "rules": RULES,
        "image": optional(text(128)),
        "engine": optional(text(64)),
        "cpus": {"type": ["number", "null"], "minimum": 0, "maximum": 4096},
        "memory": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**50},
        "disk": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**60},
        "labels": LABELS,
    },
    required=("name", "public_key"),
)
_SSH = {
    "type": "object",
    "properties": {
        "host": {"type": "string"},
        "port": {"type": "integer"},
        "username": {"type": "string"},
        "host_keys": {"type": "array", "items": {"type": "string"}},
        "cell": {"type": "string"},
    },
    "required": ["host", "port", "username"],
}


async def create_sandbox(call: Call) -> Answer:
    """POST /sandboxes."""
    body = call.body
    now = times.now()
    sandbox = Sandbox(
        id=sandboxes.new_id(),
        name=sandboxes.checked_name(body["name"]),
        status=CREATING,
        reason=None,
        deleting=False,
        public_key=checked_key(body["public_key"]),
        engine=body.get("engine") or call.plane.config.engine,
        image=body.get("image") or "",
        cpus=body.get("cpus"),
        memory=body.get("memory"),
        disk=body.get("disk"),
        mode=body.get("mode"),
        ssh_port=None,
        username=None,
        host_keys=(),
        created_at=now,
        updated_at=now,
        labels=checked_labels(body.get("labels") or {}),
    )
    try:
        Limits(cpus=sandbox.cpus, memory=sandbox.memory, disk=sandbox.disk).check()
    except EngineError as error:
        raise bad(error.message) from error
    # Wildcards are held against the list of public suffixes, which takes a moment: not in the event loop.
    own = await asyncio.to_thread(rules_of, body.get("rules") or ())
    await call.plane.egress.check_pins(own)
    if sandbox.engine in BUILT_IN:
        await asyncio.to_thread(_check_image, call.plane, sandbox.image)
    made = await call.plane.lifecycle.create(sandbox, own)
    return Answer(202, _short(made))


async def list_sandboxes(call: Call) -> Mapping[str, Any]:
    """GET /sandboxes."""
    wanted = wanted_labels(call.query["label"]) if "label" in call.query else ()
    known = [each for each in await call.plane.store.read(sandboxes.all_of) if meets(each.labels, wanted)]
    return {"sandboxes": [_status(call.plane, sandbox, {}) for sandbox in known]}


async def show_sandbox(call: Call) -> Mapping[str, Any]:
    """GET /sandboxes/{name}."""
    sandbox = await _find(call)
    shown = await call.plane.egress.show(sandbox.id)
    return _status(call.plane, sandbox, {**await _facts(call.plane, sandbox), "egress": shown.mode})


async def start_sandbox(call: Call) -> Answer:
    """POST /sandboxes/{name}/start."""
    return Answer(202, _short(await call.plane.lifecycle.start(call.path["name"])))


async def stop_sandbox(call: Call) -> Answer:
    """POST /sandboxes/{name}/stop."""
    return Answer(202, _short(await call.plane.lifecycle.stop(call.path["name"])))


async def delete_sandbox(call: Call) -> Mapping[str, Any]:
    """DELETE /sandboxes/{name}."""
    await call.plane.lifecycle.delete(call.path["name"])
    return {}


async def ssh_of_sandbox(call: Call) -> Mapping[str, Any]:
    """GET /sandboxes/{name}/ssh."""
    sandbox = await _find(call)
    port = call.plane.doors.port(sandbox.id)
    if port is None or sandbox.username is None or sandbox.status not in (READY, RUNNING):
        raise conflict(f"{sandbox.name} is {sandbox.status}; SSH answers when it is ready")
    # Ports that are open on every address are best reached at the one that this request came to.
    address = ipaddress.ip_address(call.plane.doors.address)
    host = (call.at or "127.0.0.1") if address.is_unspecified else str(address)
    # No `command`: to a v0 client that is a remote command, run in place of a shell.
    return {
        "host": host,
        "port": port,
        "username": sandbox.username,
        "host_keys": list(sandbox.host_keys),
        "cell": sandbox.id,
    }


ROUTES = (
    Route(
        "POST",
        "/sandboxes",
        create_sandbox,
        "Create a sandbox, with its mode and rules in force before its first packet; then poll its status.",
        _STATUS,
        body=_CREATE,
        status=202,
        leads_to=dict.fromkeys(
            ("show_sandbox", "start_sandbox", "stop_sandbox", "ssh_of_sandbox", "delete_sandbox"), "name"
        ),
        fails=(409, 413, 503),
    ),
    Route(
        "GET",
        "/sandboxes",
        list_sandboxes,
        "All sandboxes, or those with all of these labels, by name.",
        {"type": "object", "properties": {"sandboxes": {"type": "array", "items": _STATUS}}},
        query={"label": FILTER},
    ),
    Route("GET", "/sandboxes/{name}", show_sandbox, "One sandbox.", _STATUS, fails=(404,)),
    Route(
        "DELETE",
        "/sandboxes/{name}",
        delete_sandbox,
        "Remove a sandbox that does not run, or end one that is being made; the answer comes when nothing is left of it.",
        {"type": "object"},
        fails=(404, 409, 503),
    ),
    Route(
        "POST",
        "/sandboxes/{name}/start",
        start_sandbox,
        "Start a stopped sandbox; then poll its status.",
        _STATUS,
        status=202,
        fails=(404, 409, 503),
    ),
    Route(
        "POST",
        "/sandboxes/{name}/stop",
        stop_sandbox,
        "Stop a sandbox; then poll its status.",
        _STATUS,
        status=202,
        fails=(404, 409),
    ),
    Route(
        "GET",
        "/sandboxes/{name}/ssh",
        ssh_of_sandbox,
        "Where its SSH server answers, and the host keys it has.",
        _SSH,
        fails=(404, 409),
    ),
)


async def _find(call: Call) -> Sandbox:
    name = call.path["name"]
    return await call.plane.store.read(lambda connection: sandboxes.get(connection, name))


async def _facts(plane: Plane, sandbox: Sandbox) -> Mapping[str, str]:
    """What the engine says of a sandbox at rest; while it is worked on, its engine is not asked."""
    engine = plane.engines.get(sandbox.engine)
    if engine is None or sandbox.status in sandboxes.BUSY:
        return {}
    try:
        async with asyncio.timeout(_PATIENCE):
            return (await engine.look(sandbox.id)).facts or {}
    except (EngineError, CellError, OSError, TimeoutError):
        return {}


def _check_image(plane: Plane, name: str) -> None:
    """Refuse an image that is not there; where one must be built first, refuse a machine that could not run it."""
    images = Images(plane.places.images, plane.places.sandboxes)
    if images.find(name or DEFAULT) is not None:
        return
    if name and name != DEFAULT:
        known = ", ".join(sorted(image.name for image in images.listed())) or "none yet"
        raise bad(f"there is no image {name!r}; images: {known}")
    from irons_plugins.local import readiness

    check = readiness.obstacle(plane.places, building=True)
    if check is not None:
        error = readiness.refused(check)
        raise unready(error.message, error.hint)


def _short(sandbox: Sandbox) -> Mapping[str, Any]:
    return {
        "id": sandbox.id,
        "name": sandbox.name,
        "status": sandbox.status,
        "created_at": times.rfc3339(sandbox.created_at),
        "updated_at": times.rfc3339(sandbox.updated_at),
    }


def _status(plane: Plane, sandbox: Sandbox, facts: Mapping[str, str]) -> Mapping[str, Any]:
    known = {
        "engine": sandbox.engine,
        "image": sandbox.image,
        "ssh_port": sandbox.ssh_port,
        "cpus": sandbox.cpus,
        "memory": sandbox.memory,
        "disk": sandbox.disk,
        "mode": sandbox.mode,
        "reason": sandbox.reason,
        "progress": plane.lifecycle.progress(sandbox.id),
    }
    said = {name: str(value) for name, value in known.items() if value not in (None, "")}
    labels = dict(sandbox.labels)
    return {
        **_short(sandbox),
        "labels": labels,
        "metadata": said | {name: str(value) for name, value in facts.items()},
    }
