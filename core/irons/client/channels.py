"""What a call of the API travels over: an httpx client, or a unix socket, which needs no HTTP library."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from irons.client.backends import client, load_httpx
from irons.client.receiving import BoundedReader, OpenStreams, Reply
from irons.record import NamedTuple
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
        """Close the connections, also of requests on their way; what is sent after this keeps none."""
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
        self._opened: _Opened | None = None
        self._opening = threading.Lock()
        self._closed = False
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
        opened = self._taken(connect)
        timeout = load_httpx().Timeout(read, connect=connect)
        try:
            return self._receiver.send(
                opened.client,
                method,
                path,
                body=body,
                params=params,
                headers={REQUEST_HEADER: request_id, FACE_HEADER: face},
                timeout=timeout,
                whole=whole,
                streams=opened.streams,
            )
        finally:
            # A thread may have been about to send when another one closed the channel.
            if self._closed:
                opened.close()

    def close(self) -> None:
        """Close the connections; see `Channel.close`."""
        with self._opening:
            self._closed = True
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _taken(self, connect: float) -> _Opened:
        """The client that is kept; one for a single request where the channel is closed."""
        with self._opening:
            if self._opened is not None:
                return self._opened
            opened = _Opened(client(self._backend, self._settings), OpenStreams())
            if not self._closed:
                self._opened = opened
            if self._backend.transport is None:
                _look_up(opened.client, connect, self._settings.env)
            return opened


class _Opened(NamedTuple):
    """A client, and the streams of its connections."""

    client: httpx.Client
    streams: OpenStreams

    def close(self) -> None:
        """Close the client, and the connections that it does not know of yet, or not any more."""
        self.client.close()
        self.streams.close()


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
