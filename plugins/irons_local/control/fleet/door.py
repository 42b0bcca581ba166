"""The TCP port of the fleet: a bounded number of connections at a time are in their TLS handshake, before which no one is known."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from irons_local.linux.tcp import tcp_socket

_log = logging.getLogger(__name__)
_HANDSHAKES, _HANDSHAKES_EACH = 512, 128
"""Handshakes at the same time, in all and with one address; more connections are closed."""
_HANDSHAKE_WITHIN = 60.0
_QUEUE = 128
_AGAIN_AFTER = 1.0
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors of an address that a name has and this machine, such as one without IPv6, has not: its others do."""

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FleetDoor:
    """See the module; made by `open`.

    Args:
        sockets: listen.
        context: TLS of the server.
        accept: awaited with each connection, which it closes.
    """

    def __init__(self, sockets: list[socket.socket], context: ssl.SSLContext, accept: Accept) -> None:
        self._sockets, self._context, self._accept = sockets, context, accept
        self._shaking: Counter[str] = Counter()
        self._taken: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        for sock in sockets:
            self._spawn(self._take(sock))

    @classmethod
    async def open(cls, host: str, port: int, context: ssl.SSLContext, accept: Accept) -> FleetDoor:
        """Listen on each address of a host.

        Raises:
            OSError: one of them cannot be had.
        """
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sockets: list[socket.socket] = []
        failure: OSError | None = None
        for family, where in dict.fromkeys((family, where) for family, _, _, _, where in found):
            try:
                sockets.append(_listening(family, where))
            except OSError as error:
                failure = error
                if error.errno not in _NOT_HERE:
                    break
        else:
            if sockets:
                return cls(sockets, context, accept)
        for sock in sockets:
            sock.close()
        raise failure or OSError(f"{host} has no address")

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        found = (sock.getsockname() for sock in self._sockets)
        return [(str(host), int(port)) for host, port, *_ in found]

    async def close(self) -> None:
        """Listen no more, and end every connection."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in (*self._sockets, *self._taken):
            sock.close()

    async def _take(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                taken, (address, *_) = await loop.sock_accept(sock)
            except OSError as error:
                # Such as too many open files: those that wait are taken later.
                _log.warning("a connection of the fleet cannot be taken: %s", error)
                await asyncio.sleep(_AGAIN_AFTER)
                continue
            if self._shaking.total() >= _HANDSHAKES or self._shaking[address] >= _HANDSHAKES_EACH:
                taken.close()
            else:
                # Counted here: of many that come at once none has begun its handshake yet.
                self._shaking[address] += 1
                self._taken.add(taken)
                self._spawn(self._meet(taken, address))
            await asyncio.sleep(0)

    async def _meet(self, taken: socket.socket, address: str) -> None:
        self._taken.discard(taken)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, taken, ssl=self._context, ssl_handshake_timeout=_HANDSHAKE_WITHIN
            )
        except OSError as error:
            _log.debug("a connection of the fleet ended in its handshake: %s", error)
            return
        finally:
            one_less(self._shaking, address)
        await self._accept(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a connection of the fleet failed", exc_info=task.exception())


@contextlib.contextmanager
def one_more(counts: Counter[str], of: str) -> Iterator[None]:
    """Count one more of something, for as long as the context lasts."""
    counts[of] += 1
    try:
        yield
    finally:
        one_less(counts, of)


def one_less(counts: Counter[str], of: str) -> None:
    """Count one less of something; what there is none of is not kept."""
    counts[of] -= 1
    if not counts[of]:
        del counts[of]


def _listening(family: socket.AddressFamily, where: Any) -> socket.socket:
    sock = tcp_socket(family, socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(_QUEUE)
    except BaseException:
        sock.close()
        raise
    return sock
