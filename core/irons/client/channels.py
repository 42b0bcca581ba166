"""What a call of the API travels over: an httpx client, or a unix socket, which needs no HTTP library."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from irons.client.backends import client, load_httpx
from irons.client.receiving import BoundedReader, Reply
from irons.wire_values import FACE_HEADER, REQUEST_HEADER

if TYPE_CHECKING:
    import httpx

    from irons.hookspecs import Backend
    from irons.settings.settings import Settings


class Channel(Protocol):
    """Sends requests. Threads may share one."""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What `send` raises where no answer came."""
        ...

    @property
    def final(self) -> tuple[type[Exception], ...]:
        """Those after which sending again is of no use."""
        ...

    @property
    def unsent(self) -> tuple[type[Exception], ...]:
        """Those after which nothing has reached the server."""
        ...

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None,
        params: Mapping[str, str] | None,
        request_id: str,
        face: str,
        read: float,
        connect: float,
        whole: float,
    ) -> Reply:
        """Send a request and return its answer.

        Args:
            method: GET, POST, PUT, DELETE.
            path: Relative to the API's URL, its segments percent-encoded.
            body: Sent as JSON.
            params: The query.
            request_id: By which the server's logs name it.
            face: What this client is, for the server's change log.
            read: Seconds for each step of sending and reading.
            connect: Seconds for connecting.
            whole: Seconds from now on within which the whole answer must have come.

        Raises:
            ApiError: The answer is too long, or packed though that was not asked for.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def channel(backend: Backend, settings: Settings) -> Channel:
    """Return the channel to a backend; nothing is opened yet."""
    if backend.socket:
        from irons.client.unix_channel import UnixChannel

        return UnixChannel(backend, settings)
    return HttpxChannel(backend, settings)


class HttpxChannel:
    """One httpx client with its connections kept alive."""

    def __init__(self, backend: Backend, settings: Settings) -> None:
        """Take where requests go."""
        loaded = load_httpx()
        self.failures: tuple[type[Exception], ...] = (
            loaded.HTTPError,
            loaded.InvalidURL,
            loaded.StreamError,
            loaded.CookieConflict,
        )
        self.final: tuple[type[Exception], ...] = (
            loaded.ReadTimeout,
            loaded.InvalidURL,
            loaded.UnsupportedProtocol,
        )
        self.unsent: tuple[type[Exception], ...] = (loaded.ConnectError, loaded.ConnectTimeout)
        self._backend = backend
        self._settings = settings
        self._opened: httpx.Client | None = None
        self._opening = threading.Lock()
        self._receiver = BoundedReader()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None,
        params: Mapping[str, str] | None,
        request_id: str,
        face: str,
        read: float,
        connect: float,
        whole: float,
    ) -> Reply:
        """Send a request; see `Channel.send`."""
        with self._opening:
            if self._opened is None:
                self._opened = client(self._backend, self._settings)
                if self._backend.transport is None:
                    _look_up(self._opened, connect, self._settings.env)
            opened = self._opened
        timeout = load_httpx().Timeout(read, connect=connect)
        return self._receiver.send(
            opened,
            method,
            path,
            body=body,
            params=params,
            headers={REQUEST_HEADER: request_id, FACE_HEADER: face},
            timeout=timeout,
            whole=whole,
        )

    def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def _look_up(opened: httpx.Client, seconds: float, env: Mapping[str, str]) -> None:
    """Look the server's name up once with a limit: the system's resolver knows none, and httpx does not bound it.

    Raises:
        httpx.ConnectTimeout: There was no answer in time. One that says no is left to the connection to tell.
    """
    host = opened.base_url.host
    through_proxy = any(key.lower() in ("https_proxy", "all_proxy") and env[key] for key in env)
    if through_proxy or not any(character.isalpha() for character in host) or ":" in host:
        return
    looked_up = threading.Event()

    def ask() -> None:
        with suppress(OSError, UnicodeError):
            socket.getaddrinfo(host, opened.base_url.port)
        looked_up.set()

    threading.Thread(target=ask, name="irons-resolver", daemon=True).start()
    if not looked_up.wait(seconds):
        raise load_httpx().ConnectTimeout("its name was not resolved in time")
