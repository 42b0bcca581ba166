"""Where the API is served: the owner's unix socket always, TCP on request."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import ssl
from collections.abc import Hashable
from pathlib import Path
from typing import cast

from starlette.types import ASGIApp

from irons_local.config.server import ServerConfig
from irons_local.control.http.conversation import HttpConnection
from irons_local.control.http.gate import Gate
from irons_local.control.http.phases import TimesAllowed
from irons_local.ipc.unixsock import listen, peer_of
from irons_local.linux import tcp

_log = logging.getLogger(__name__)

TIMES = TimesAllowed()
_GRACE = 2.0
_BACKLOG = 1024
_ACCEPTS = 8
"""Connections taken per turn of the event loop: few, so that what they send is read before many more come."""

_NO_ROOM_PAUSE = 0.005
_NO_FILES_PAUSE = 0.1
_NETWORK6 = 64
"""Bits of an IPv6 address that tell one subscriber from another."""


class ListenError(Exception):
    """The API cannot be served as asked; the message is one line."""


class Listener:
    """One listening socket with its application."""

    def __init__(
        self,
        app: ASGIApp,
        sock: socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        open_to_all: bool = False,
    ) -> None:
        """Serve an application on a socket that listens already.

        Args:
            app: the application.
            sock: the socket.
            tls: with a certificate, where TLS is spoken.
            open_to_all: the application asks for no key.
        """
        self._app = app
        self._sock = sock
        self._tls = tls
        self._open_to_all = open_to_all
        self._times = TIMES
        self._gate = Gate()
        self._told = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._next: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None

    @property
    def address(self) -> tuple[str, int] | None:
        """The address and port it listens on; None for a unix socket."""
        if self._sock.family == socket.AF_UNIX:
            return None
        host, port = self._sock.getsockname()[:2]
        return str(host), int(port)

    def stop(self) -> None:
        """Tell it to stop."""
        self._told.set()

    async def run_until_told(self) -> None:
        """Serve until `stop`; then answer what was asked, for two seconds at most."""
        loop = asyncio.get_running_loop()
        self._sock.setblocking(False)
        loop.add_reader(self._sock, self._accept)
        try:
            await self._told.wait()
        finally:
            loop.remove_reader(self._sock)
            if self._pause is not None:
                self._pause.cancel()
            for sock in (self._sock, self._next):
                if sock is not None:
                    sock.close()
            await self._end()

    async def _end(self) -> None:
        guests = [cast("HttpConnection", guest) for guest in self._gate.guests]
        for guest in guests:
            guest.shut_down()
        left = {*self._tasks, *self._opening}
        if left:
            _, left = await asyncio.wait(left, timeout=_GRACE)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for guest in guests:
            guest.abort()

    def _accept(self) -> None:
        self._gate.turn()
        for _ in range(_ACCEPTS):
            client, self._next = self._next or self._taken(), None
            if client is None:
                return
            try:
                peer = _peer_of(client)
            except OSError:
                client.close()
                continue
            if not self._gate.has_room(peer):
                self._next = client
                self._wait(_NO_ROOM_PAUSE)
                return
            self._serve(client, peer)

    def _taken(self) -> socket.socket | None:
        try:
            return self._sock.accept()[0]
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return None
        except OSError as error:
            _log.warning("a connection to the API waits: %s", error.strerror)
            self._wait(_NO_FILES_PAUSE)
            return None

    def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock)
        self._pause = loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        asyncio.get_running_loop().add_reader(self._sock, self._accept)
        # The one that waits was accepted already: the listening socket does not tell of it again.
        self._accept()

    def _serve(self, client: socket.socket, peer: Hashable) -> None:
        conversation = HttpConnection(
            self._app, self._gate, self._times, self._tasks, open_to_all=self._open_to_all
        )
        self._gate.enter(conversation, peer)
        task = conversation.opening = asyncio.create_task(self._open(client, conversation))
        self._opening.add(task)

        def opened(done: asyncio.Task[None]) -> None:
            self._opening.discard(done)
            if done.cancelled() or done.exception() is not None:
                self._gate.leave(conversation)
                client.close()

        task.add_done_callback(opened)

    async def _open(self, client: socket.socket, conversation: HttpConnection) -> None:
        """Make a connection of an accepted socket; with TLS that takes a handshake."""
        tls = self._tls
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: conversation,
            client,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else self._times.handshake,
            ssl_shutdown_timeout=None if tls is None else self._times.leaving,
        )


def unix_listener(app: ASGIApp, path: Path) -> Listener:
    """Serve on a unix socket that only its owner can reach, in place of one that was left there.

    Raises:
        ListenError: its directory cannot be written.
    """
    try:
        sock = listen(path, _BACKLOG)
    except OSError as error:
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}") from error
    return Listener(app, sock, open_to_all=True)


def tcp_listener(app: ASGIApp, config: ServerConfig) -> Listener:
    """Serve on the address that `config` names; the application must ask for keys itself.

    Raises:
        ListenError: the address is none of this machine, or it is not loopback and there is no TLS.
    """
    named = f"{config.host}:{config.port}"
    try:
        address = ipaddress.ip_address(config.host or "")
    except ValueError:
        raise ListenError(f"the API cannot listen on {named}: it is not an address") from None
    if bool(config.tls_cert) != bool(config.tls_key):
        raise ListenError("a TLS certificate and its key go together")
    if not address.is_loopback and not config.tls_cert:
        raise ListenError(
            f"{named} can be reached from other machines, and there is no TLS certificate and key"
        )
    context = _tls(config.tls_cert, config.tls_key) if config.tls_cert else None
    try:
        sock = tcp.tcp_listener(str(address), config.port or 0, _BACKLOG)
    except OSError as error:
        more = "; choose another port, or end what listens there" if error.errno == errno.EADDRINUSE else ""
        raise ListenError(f"the API cannot listen on {named}: {error.strerror}{more}") from error
    return Listener(app, sock, tls=context)


def _tls(certificate: str, key: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ListenError(f"the TLS certificate or key cannot be used: {error}") from error
    return context


def _peer_of(client: socket.socket) -> Hashable:
    """Who a connection counts for: a user of this machine, an IPv4 address, or an IPv6 network.

    Raises:
        OSError: it has ended already.
    """
    if client.family == socket.AF_UNIX:
        return peer_of(client).uid
    address = ipaddress.ip_address(client.getpeername()[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None or address.version == 4:
        return mapped or address
    return ipaddress.ip_network((address, _NETWORK6), strict=False)
