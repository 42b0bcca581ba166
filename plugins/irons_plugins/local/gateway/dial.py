"""Connects from the host to exactly the address that was checked."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from ipaddress import IPv4Address, IPv6Address

from irons_plugins.local.gateway.wire import Wire

TIMEOUT = 10.0
KEEPALIVE_IDLE = 60


class DialError(Exception):
    """The address was not reached; the message says why, for people."""


async def dial(
    loop: asyncio.AbstractEventLoop, address: IPv4Address | IPv6Address, port: int, timeout: float = TIMEOUT
) -> Wire:
    """Open a TCP connection.

    Args:
        loop: the running loop.
        address: numeric, so nothing is resolved.
        port: 1 to 65535.
        timeout: seconds.

    Raises:
        DialError: it was not reached.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise DialError(_say(error)) from None
    wire = Wire(loop, sock)
    try:
        async with asyncio.timeout(timeout):
            await _connect(wire, (str(address), port))
        tune(sock)
    except TimeoutError:
        wire.close()
        raise DialError("no answer in time") from None
    except OSError as error:
        wire.close()
        raise DialError(_say(error)) from None
    except BaseException:
        wire.close()
        raise
    return wire


def tune(sock: socket.socket) -> None:
    """Small packets at once; a peer that vanished is noticed within minutes."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)


async def _connect(wire: Wire, where: tuple[str, int]) -> None:
    code = wire.sock.connect_ex(where)
    if code == errno.EINPROGRESS:
        await wire.writable()
        code = wire.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _say(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
