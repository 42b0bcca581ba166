"""One request and its answer, as the application sees them (ASGI 3)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from starlette.types import ASGIApp, Message, Scope

_log = logging.getLogger(__name__)

Headers = Iterable[tuple[bytes, bytes]]


class HttpChannel(Protocol):
    """The connection that an exchange is on."""

    def welcome_body(self) -> None:
        """Tell the peer to send the body, where it waits for that."""

    def read_on(self) -> None:
        """Take more of the body."""

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send the answer, which is whole, and go on to the next request."""

    def refuse(self, status: int, text: str) -> None:
        """Answer in the server's own name and end the connection."""

    def abort(self) -> None:
        """End the connection at once."""


class HttpExchange:
    """Hands the body to the application as it comes, and its answer to the connection in one piece."""

    def __init__(self, line: HttpChannel, scope: Scope) -> None:
        """Make one for a request whose head is there."""
        self._line = line
        self._scope = scope
        self._body = bytearray()
        self._whole = False
        self._taken = False
        self._over = False
        self._news = asyncio.Event()
        self._start: Message | None = None

    def take(self, data: bytes) -> int:
        """Keep a part of the body; gives how many bytes the application has not taken yet."""
        self._body += data
        self._news.set()
        return len(self._body)

    def take_end(self) -> None:
        """Note that the body is whole."""
        self._whole = True
        self._news.set()

    def end(self) -> None:
        """Note that no answer is wanted any more."""
        self._over = True
        self._news.set()

    async def run(self, app: ASGIApp) -> None:
        """Have the application answer; where it fails, the peer gets an answer too."""
        try:
            await app(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._line.abort()
            raise
        except Exception:  # noqa: BLE001 (the application may raise anything, and the peer waits)
            _log.exception("a request failed: %s %s", self._scope["method"], self._scope["path"][:200])
        if not self._over:
            self._line.refuse(500, "the control plane failed; see `irons local logs`")

    async def _receive(self) -> Message:
        while not (self._over or self._body or (self._whole and not self._taken)):
            self._line.welcome_body()
            self._line.read_on()
            self._news.clear()
            await self._news.wait()
        if self._over:
            return {"type": "http.disconnect"}
        # The end of the body is reported once; a second call waits for the end of the exchange.
        self._taken = self._whole
        body = bytes(self._body)
        self._body.clear()
        return {"type": "http.request", "body": body, "more_body": not self._whole}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        elif self._start is not None and not self._over:
            if message.get("more_body"):
                raise ValueError("an answer has only one body")
            self.end()
            self._line.answer(self._start["status"], self._start["headers"], message.get("body", b""))
