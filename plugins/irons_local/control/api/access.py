"""The keys that open a sandbox, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irons_local.control.api.routing import ApiCall, ApiRoute
from irons_local.control.sandbox.access import Change, adding, keys_of, removing
from irons_local.control.schema.public_key import checked_key
from irons_local.control.schema.schemas import Schema, record, text
from irons_local.control.store import sandboxes
from irons_local.control.store.sandboxes import StoredSandbox

_TEXT: Schema = {"type": "string"}
_KEYS: Schema = {
    "type": "object",
    "properties": {
        "keys": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"id": _TEXT, "type": _TEXT, "fingerprint": _TEXT, "comment": _TEXT},
                "required": ["id", "type", "fingerprint", "comment"],
            },
        }
    },
    "required": ["keys"],
}


async def list_access(call: ApiCall) -> Mapping[str, Any]:
    """GET /sandboxes/{name}/access."""
    name = call.path["name"]
    return _answer(await call.plane.store.read(lambda connection: sandboxes.get(connection, name)))


async def add_access(call: ApiCall) -> Mapping[str, Any]:
    """POST /sandboxes/{name}/access."""
    return await _change(call, adding(checked_key(call.body["public_key"])))


async def remove_access(call: ApiCall) -> Mapping[str, Any]:
    """DELETE /sandboxes/{name}/access/{key}."""
    return await _change(call, removing(call.path["key"]))


async def _change(call: ApiCall, change: Change) -> Mapping[str, Any]:
    return _answer(await call.plane.lifecycle.admit(call.path["name"], change))


def _answer(sandbox: StoredSandbox) -> Mapping[str, Any]:
    return {"keys": [key._asdict() for key in keys_of(sandbox.public_key)]}


ROUTES = (
    ApiRoute(
        "GET",
        "/sandboxes/{name}/access",
        list_access,
        "The public keys that open a sandbox.",
        _KEYS,
        fails=(404,),
    ),
    ApiRoute(
        "POST",
        "/sandboxes/{name}/access",
        add_access,
        "Add public keys that open a sandbox, at once where it runs.",
        _KEYS,
        body=record({"public_key": text(65_536)}, required=("public_key",)),
        fails=(404, 409, 413, 503),
    ),
    ApiRoute(
        "DELETE",
        "/sandboxes/{name}/access/{key}",
        remove_access,
        "Remove a public key, named by its id, from a sandbox, and end its sessions.",
        _KEYS,
        fails=(404, 409, 503),
    ),
)
