"""The routes as an OpenAPI 3.1 document."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from irons_plugins.local.control.routing import Route

_PARAMETER = re.compile(r"\{(\w+)\}")
_FAILURES = {
    400: "The request is malformed, or asks for something that cannot be.",
    401: "No key, or not a valid one (TCP only).",
    403: "It is not for clients that come over TCP.",
    404: "There is no such thing.",
    408: "The request did not come whole in time.",
    409: "It clashes with what is there, or the state is a wrong one for it.",
    413: "The body is too large.",
    431: "The head of the request is too large.",
    500: "It failed; the text says why.",
    503: "A part of the backend does not answer right now, or too many connections have shown no valid key.",
}
_ALWAYS = (400, 401, 408, 413, 431, 500, 503)
"""Failures that no route is spared."""

_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "hint": {"type": "string"}},
    "required": ["error"],
}


def describe(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The document for a set of routes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
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


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
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
                "content": {"application/json": {"schema": dict(route.answer)}},
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
