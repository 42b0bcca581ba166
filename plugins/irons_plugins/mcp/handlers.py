"""Handler of `mcp`: tools for an agent, until its client goes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from irons.command import Result
from irons.errors import IronsError, UsageError
from irons.settings.loopback import is_loopback
from irons_plugins.mcp import KEY_VARIABLE

if TYPE_CHECKING:
    from irons.context import Context

FACE = "mcp"
SHORTEST_KEY = 16
"""Characters of a key."""

_LARGEST_FILE = 4096
_ADDRESS = re.compile(r"(?:(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):)?([0-9]{1,5})")


def mcp(
    ctx: Context,
    *,
    sandboxes: tuple[str, ...],
    allow: tuple[str, ...],
    keep: bool,
    may_change_egress: bool,
    http: str | None,
    key_file: str | None,
) -> Result:
    """Serve tools on stdin and stdout, or over HTTP, until the client goes or a signal comes.

    Raises:
        UsageError: The address, the key or a pattern is invalid.
        NotFound: A sandbox of `--sandbox` is not there.
        IronsError: The package `mcp` is not installed, or the address is taken.
    """
    if find_spec("mcp") is None:
        raise IronsError(
            "irons mcp needs the package mcp, which is not installed",
            hint=f"{sys.executable} -m pip install 'irons[mcp]'",
        )
    place = None if http is None else _address(http)
    if place is None and key_file is not None:
        raise UsageError("--key-file is for --http")
    key = "" if place is None else _key(ctx, key_file)
    from irons.client.api import open_api
    from irons_plugins.box.calls import Library
    from irons_plugins.mcp.doing import AgentSandboxes
    from irons_plugins.mcp.serving import http_app, serve_http, serve_stdio, server_of
    from irons_plugins.mcp.tools import offered
    from irons_plugins.ssh.ending.telling import ended_by
    from irons_plugins.ssh.openssh.subprocess import ended_by_signals

    with open_api(ctx.settings, ctx.host) as api:
        library = Library(ctx.settings, ctx.host, api, FACE)
        for name in sandboxes:
            api.status(name)
        agents = AgentSandboxes(library, sandboxes, allow, keep=keep)
        server = server_of(agents, offered(may_change_egress=may_change_egress), ctx.host.tree)
        number = 0
        try:
            if place is None:
                number = asyncio.run(serve_stdio(server))
            else:
                with _listening(*place) as sock:
                    host = sock.getsockname()[0]
                    _announce(ctx, host, sock.getsockname()[1])
                    # The server passes a signal on when it has ended.
                    with ended_by_signals():
                        asyncio.run(serve_http(http_app(server, key, host), sock))
        except KeyboardInterrupt as error:
            raise ended_by(error) from None
        finally:
            agents.close()
    if number:
        # A thread still reads stdin, and only the signal itself ends that.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return Result(None)


def _announce(ctx: Context, host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    ctx.progress(f"MCP over HTTP at http://{shown}:{port}/mcp; Ctrl-C ends it")
    if not is_loopback(host):
        ctx.progress("the key is sent in clear text: put a proxy with TLS in front of it")


def _address(text: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[2]) > 65535:
        raise UsageError(f"--http takes PORT or HOST:PORT, not {text!r}")
    return (found[1] or "127.0.0.1").strip("[]"), int(found[2])


def _listening(host: str, port: int) -> socket.socket:
    """Return a listener whose connections send small packets at once: asyncio and they take that from its protocol."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen()
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise IronsError(f"{host}:{port} can't be listened on: {error.strerror or error}") from None
    return sock


def _key(ctx: Context, path: str | None) -> str:
    """Return the key of HTTP clients: a file's, or the variable's. It is never in an argument list."""
    if path is None:
        key = ctx.settings.env.get(KEY_VARIABLE, "")
        source = KEY_VARIABLE
    else:
        try:
            with Path(path).open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise UsageError(f"{path} can be read by others", hint=f"chmod 600 {path}")
                key = file.read(_LARGEST_FILE).decode("ascii", "replace").strip()
        except OSError as error:
            raise UsageError(f"the key file {path} can't be read: {error.strerror}") from None
        source = path
    if len(key) < SHORTEST_KEY or not (key.isascii() and key.isprintable() and " " not in key):
        raise UsageError(
            f"HTTP clients need a key of at least {SHORTEST_KEY} printable ASCII characters in --key-file or {KEY_VARIABLE}"
            + (f"; that of {source} is not one" if key else ""),
            hint="openssl rand -hex 32 makes one",
        )
    return key
