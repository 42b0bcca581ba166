"""The ASGI application: routes from the table, every failure as `{"error": text}`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from irons.version import __version__
from irons_local.control.api import (
    access,
    audit,
    changes,
    egress,
    questions,
    sandboxes,
    snapshots,
    system,
)
from irons_local.control.api.openapi import describe
from irons_local.control.api.plane import Plane
from irons_local.control.api.roles import RoleGate, caller_of, check_table
from irons_local.control.api.routing import ApiAnswer, ApiCall, ApiRoute, ApiText, read_query
from irons_local.control.api.tracing import traced
from irons_local.control.http.gate import OF_ONE_KEY
from irons_local.control.schema.errors import HttpError, bad, unready
from irons_local.control.schema.schemas import check
from irons_local.control.store.database import StoreError
from irons_local.control.store.keyring import KeyRing
from irons_local.control.store.keys import StoredKey
from irons_local.log.context import REQUEST

MOST_BYTES = 2 * 1024 * 1024
"""Of a request's body."""

_LARGE = 2_000
_KEPT = re.compile("%(2[5F])", re.IGNORECASE)
_OWNER_ONLY = "keys and members of a fleet are made, listed and removed only on the machine where the server runs: `irons local key` and `irons fleet` there, over its unix socket"

ROUTES: tuple[ApiRoute, ...] = (
    *sandboxes.ROUTES,
    *snapshots.ROUTES,
    *access.ROUTES,
    *egress.ROUTES,
    *questions.ROUTES,
    *audit.ROUTES,
    *changes.ROUTES,
    *system.ROUTES,
)

_Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(plane: Plane, routes: Iterable[ApiRoute] = ROUTES) -> ASGIApp:
    """The application for one control plane.

    Who may come in is the listener's business; what they may do is `roles`'.

    Raises:
        LookupError: a route is not in the table of `roles`.
    """
    routes = tuple(routes)
    check_table(routes)

    @cache
    def document() -> bytes:
        """The API's description, made when it is first asked for: it is a third of what the application takes to make."""
        return json.dumps(describe(routes, __version__)).encode()

    async def openapi(_: Request) -> Response:
        return Response(document(), media_type="application/json")

    by_path: dict[str, list[ApiRoute]] = {}
    for route in routes:
        by_path.setdefault(route.path, []).append(route)
    served = [
        HttpRoute(
            path,
            _endpoint(plane, {route.method: route for route in methods}),
            methods=[each.method for each in methods],
        )
        for path, methods in by_path.items()
    ]
    app = Starlette(
        routes=[*served, HttpRoute("/openapi.json", openapi)],
        exception_handlers={HTTPException: _not_served, HttpError: _refused, Exception: _failed},
    )
    app.router.redirect_slashes = False
    return traced(_by_segments(app))


