"""Routes as data: the same table makes the app, holds requests to their shape, and is published as OpenAPI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from irons_local.control.schema.errors import bad
from irons_local.control.schema.schemas import Schema, check

if TYPE_CHECKING:
    from irons_local.control.api.plane import Plane


JSON = "application/json"


class Owned(NamedTuple):
    """What an answer is to be about, where the caller sees only what it created.

    Attributes:
        key: the id of its key.
        sandboxes: the names of its sandboxes, by their ids, where the route's handler keeps to those.
    """

    key: str
    sandboxes: Mapping[str, str]


class ApiCall(NamedTuple):
    """A request that fits its route.

    Attributes:
        plane: the control plane's parts.
        path: the path's parameters, percent-decoded.
        query: the query's parameters, in the types their schemas name; only those that were given.
        body: the JSON object; empty where the route takes none.
        at: the address of this machine that the request came to; empty on the unix socket.
        left: set when the client has closed the connection, or its side of it.
        owned: what the answer is to be about, where the caller sees only what it created; None for everything.
    """

    plane: Plane
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]
    at: str
    left: asyncio.Event
    owned: Owned | None = None


class ApiText(NamedTuple):
    """What a handler gives whose route answers with a text of another type than JSON."""

    text: str


class ApiAnswer(NamedTuple):
    """What a handler gives when it is not just JSON with status 200."""

    status: int
    body: Mapping[str, Any]


Handler = Callable[[ApiCall], Awaitable[ApiAnswer | ApiText | Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """One method of one path.

    Attributes:
        method: the HTTP method.
        path: with parameters as `{name}`.
        handler: what answers.
        summary: one line of what it does.
        answer: schema of the answer.
        body: schema of the request's JSON; None takes no body (and ignores one).
        query: schemas of the query's parameters.
        needs: names of the query's parameters that must be given.
        status: the status of success.
        fails: the statuses beyond 400 that it may fail with.
        leads_to: ids of operations that the answer leads to, and the member of it that is their parameter.
        owner_only: served on the unix socket alone; 403 over TCP, with any key.
        media: the content type of the answer.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answer: Schema = field(default_factory=dict)
    body: Schema | None = None
    query: Mapping[str, Schema] = field(default_factory=dict)
    needs: Sequence[str] = ()
    status: int = 200
    fails: Sequence[int] = ()
    leads_to: Mapping[str, str] = field(default_factory=dict)
    owner_only: bool = False
    media: str = JSON


def read_query(route: ApiRoute, given: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The query's parameters in the types that their schemas name.

    Raises:
        HttpError: one is unknown, there twice, or not of its type.
    """
    found: dict[str, Any] = {}
    for name, text in given:
        schema = route.query.get(name)
        if schema is None:
            known = ", ".join(route.query) or "none"
            raise bad(f"unknown parameter {name[:60]!r}; known are: {known}")
        if name in found:
            raise bad(f"parameter {name} is there twice")
        found[name] = _typed(name, text, schema)
        check(schema, found[name], name)
    for name in route.needs:
        if name not in found:
            raise bad(f"the parameter {name} is needed")
    return found


def _typed(name: str, text: str, schema: Schema) -> Any:
    kind = schema.get("type")
    if kind == "boolean":
        if text not in ("true", "false", "1", "0"):
            raise bad(f"{name} must be true or false")
        return text in ("true", "1")
    if kind not in ("integer", "number"):
        return text
    try:
        # Python's own spellings, such as 1_000 and Arabic digits, are not the wire's.
        if not text.isascii() or "_" in text or len(text) > 30:
            raise ValueError(text)
        return int(text) if kind == "integer" else float(text)
    except ValueError:
        raise bad(f"{name} must be a {'whole ' if kind == 'integer' else ''}number") from None
