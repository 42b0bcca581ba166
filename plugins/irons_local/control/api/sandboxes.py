"""Sandboxes over HTTP."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from irons_local import times
from irons_local.bundle import entrypoint
from irons_local.control.api.plane import Plane
from irons_local.control.api.routing import ApiAnswer, ApiCall, ApiRoute
from irons_local.control.egress.rules_input import never_of, rules_of
from irons_local.control.sandbox.copies import copy_of, policy_of
from irons_local.control.sandbox.deadlines import LONGEST
from irons_local.control.sandbox.engine_registry import BUILT_IN, INCUS, NAMESPACE, VM
from irons_local.control.sandbox.holds import ANSWERED_AFTER
from irons_local.control.sandbox.new_sandbox import RequestedSandbox
from irons_local.control.sandbox.variables import VARIABLES, checked
from irons_local.control.schema.errors import HttpError, bad, conflict, missing, unready
from irons_local.control.schema.labels import FILTER, meets, wanted_labels
from irons_local.control.schema.public_key import checked_key
from irons_local.control.schema.rules_schema import NEVER, RULES
from irons_local.control.schema.schemas import Schema, optional, record, text
from irons_local.control.store import sandboxes, terms
from irons_local.control.store.sandboxes import CREATING, ERROR, READY, RUNNING, StoredSandbox
from irons_local.control.store.terms import SECOND, Terms
from irons_local.engines.protocol import Booter, Copies, Spread
from irons_local.engines.vm import limits as vm_limits
from irons_local.errors import CellError, EngineError
from irons_local.images.catalog import DEFAULT, MACHINE, Images
from irons_local.images.sources.reference import Reference
from irons_local.limits import Limits
from irons_local.linux import disk_images
from irons_policy.modes import MODES, wire_mode
from irons_policy.rules import Rule

_PATIENCE = 10.0
"""Seconds for what an engine knows of a sandbox; an answer goes without it after that."""

STATUS = {
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
        **{name: option.schema for name, option in sandboxes.OPTIONS.items() if option.shown},
        "ttl": {"type": "integer", "description": "Seconds that it was given to live."},
        "idle_stop": {"type": "integer", "description": "Seconds of idleness after which it is stopped."},
        "ends_at": {"type": "string", "format": "date-time"},
        "ends_in": {"type": "integer", "description": "Seconds left until then."},
        "ends_by": {"type": "string", "enum": ["ttl", "idle"]},
        "ends_with": {"type": "string", "enum": ["stop", "destroy"]},
    },
    "required": ["name", "id", "status", "created_at", "updated_at"],
}
_SECONDS: Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": LONGEST}
_TERMS: Mapping[str, Schema] = {"ttl": _SECONDS, "rm": {"type": "boolean"}, "idle_stop": _SECONDS}
_EXTEND = record({"seconds": {"type": "integer", "minimum": 1, "maximum": LONGEST}}, required=("seconds",))
NEW_NAME: Schema = text(300, pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
HELD: Schema = {
    "type": "boolean",
    "description": "It is destroyed when no request holds it for a minute.",
}
_CREATE = record(
    {
        "name": NEW_NAME,
        "public_key": text(65_536),
        "mode": optional(text(8, enum=list(MODES))),
        "rules": RULES,
        "never": NEVER,
        "engine": optional(text(64)),
        **{name: option.schema for name, option in sandboxes.OPTIONS.items()},
        **_TERMS,
        "environment": VARIABLES,
        "snapshot": optional(
            text(
                300,
                description="A snapshot to start from; it says the engine and the image, and what is not given else.",
            )
        ),
        "held": HELD,
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
        "oom_kills": {"type": "integer"},
        "memory": {"type": "integer"},
    },
    "required": ["host", "port", "username"],
}


async def create_sandbox(call: ApiCall) -> ApiAnswer:
    """POST /sandboxes."""
    body = call.body
    # Wildcards are held against the list of public suffixes, which takes a moment: not in the event loop.
    own: Sequence[Rule] = await asyncio.to_thread(rules_of, body.get("rules") or ())
    origin = ""
    if body.get("snapshot"):
        sandbox, own, origin = await _copied(call, own)
    else:
        sandbox = _new(call)
    variables = checked(body.get("environment") or {})
    try:
        limits = Limits(cpus=sandbox.cpus, memory=sandbox.memory, disk=sandbox.disk)
        limits.check()
        if sandbox.engine == NAMESPACE:
            disk_images.check(limits, os.geteuid())
        if sandbox.engine == VM:
            vm_limits.check(limits)
        if sandbox.member and sandbox.engine in BUILT_IN and sandbox.engine != INCUS:
            raise EngineError(
                "input",
                f"the engine {sandbox.engine} has no members",
                "irons create NAME --engine incus --on MEMBER",
            )
    except EngineError as error:
        raise HttpError(503 if error.code == "machine" else 400, error.message, error.hint) from error
    await call.plane.egress.check_pins(own)
    if sandbox.engine in BUILT_IN and not origin:
        await asyncio.to_thread(_check_image, call.plane, sandbox)
    given = call.plane.deadlines.first(
        sandbox, ttl=body.get("ttl"), remove=body.get("rm", False), idle_stop=body.get("idle_stop")
    )
    held = bool(body.get("held"))
    never = await asyncio.to_thread(never_of, body.get("never") or ())
    wanted = RequestedSandbox(sandbox, own, given, variables, held, origin, never)
    made = await call.plane.lifecycle.create(wanted)
    if held:
        call.plane.holds.begin(made.id)
    return ApiAnswer(202, short_status(made))


async def _copied(call: ApiCall, given: Sequence[Rule]) -> tuple[StoredSandbox, Sequence[Rule], str]:
    """A sandbox that starts from a snapshot, its rules, and what the snapshot is called."""
    body = call.body
    origin, known = await call.plane.copies.origin(body["snapshot"])
    for name, what in (("image", origin.image), ("engine", origin.engine)):
        if body.get(name) not in (None, "", what):
            raise bad(f"{name}: the snapshot {origin.name} has the {name} {what}; leave {name} out")
    if not isinstance(call.plane.engines.get(origin.engine), Copies):
        raise bad(f"the engine {origin.engine!r} makes no copies")
    mode, own = policy_of(origin, known, body.get("mode"), given if body.get("rules") else None)
    base = copy_of(origin, sandboxes.checked_name(body["name"]), mode, checked_key(body["public_key"]))
    asked = {name: value for name, value in sandboxes.asked(body).items() if body.get(name) is not None}
    return replace(base, **{**asked, "image": base.image}), own, str(origin.name)


def _new(call: ApiCall) -> StoredSandbox:
    body = call.body
    now = times.now()
    return StoredSandbox(
        id=sandboxes.new_id(),
        name=sandboxes.checked_name(body["name"]),
        status=CREATING,
        reason=None,
        deleting=False,
        public_key=checked_key(body["public_key"]),
        engine=body.get("engine") or call.plane.config.engine,
        mode=body.get("mode"),
        ssh_port=None,
        username=None,
        host_keys=(),
        created_at=now,
        updated_at=now,
        **sandboxes.asked(body),
    )


async def list_sandboxes(call: ApiCall) -> Mapping[str, Any]:
    """GET /sandboxes."""
    wanted = wanted_labels(call.query["label"]) if "label" in call.query else ()
    known, given = await call.plane.store.read(
        lambda connection: (sandboxes.all_of(connection), terms.all_of(connection))
    )
    return {
        "sandboxes": [
            _status(call.plane, each, {}, given.get(each.id)) for each in known if meets(each.labels, wanted)
        ]
    }


async def show_sandbox(call: ApiCall) -> Mapping[str, Any]:
    """GET /sandboxes/{name}."""
    sandbox = await _find(call)
    if call.query.get("wait"):
        await call.plane.lifecycle.settled(sandbox.id, call.query["wait"])
        sandbox = await _find(call)
    given = await call.plane.store.read(lambda connection: terms.get(connection, sandbox.id))
    shown = await call.plane.egress.show(sandbox.id)
    facts = {**await _facts(call.plane, sandbox), "egress": _wire_word(shown.mode)}
    if shown.mode == "ask":
        # Clients of v0 know no such mode; it is `deny` to them with a further field, as elsewhere.
        facts["ask"] = "true"
    return _status(call.plane, sandbox, facts, given)


async def change_sandbox(call: ApiCall) -> Mapping[str, Any]:
    """PATCH /sandboxes/{name}."""
    await call.plane.deadlines.change(call.path["name"], call.body)
    return await show_sandbox(call)


async def extend_sandbox(call: ApiCall) -> Mapping[str, Any]:
    """POST /sandboxes/{name}/extend."""
    await call.plane.deadlines.extend(call.path["name"], call.body["seconds"])
    return await show_sandbox(call)


async def hold_sandbox(call: ApiCall) -> Mapping[str, Any]:
    """POST /sandboxes/{name}/hold."""
    seconds = call.query.get("wait", ANSWERED_AFTER)
    return {"held": await call.plane.holds.hold(call.path["name"], seconds, call.left)}


async def release_sandbox(call: ApiCall) -> Mapping[str, Any]:
    """DELETE /sandboxes/{name}/hold."""
    await call.plane.holds.release(call.path["name"])
    return {}


async def start_sandbox(call: ApiCall) -> ApiAnswer:
    """POST /sandboxes/{name}/start."""
    await call.plane.deadlines.renew(call.path["name"])
    return ApiAnswer(
        202,
        short_status(await call.plane.lifecycle.start(call.path["name"], boot=call.query.get("boot", True))),
    )


async def boot_of_sandbox(call: ApiCall) -> Mapping[str, Any]:
    """GET /sandboxes/{name}/boot."""
    sandbox = await _find(call)
    engine = call.plane.engines.get(sandbox.engine)
    if not isinstance(engine, Booter) or sandbox.username is None:
        return {"output": ""}
    try:
        async with asyncio.timeout(_PATIENCE):
            found = await engine.boot_output(sandbox.id)
    except (EngineError, OSError, TimeoutError) as error:
        raise conflict(f"the output of {sandbox.name} cannot be read: {error}") from error
    return {"output": found.decode(errors="replace")}


async def stop_sandbox(call: ApiCall) -> ApiAnswer:
    """POST /sandboxes/{name}/stop."""
    return ApiAnswer(202, short_status(await call.plane.lifecycle.stop(call.path["name"])))


async def delete_sandbox(call: ApiCall) -> Mapping[str, Any]:
    """DELETE /sandboxes/{name}."""
    sandbox = await _find(call)
    await call.plane.lifecycle.delete(sandbox.id)
    call.plane.holds.gone(sandbox.id)
    return {}


async def ssh_of_sandbox(call: ApiCall) -> Mapping[str, Any]:
    """GET /sandboxes/{name}/ssh."""
    sandbox = await _find(call)
    port = call.plane.doors.port(sandbox.id)
    if port is None or sandbox.username is None or sandbox.status not in (READY, RUNNING):
        state = "in the state error" if sandbox.status == ERROR else sandbox.status
        raise conflict(f"{sandbox.name} is {state}; SSH answers when it is ready")
    # Ports that are open on every address are best reached at the one that this request came to.
    address = ipaddress.ip_address(call.plane.doors.address)
    host = (call.at or "127.0.0.1") if address.is_unspecified else str(address)
    # No `command`: to a v0 client that is a remote command, run in place of a shell.
    return {
        "host": host,
        "port": port,
        "username": sandbox.username,
        "host_keys": list(sandbox.host_keys),
        **({"cell": sandbox.id} if _is_here(call.plane, sandbox) else {}),
        **_memory(await _facts(call.plane, sandbox)),
    }


def _is_here(plane: Plane, sandbox: StoredSandbox) -> bool:
    """Whether the cell of a sandbox is on this machine, so that its user can connect there by the keeper."""
    engine = plane.engines.get(sandbox.engine)
    fleet = plane.fleet
    return not (
        (isinstance(engine, Spread) and engine.member_of(sandbox.id))
        or (fleet is not None and fleet.members.member_of(sandbox.id))
    )


def _memory(facts: Mapping[str, str]) -> Mapping[str, int]:
    """The memory limit in bytes, and how many processes were killed for it: where either is known."""
    return {key: int(facts[key]) for key in ("oom_kills", "memory") if facts.get(key, "").isdigit()}


ROUTES = (
    ApiRoute(
        "POST",
        "/sandboxes",
        create_sandbox,
        "Create a sandbox, with its mode and rules active before its first packet; then poll its status.",
        STATUS,
        body=_CREATE,
        status=202,
        leads_to=dict.fromkeys(
            ("show_sandbox", "start_sandbox", "stop_sandbox", "ssh_of_sandbox", "delete_sandbox"), "name"
        ),
        fails=(404, 409, 413, 503),
    ),
    ApiRoute(
        "GET",
        "/sandboxes",
        list_sandboxes,
        "All sandboxes, or those with all of these labels, by name.",
        {"type": "object", "properties": {"sandboxes": {"type": "array", "items": STATUS}}},
        query={"label": FILTER},
    ),
    ApiRoute(
        "GET",
        "/sandboxes/{name}",
        show_sandbox,
        "One sandbox. `wait` holds the answer while it is made, started or stopped, for so many seconds at most.",
        STATUS,
        query={"wait": {"type": "number", "minimum": 0, "maximum": ANSWERED_AFTER}},
        fails=(404,),
    ),
    ApiRoute(
        "DELETE",
        "/sandboxes/{name}",
        delete_sandbox,
        "Remove a sandbox that does not run, or end one that is being made; the answer comes when nothing is left of it.",
        {"type": "object"},
        fails=(404, 409, 503),
    ),
    ApiRoute(
        "POST",
        "/sandboxes/{name}/start",
        start_sandbox,
        "Start a stopped sandbox; then poll its status. With `boot=false` nothing in it starts by itself.",
        STATUS,
        query={"boot": {"type": "boolean"}},
        status=202,
        fails=(404, 409, 503),
    ),
    ApiRoute(
        "GET",
        "/sandboxes/{name}/boot",
        boot_of_sandbox,
        "The last 64 KiB of what a sandbox printed while it booted.",
        {"type": "object", "properties": {"output": {"type": "string"}}, "required": ["output"]},
        fails=(404, 409),
    ),
    ApiRoute(
        "POST",
        "/sandboxes/{name}/stop",
        stop_sandbox,
        "Stop a sandbox; then poll its status.",
        STATUS,
        status=202,
        fails=(404, 409),
    ),
    ApiRoute(
        "PATCH",
        "/sandboxes/{name}",
        change_sandbox,
        "Change how long it may live, from now on, what happens then, and how long it may be idle; null sets no limit.",
        STATUS,
        body=record(_TERMS),
        fails=(404,),
    ),
    ApiRoute(
        "POST",
        "/sandboxes/{name}/extend",
        extend_sandbox,
        "Move the end of its time to live on.",
        STATUS,
        body=_EXTEND,
        fails=(404, 409),
    ),
    ApiRoute(
        "POST",
        "/sandboxes/{name}/hold",
        hold_sandbox,
        f"Keep a sandbox that ends with its client for `wait` seconds, {ANSWERED_AFTER:.0f} at most; then ask again.",
        {"type": "object", "properties": {"held": {"type": "boolean"}}, "required": ["held"]},
        query={"wait": {"type": "number", "minimum": 0, "maximum": 3600}},
        fails=(404, 409),
    ),
    ApiRoute(
        "DELETE",
        "/sandboxes/{name}/hold",
        release_sandbox,
        "Keep a sandbox that would end with its client.",
        {"type": "object"},
        fails=(404,),
    ),
    ApiRoute(
        "GET",
        "/sandboxes/{name}/ssh",
        ssh_of_sandbox,
        "Where its SSH server answers, and the host keys it has.",
        _SSH,
        fails=(404, 409),
    ),
)


async def _find(call: ApiCall) -> StoredSandbox:
    name = call.path["name"]
    return await call.plane.store.read(lambda connection: sandboxes.get(connection, name))


async def _facts(plane: Plane, sandbox: StoredSandbox) -> Mapping[str, str]:
    """What the engine says of a sandbox at rest; while it is worked on, its engine is not asked."""
    engine = plane.engines.get(sandbox.engine)
    if engine is None or sandbox.status in sandboxes.BUSY:
        return {}
    try:
        async with asyncio.timeout(_PATIENCE):
            return (await engine.look(sandbox.id)).facts or {}
    except (EngineError, CellError, OSError, TimeoutError):
        return {}


def _image_hint(name: str) -> str:
    where = Reference.parse(name)
    if where is not None and where.is_plain:
        return f"irons image list shows them; irons create --image {name}:latest pulls it from a registry"
    return "irons image list shows them; irons local image pull fetches one from a registry"


def _check_image(plane: Plane, sandbox: StoredSandbox) -> None:
    """Refuse an image that is not there, and a machine that could not run it, before anything is made or built."""
    from irons_local.doctor import readiness

    name, default = sandbox.image, DEFAULT if sandbox.engine == NAMESPACE else MACHINE
    images = Images(plane.paths.images, plane.paths.sandboxes)
    found = images.find(name or default)
    there = found is not None
    if not there and name and name != default:
        try:
            images.named(name)
        except EngineError as newer:
            # A newer irons made it.
            if newer.code != "absent":
                raise unready(newer.message, newer.hint) from None
        known = ", ".join(sorted(image.name for image in images.listed())) or "none yet"
        raise missing(f"there is no image {name!r}; images: {known}", _image_hint(name))
    if sandbox.entrypoint and found is not None:
        try:
            entrypoint.check(found.config, f"the image {found.name}")
        except EngineError as none:
            raise HttpError(400, none.message, none.hint) from none
    # All that doctor checks takes a third of a second: only where an image is built, or something is seen to be missing.
    check = (
        None if there and not readiness.doubtful() else readiness.obstacle(plane.paths, building=not there)
    )
    if check is not None:
        error = readiness.refused(check)
        raise unready(error.message, error.hint)


def short_status(sandbox: StoredSandbox) -> Mapping[str, Any]:
    """Return what the answer to a request that begins something says of a sandbox."""
    return {
        "id": sandbox.id,
        "name": sandbox.name,
        "status": sandbox.status,
        "created_at": times.rfc3339(sandbox.created_at),
        "updated_at": times.rfc3339(sandbox.updated_at),
    }


def _wire_word(mode: str) -> str:
    return str(wire_mode(mode)["mode"])


def _status(
    plane: Plane, sandbox: StoredSandbox, facts: Mapping[str, str], given: Terms | None
) -> Mapping[str, Any]:
    known = {
        "engine": sandbox.engine,
        "image": sandbox.image,
        "ssh_port": sandbox.ssh_port,
        "cpus": sandbox.cpus,
        "memory": sandbox.memory,
        "disk": sandbox.disk,
        "mode": _wire_word(sandbox.mode) if sandbox.mode else None,
        "reason": sandbox.reason,
        "progress": plane.lifecycle.progress(sandbox.id),
    }
    said = {name: str(value) for name, value in known.items() if value not in (None, "")}
    metadata = said | {name: str(value) for name, value in facts.items()}
    ending = {} if given is None else _ending(plane, given)
    return {
        **short_status(sandbox),
        "labels": dict(sandbox.labels),
        **sandboxes.shown(sandbox),
        **ending,
        "metadata": metadata,
    }


def _ending(plane: Plane, given: Terms) -> Mapping[str, Any]:
    """What a sandbox was given, and when it ends, by what comes first."""
    now = plane.deadlines.instant()
    told = {"ttl": given.ttl, "idle_stop": given.idle_stop}
    found = {name: value for name, value in told.items() if value is not None}
    ends = [
        (left, by, ends_with)
        for left, by, ends_with in (
            (given.left(now), "ttl", "destroy" if given.remove else "stop"),
            (given.idle_left(now), "idle", "stop"),
        )
        if left is not None
    ]
    if not ends:
        return found
    left, by, ends_with = min(ends)
    return {
        **found,
        "ends_at": times.rfc3339(now.wall + left),
        "ends_in": max(0, left // SECOND),
        "ends_by": by,
        "ends_with": ends_with,
    }
