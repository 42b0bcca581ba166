"""Where the API is served: the owner's unix socket always, TCP on request."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from irons_plugins.local import tcp
from irons_plugins.local.control.config import Config
from irons_plugins.local.link import listen

_GRACE = 2
_STRANGERS_AT_ONCE = 200
_BACKLOG = 128


class ListenError(Exception):
    """The API cannot be served as asked; the message is one line."""


class Listener(uvicorn.Server):
    """One listening socket with its application."""

    def __init__(self, config: uvicorn.Config, sock: socket.socket) -> None:
        """Serve `config` on a socket that listens already."""
        super().__init__(config)
        self._sock = sock

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process, which may have several listeners."""
        yield

    @property
    def address(self) -> tuple[str, int] | None:
        """The address and port it listens on; None for a unix socket."""
        if self._sock.family == socket.AF_UNIX:
            return None
        host, port = self._sock.getsockname()[:2]
        return str(host), int(port)

    async def run_until_told(self) -> None:
        """Serve until `should_exit` is set."""
        await self.serve(sockets=[self._sock])


def unix_listener(app: ASGIApp, path: Path) -> Listener:
    """Serve on a unix socket that only its owner can reach, in place of one that was left there.

    Raises:
        ListenError: its directory cannot be written.
    """
    try:
        sock = listen(path)
    except OSError as error:
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}") from error
    return Listener(_config(app), sock)


def tcp_listener(app: ASGIApp, config: Config) -> Listener:
    """Serve on the address that `config` names; the application must ask for keys itself.

    Raises:
        ListenError: the address is none of this machine, or it is not loopback and there is no TLS.
    """
    named = f"{config.host}:{config.port}"
    try:
        address = ipaddress.ip_address(config.host or "")
    except ValueError:
        raise ListenError(f"the API cannot listen on {named}: that is no address") from None
    if bool(config.tls_cert) != bool(config.tls_key):
        raise ListenError("a TLS certificate and its key go together")
    if not address.is_loopback and not config.tls_cert:
        raise ListenError(
            f"{named} can be reached from other machines, and there is no TLS certificate and key"
        )
    served = _config(
        app,
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
        limit_concurrency=_STRANGERS_AT_ONCE,
    )
    try:
        served.load()
    except (OSError, ssl.SSLError) as error:
        raise ListenError(f"the TLS certificate or key cannot be used: {error}") from error
    try:
        sock = tcp.tcp_listener(str(address), config.port or 0, _BACKLOG)
    except OSError as error:
        more = "; choose another port, or end what listens there" if error.errno == errno.EADDRINUSE else ""
        raise ListenError(f"the API cannot listen on {named}: {error.strerror}{more}") from error
    return Listener(served, sock)


def _config(app: ASGIApp, **more: object) -> uvicorn.Config:
    # h11 bounds what it keeps of a request's head; llhttp does not.
    options: dict[str, object] = {
        "http": "h11",
        "ws": "none",
        "lifespan": "off",
        "interface": "asgi3",
        "log_config": None,
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "timeout_keep_alive": 600,
        "timeout_graceful_shutdown": _GRACE,
    }
    return uvicorn.Config(app, **(options | more))  # type: ignore[arg-type]
