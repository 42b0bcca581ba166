"""The id of a request: taken from its header or made here, logged with everything done for it, and sent back."""

from __future__ import annotations

import logging
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from irons_local.log.context import HEADER, REQUEST, request_id

_log = logging.getLogger(__name__)
_READS = ("GET", "HEAD")


def traced(app: ASGIApp) -> ASGIApp:
    """Return `app` with an id for each request; of what it answers, method, path and status are logged."""

    async def with_id(scope: Scope, receive: Receive, send: Send) -> None:
        given = next((value for name, value in scope["headers"] if name == HEADER), b"")
        known = request_id(given.decode("ascii", "replace")) or secrets.token_hex(8)
        # Each exchange is a task of its own, so this ends with it; tasks that it begins keep it.
        REQUEST.set(known)
        began = time.monotonic()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (HEADER, known.encode())]}
                level = logging.DEBUG if scope["method"] in _READS else logging.INFO
                # Without the query, which may hold what was searched for.
                path, took = scope["path"][:200], (time.monotonic() - began) * 1000
                _log.log(level, "%s %s: %d in %.0f ms", scope["method"][:20], path, message["status"], took)
            await send(message)

        await app(scope, receive, send_with_id)

    return with_id
