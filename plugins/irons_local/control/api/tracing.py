"""Where a request comes from: its id, logged with everything done for it, and its origin, recorded with every change.

The id is taken from its header or made here, and sent back.
"""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from irons.wire_values import FACE_HEADER
from irons_local.control.store.changelog import ORIGIN, Origin
from irons_local.control.store.keys import StoredKey
from irons_local.log.context import HEADER, REQUEST, request_id

_FACE_HEADER = FACE_HEADER.lower().encode()

_FACE = re.compile(r"[0-9A-Za-z][0-9A-Za-z .:@/_-]{0,63}", re.ASCII)
_log = logging.getLogger(__name__)
_READS = ("GET", "HEAD")


def traced(app: ASGIApp) -> ASGIApp:
    """Return `app` with an id for each request; of what it answers, method, path and status are logged."""

    async def with_id(scope: Scope, receive: Receive, send: Send) -> None:
        given = next((value for name, value in scope["headers"] if name == HEADER), b"")
        known = request_id(given.decode("ascii", "replace")) or secrets.token_hex(8)
        # Each exchange is a task of its own, so this ends with it; tasks that it begins keep it.
        REQUEST.set(known)
        ORIGIN.set(_origin(scope, known))
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


def _origin(scope: Scope, request: str) -> Origin:
    about = scope.get("extensions", {}).get("irons", {})
    claimed = next((value for name, value in scope["headers"] if name == _FACE_HEADER), b"").decode(
        "ascii", "replace"
    )
    face = claimed if _FACE.fullmatch(claimed) else ""
    key: StoredKey | None = about.get("key")
    if key is not None:
        return Origin(key_id=key.id, key_label=key.label, face=face, request=request, role=key.role)
    return Origin(uid=about.get("uid"), face=face, request=request, pid=about.get("pid"))
