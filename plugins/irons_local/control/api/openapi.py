"""The routes as an OpenAPI 3.1 document."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from irons_local.control.api.routing import ApiRoute
from irons_local.control.store.sandboxes import NAME

_PARAMETER = re.compile(r"\{(\w+)\}")
_FAILURES = {
    400: "The request is malformed, or asks for something that cannot be.",
    401: "No key, or not a valid one (TCP only).",
    403: "The role of the API key does not allow it, or it is not for clients that come over TCP.",
    404: "There is no such thing.",
    408: "The request did not come whole in time.",
    409: "It clashes with what is there, or the state does not allow it.",
    413: "The body is too large.",
    431: "The head of the request is too large.",
    500: "It failed; the text says why.",
    503: "A part of the backend does not answer right now, or there are too many connections without a valid key, or with this key of another role than `admin`.",
}
_TEXT = {"type": "string", "minLength": 1}
_PATH: Mapping[str, Mapping[str, Any]] = {
    "name": {"type": "string", "pattern": NAME, "description": "A sandbox's name, or its id."},
    "snapshot": {"type": "string", "minLength": 1, "description": "A snapshot's name, or its id."},
}
_ALWAYS = (400, 401, 403, 408, 413, 431, 500, 503)
"""Failures that no route is spared."""

_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "hint": {"type": "string"}},
    "required": ["error"],
}


def describe(routes: Iterable[ApiRoute], version: str) -> dict[str, Any]:
    """The document for a set of routes."""
    routes = tuple(routes)
    used = Counter(route.handler.__name__ for route in routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        name = route.handler.__name__
        identity = f"{name}_of_sandbox" if used[name] > 1 and "{name}" in route.path else name
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, identity)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "irons",
            "version": version,
            "description": "The IronCD sandbox API v0, and what the local backend answers beyond it.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Asked for over TCP; not on the unix socket.",
                }
            },
        },
        "security": [{}, {"key": []}],
    }


def _operation(route: ApiRoute, identity: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": identity,
        "summary": route.summary,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": dict(_PATH.get(name, _TEXT))}
                for name in _PARAMETER.findall(route.path)
            ),
            *(
                {
                    "name": name,
                    "in": "query",
                    "required": name in route.needs,
                    "schema": dict(schema),
                }
                for name, schema in route.query.items()
            ),
        ],
        "responses": {
            str(route.status): {
                "description": "Success.",
                "content": {route.media.partition(";")[0]: {"schema": dict(route.answer)}},
                **({"links": _links(route.leads_to)} if route.leads_to else {}),
            },
            **{
                str(status): {
                    "description": _FAILURES[status],
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
                for status in sorted({*_ALWAYS, *route.fails})
            },
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": dict(route.body)}},
        }
    return operation


def _links(leads_to: Mapping[str, str]) -> dict[str, Any]:
    """Where a client goes from an answer: operation ids, and the member of the answer that their parameter is."""
    return {
        operation: {"operationId": operation, "parameters": {member: f"$response.body#/{member}"}}
        for operation, member in leads_to.items()
    }