class KeyRequired:
    """Lets only requests with a valid API key through; for listeners that others than the owner can reach.

    The key must be valid when the request comes and when the answer goes: one that is revoked ends a long poll too.
    """

    def __init__(self, app: ASGIApp, ring: KeyRing) -> None:
        self._app = app
        self._ring = ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it with 401."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        refused = await self._refusal(request)
        if refused is not None:
            await refused(scope, receive, send)
            return

        async def send_if_valid(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                refused = await self._refusal(request)
                if refused is not None:
                    await refused(scope, receive, send)
            if refused is None:
                await send(message)

        await self._app(scope, receive, send_if_valid)

    async def _refusal(self, request: Request) -> Response | None:
        refused = await self._key_is_wrong(request)
        about = request.scope["extensions"]["irons"]
        if refused is not None:
            about["recognise"](valid=False)
            return refused
        key: StoredKey = about["key"]
        if about["recognise"](valid=True, key=None if key.role == "admin" else key.id):
            return None
        return _json(503, {"error": f"this key has {OF_ONE_KEY} connections already; end some, or try again"})

    async def _key_is_wrong(self, request: Request) -> Response | None:
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        secret = secret.strip()
        if kind.lower() != "bearer" or not secret:
            return _unknown("a key is needed: make one by `irons local key create` where the server runs")
        try:
            key = await self._ring.find(secret)
        except StoreError as error:
            return _json(503, {"error": str(error)})
        if key is None:
            return _unknown("this key is not valid, or was revoked")
        # For the change log.
        request.scope["extensions"]["irons"]["key"] = key
        return None


def _by_segments(app: ASGIApp) -> ASGIApp:
    """Route by the segments of the path as it came: an encoded slash is a part of a name and separates nothing.

    Slashes in front are one: a client whose API URL ends with a slash sends two.
    """

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        raw = scope["raw_path"].decode("ascii")
        # Decoded once here and once where the name is used.
        path = unquote(_KEPT.sub(lambda found: f"%25{found[1]}", f"/{raw.lstrip('/')}"))
        await app({**scope, "path": path}, receive, send)

    return routed


def _endpoint(plane: Plane, routes: dict[str, ApiRoute]) -> _Endpoint:
    async def endpoint(request: Request) -> Response:
        # Starlette serves HEAD wherever there is GET.
        route = routes["GET" if request.method == "HEAD" else request.method]
        try:
            host, port = request.scope.get("server") or ("", None)
            if route.owner_only and port is not None:
                raise HttpError(403, _OWNER_ONLY)
            about = request.scope["extensions"]["irons"]
            gate = RoleGate(plane, route, caller_of(about.get("key"), remote=port is not None))
            gate.check_role()
            names = await gate.path({name: unquote(value) for name, value in request.path_params.items()})
            query = await gate.query(read_query(route, request.query_params.multi_items()))
            body = await gate.body(await _body(request, route))
            owned = await gate.owned()
            call = ApiCall(plane, names, query, body, "" if port is None else host, about["left"], owned)
            found = await route.handler(call)
            if isinstance(found, ApiText):
                return Response(found.text, route.status, {"content-type": route.media})
            answer = found if isinstance(found, ApiAnswer) else ApiAnswer(route.status, found)
            answer = answer._replace(body=await gate.answer(answer.body, owned))
        except StoreError as error:
            raise unready(str(error)) from error
        except ClientDisconnect:
            return Response(status_code=400)
        columns = answer.body.get("columns") or {"": ()}
        if max(len(answer.body.get("events", ())), len(next(iter(columns.values())))) > _LARGE:
            # Other requests have their turns in between.
            return await asyncio.to_thread(_json, answer.status, answer.body)
        return _json(answer.status, answer.body)

    return endpoint


async def _body(request: Request, route: ApiRoute) -> dict[str, Any]:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_BYTES:
            raise HttpError(413, f"the body is larger than {MOST_BYTES} bytes")
    if route.body is None:
        return {}
    try:
        value = json.loads(bytes(data), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise bad(f"the body is not JSON: {error}") from None
    check(route.body, value)
    return dict(value)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


async def _not_served(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    text = {
        404: f"there is nothing at {request.url.path[:200]}",
        405: f"{request.method[:20]} is not served at {request.url.path[:200]}",
    }.get(error.status_code, error.detail)
    return _json(error.status_code, {"error": text}, error.headers)


async def _refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, HttpError):
        raise error
    return _json(error.status, {"error": error.text, **({"hint": error.hint} if error.hint else {})})


async def _failed(_: Request, error: Exception) -> Response:
    return _json(
        500,
        {
            "error": f"the control plane failed ({type(error).__name__}); see `irons local logs --request {REQUEST.get()}`"
        },
    )


def _unknown(text: str) -> Response:
    return _json(401, {"error": text}, {"www-authenticate": "Bearer"})


def _json(status: int, body: Any, headers: Any = None) -> Response:
    # ASCII only, so that no name or host puts other bytes on the wire.
    return Response(json.dumps(body), status, headers, media_type="application/json")
