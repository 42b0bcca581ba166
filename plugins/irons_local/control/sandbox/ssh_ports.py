"""SSH from outside: one TCP port of this machine per running sandbox, each connection led to the SSH server inside."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain
from math import gcd

from irons_local.linux.tcp import tcp_listener
from irons_local.log.context import REQUEST

_log = logging.getLogger(__name__)

PORTS = range(20_000, 32_000)
"""Below where kernels look for ports of outgoing connections, so that a port stays free while its sandbox is stopped."""

_CHUNK = 256 * 1024
_AT_ONCE = 128
_ROUND = 2
"""Pieces of `_CHUNK` that one door passes on in a round of the loop: a fraction of a millisecond's work."""
_BACKLOG = 64
_LAST_WORDS = 10.0

Inside = Callable[[], Awaitable[socket.socket]]
"""Connects to the SSH server of one sandbox; raises `OSError` where it cannot."""


class NoPortError(Exception):
    """Every port of `PORTS` is taken, or the address is none of this machine."""


class Rounds:
    """Shares the loop with everything else it does: lets so many of its users go on in each round, one after the other.

    Args:
        most: how many.
    """

    def __init__(self, most: int = _ROUND) -> None:
        self._most = most
        self._left = most
        self._resetting = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def turn(self) -> None:
        """Wait until this user is among those that go on."""
        loop = asyncio.get_running_loop()
        if not self._resetting:
            self._resetting = True
            loop.call_soon(self._reset, loop)
        if self._left and not self._waiting:
            self._left -= 1
            return
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        await future

    def _reset(self, loop: asyncio.AbstractEventLoop) -> None:
        """A round is over."""
        self._left = self._most
        self._resetting = bool(self._waiting)
        if self._resetting:
            loop.call_soon(self._reset, loop)
        while self._waiting and self._left:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                self._left -= 1


@dataclass(slots=True)
class _SshPort:
    server: asyncio.Server
    port: int
    guests: set[asyncio.Task[None]] = field(default_factory=set)
    rounds: Rounds = field(default_factory=Rounds)


class SshPorts:
    """The open SSH ports, by sandbox id."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        """Make doors on one address of this machine; none is open yet."""
        self.address = address
        self._doors: dict[str, _SshPort] = {}

    def check(self) -> None:
        """See that ports can be opened at all.

        Raises:
            NoPortError: the address is none of this machine.
        """
        try:
            tcp_listener(self.address, 0, _BACKLOG).close()
        except OSError as error:
            said = error.strerror or error
            raise NoPortError(f"SSH ports cannot be opened on {self.address}: {said}") from error

    async def open(
        self, sandbox: str, inside: Inside, *, port: int | None, taken: Collection[int] = ()
    ) -> int:
        """Listen for a sandbox, on its own port where it is free and on a new one where it is not.

        Args:
            sandbox: the sandbox's id; its door before, if any, is closed.
            inside: how to reach its SSH server.
            port: the port it had; None for one that never had any.
            taken: ports that belong to other sandboxes, open or not.

        Raises:
            NoPortError: there is no free port.
        """
        await self.close(sandbox)
        sock = self._listen(port, taken)
        # Not serving yet, it suspends nowhere: a cancelled call leaves a door that `close` knows, or none.
        server = await asyncio.start_server(
            lambda *ends: self._enter(door, inside, *ends), sock=sock, start_serving=False
        )
        door = self._doors[sandbox] = _SshPort(server, int(sock.getsockname()[1]))
        await server.start_serving()
        if port is not None and door.port != port:
            _log.warning("port %s of %s is taken by another program; using %s", port, sandbox, door.port)
        return door.port

    def port(self, sandbox: str) -> int | None:
        """The port a sandbox is reached at now."""
        door = self._doors.get(sandbox)
        return None if door is None else door.port

    def listening(self) -> list[tuple[str, int]]:
        """The addresses and ports that are open now."""
        return [(self.address, door.port) for door in self._doors.values()]

    async def close(self, sandbox: str) -> None:
        """Close a sandbox's port and end the connections through it; none open is not an error."""
        door = self._doors.pop(sandbox, None)
        if door is None:
            return
        door.server.close()
        for guest in door.guests:
            guest.cancel()
        await asyncio.gather(*door.guests, return_exceptions=True)

    async def close_all(self) -> None:
        """Close every port."""
        for sandbox in tuple(self._doors):
            await self.close(sandbox)

    def _listen(self, port: int | None, taken: Collection[int]) -> socket.socket:
        wanted = [] if port is None else [port]
        for candidate in chain(wanted, (each for each in _in_any_order(PORTS) if each not in taken)):
            with contextlib.suppress(OSError):
                return tcp_listener(self.address, candidate, _BACKLOG)
        raise NoPortError(f"no free port between {PORTS.start} and {PORTS.stop - 1} on {self.address}")

    def _enter(
        self, door: _SshPort, inside: Inside, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Begin a guest, which `close` knows from here on."""
        if len(door.guests) >= _AT_ONCE:
            writer.transport.abort()
            return
        guest = asyncio.get_running_loop().create_task(_guide(reader, writer, inside, door))
        door.guests.add(guest)

        def ended(guest: asyncio.Task[None]) -> None:
            # Also of one that was cancelled before it began.
            writer.transport.abort()
            door.guests.discard(guest)

        guest.add_done_callback(ended)


async def _guide(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inside: Inside, door: _SshPort
) -> None:
    # The request that had the port opened is over.
    REQUEST.set("")
    try:
        await _lead(reader, writer, await inside(), door.rounds)
    except (OSError, asyncio.CancelledError) as error:
        _log.debug("an SSH connection on port %s ended: %s", door.port, error)


def _in_any_order(ports: range) -> Iterator[int]:
    """Each port, from a random one on, in random strides: shuffling all of them would take milliseconds."""
    first = secrets.randbelow(len(ports))
    stride = secrets.choice([each for each in range(1, 200) if gcd(each, len(ports)) == 1])
    return (ports[(first + turn * stride) % len(ports)] for turn in range(len(ports)))


async def _lead(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inner: socket.socket, rounds: Rounds
) -> None:
    try:
        inner_reader, inner_writer = await asyncio.open_connection(sock=inner, limit=_CHUNK)
    except BaseException:
        inner.close()
        raise
    ways = (
        asyncio.create_task(_copy(reader, inner_writer, rounds)),
        asyncio.create_task(_copy(inner_reader, writer, rounds)),
    )
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        # One side has sent everything; the other may still answer, but not for ever.
        await asyncio.wait(ways, timeout=_LAST_WORDS)
    finally:
        for way in ways:
            way.cancel()
        # Before anything is waited for: a guest that is cancelled twice leaves nothing open.
        inner_writer.close()
        writer.close()
        await asyncio.gather(*ways, return_exceptions=True)
    try:
        async with asyncio.timeout(_LAST_WORDS):
            await asyncio.gather(inner_writer.wait_closed(), writer.wait_closed(), return_exceptions=True)
    finally:
        # Does nothing to a connection whose last bytes have left.
        inner_writer.transport.abort()
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rounds: Rounds) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            # Many busy connections would otherwise make each round of the control plane's loop as long as they like.
            await rounds.turn()
            writer.write(data)
            await writer.drain()
        writer.write_eof()
