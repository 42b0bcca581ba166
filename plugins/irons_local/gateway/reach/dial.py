"""Connects from the host to exactly the address that was checked."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from ipaddress import IPv4Address
from typing import Any

from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.streams.stream import Wire
from irons_local.linux.tcp import keep_alive, tcp_socket
from irons_policy.addresses import Address

TIMEOUT = 10.0
STAGGER = 0.25
MOST = 6
NO_ROUTE = "where only a proxy leads out, [local] upstream_proxy names it"


class DialError(Exception):
    """The address was not reached; the message says why, for people."""


async def dial(loop: FairLoop, address: Address, port: int) -> Wire:
    """Open a TCP connection.

    Args:
        loop: the running loop.
        address: numeric, so nothing is resolved.
        port: 1 to 65535.

    Raises:
        DialError: it was not reached.
    """
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    try:
        sock = tcp_socket(family, socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise DialError(_say(error)) from None
    wire = Wire(loop, sock)
    try:
        await _connect(wire, (str(address), port))
        keep_alive(sock)
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


Dial = Callable[[FairLoop, Address, int], Coroutine[Any, Any, Wire]]
"""Connects to one address and port; raises `DialError` where it is not reached."""


async def _connect(wire: Wire, where: tuple[str, int]) -> None:
    code = wire.sock.connect_ex(where)
    if code == errno.EINPROGRESS:
        # Asked again, the kernel says how it went; what is on this machine has answered already.
        code = wire.sock.connect_ex(where)
    if code == errno.EALREADY:
        await wire.writable(TIMEOUT)
        code = wire.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _say(error: OSError) -> str:
    said = (error.strerror or str(error)).lower()
    return f"{said}; {NO_ROUTE}" if error.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH} else said


async def race(
    loop: FairLoop,
    addresses: Sequence[Address],
    port: int,
    before: Callable[[Address], None],
    how: Dial = dial,
    stagger: float = STAGGER,
) -> tuple[Wire, Address]:
    """Connect to the first address that answers, giving each a short start before the next (RFC 8305).

    Args:
        loop: the running loop.
        addresses: checked, in order.
        port: 1 to 65535.
        before: called with each address right before it is dialled; what it raises ends the race.
        how: connects to one address.
        stagger: seconds that each has before the next.

    Raises:
        DialError: none was reached; says why of the first.
    """
    if len(addresses) == 1:
        before(addresses[0])
        return await how(loop, addresses[0], port), addresses[0]
    running: dict[asyncio.Task[Wire], Address] = {}
    waiting = list(addresses[:MOST])
    failed: DialError | None = None
    try:
        while waiting or running:
            if waiting:
                address = waiting.pop(0)
                before(address)
                running[loop.create_task(how(loop, address, port))] = address
            done, _ = await asyncio.wait(
                running, timeout=stagger if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                address = running.pop(task)
                try:
                    return task.result(), address
                except DialError as error:
                    failed = failed or error
    finally:
        for task in running:
            task.add_done_callback(_drop)
            task.cancel()
    raise failed or DialError("it has no address")


def _drop(task: asyncio.Task[Wire]) -> None:
    """A connection that lost the race."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
