"""One non-blocking TCP socket, read and written by one task at a time, and the ways it may end.

Whoever reads or writes without ever having to wait gives way to other cells once the turn is over (`yielding`).

What is waited for is watched until the socket is closed (`watch`), so a socket is closed by its wire alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import select
import socket
import struct
from functools import cache, partial
from itertools import chain, repeat
from math import inf
from pathlib import Path
from time import monotonic

from irons_local.gateway.budget import yielding
from irons_local.gateway.budget.watch import FairLoop, Watch

CHUNK = 65_536
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=12xI4xI")
"""What of it is wanted (linux/sock_diag.h): SK_MEMINFO_SNDBUF and SK_MEMINFO_WMEM_QUEUED."""
_ROOM = _MEMINFO.unpack
_TCP_INFO = struct.Struct("=52xI")
_TCP_CLOSE = 7
NARROW = 128 << 10
WIDE = 4 << 20
"""Where the kernel's buffer of what has come stops to grow (bytes): some 30 MB/s over a way of 100 ms."""
LITTLE = 32 << 10
"""Bytes that come from a socket before it is made narrow: until then the kernel keeps less for it anyway."""
LOOK_BYTES = 256 << 10
"""How often it is looked at whether it is that large, in bytes that are taken from it."""
DELIVERED = (0.01, 0.1, 1.0)
"""Seconds between looks at what a peer has no room for; the last again and again."""
_SO_BUF_LOCK, _SOCK_RCVBUF_LOCK = 72, 2
_SIOCOUTQNSD = 0x894B
_COUNT, _NO_COUNT = struct.Struct("=i").unpack, bytes(4)
_LINGER_NOTHING = struct.pack("ii", 1, 0)


class Wire:
    """A socket.

    Attributes:
        narrowing: both ends of its connection, where they are still to become narrow.
        pace: of the cell in whose context it was made.
        watch: waits for it.
    """

    __slots__ = ("_look", "_loop", "fd", "narrowing", "pace", "sock", "watch")

    def __init__(self, loop: FairLoop, sock: socket.socket) -> None:
        if sock.gettimeout() != 0:
            sock.setblocking(False)
        self._loop = loop
        self._look: float = LOOK_BYTES
        self.narrowing: tuple[Wire, ...] = ()
        self.sock = sock
        self.fd = sock.fileno()
        self.pace = yielding.current()
        self.watch = Watch(loop, self.fd)

    def take(self, size: int = CHUNK) -> bytes | None:
        """Bytes that are there now; `b""` for the end, None for none yet.

        Raises:
            OSError: the connection broke.
        """
        try:
            data = self.sock.recv(size)
        except (BlockingIOError, InterruptedError):
            return None
        self.came(len(data))
        return data

    def peek(self) -> bytes | None:
        """The first byte that is there, which stays there; `b""` for the end, None for none yet.

        Raises:
            OSError: the connection broke.
        """
        try:
            return self.sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return None

    async def recv(self, size: int = CHUNK, *, within: float | None = None) -> bytes:
        """The next bytes; `b""` for the end.

        Args:
            size: bytes at most.
            within: seconds to wait for them; None waits for ever.

        Raises:
            TimeoutError: none came in time.
            OSError: the connection broke.
        """
        if monotonic() >= self.pace.turn.until:
            await self.pace.rest()
        while (data := self.take(size)) is None:
            await self.readable(within)
        return data

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`.

        Raises:
            OSError: the connection broke.
        """
        rest = memoryview(data)
        while rest:
            if monotonic() >= self.pace.turn.until:
                await self.pace.rest()
            try:
                rest = rest[self.sock.send(rest) :]
            except (BlockingIOError, InterruptedError):
                await self.writable()

    def room(self) -> int:
        """How many bytes the kernel has room for; 0 where `writable` would wait (tcp(7), `sk_stream_is_writeable`)."""
        size, queued = _ROOM(self.sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
        free: int = size - queued
        return free if free > 0 and free >= queued >> 1 else 0

    def age(self) -> float:
        """Seconds since its peer sent something, or since it was connected to (tcp(7), `tcpi_last_data_recv`)."""
        told = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        (milliseconds,) = _TCP_INFO.unpack(told)
        return float(milliseconds) / 1000

    @property
    def gone(self) -> bool:
        """True once its peer has reset it, or answers keep-alives no longer (tcp(7), `tcpi_state` is `TCP_CLOSE`).

        That is its state as well once both sides have closed in good order, with bytes of its peer's that may still be unread.
        """
        if self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSE:
            return False
        poll = select.poll()
        poll.register(self.fd, 0)
        return any(found & select.POLLERR for _, found in poll.poll(0))

    def narrow(self) -> None:
        """Let the kernel keep little for it (`NARROW` bytes each way, and as much of its own), however fast its peer is."""
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.sock.setsockopt(socket.SOL_SOCKET, option, NARROW)

    def narrow_later(self, other: Wire) -> None:
        """Make both ends of a connection narrow once `LITTLE` bytes have come from this one: most never send so many."""
        self.narrowing = (self, other)
        self._look = LITTLE

    def came(self, size: int) -> None:
        """So many bytes were taken from it: look now and then at what the kernel keeps of those that come next."""
        self._look -= size
        if self._look > 0:
            return
        if self.narrowing:
            for wire in self.narrowing:
                wire.narrow()
            self.narrowing, self._look = (), inf
        else:
            self._look = inf if self.widen_no_more() else LOOK_BYTES

    def widen_no_more(self) -> bool:
        """Stop the growth of what the kernel keeps of what has come, once it is `WIDE`; True where it has stopped.

        It may have become far more than that in one step, and is made `WIDE` then where `net.core.rmem_max` allows that
        much (socket(7); `SO_BUF_LOCK` is of Linux 5.15, and an older kernel lets it grow where that is not allowed).
        """
        if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < WIDE:
            return False
        if _most_receive_buffer() >= WIDE // 2:
            # The kernel doubles it, and lets it grow no more.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WIDE // 2)
            return True
        with contextlib.suppress(OSError):
            locks = self.sock.getsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK)
            self.sock.setsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK, locks | _SOCK_RCVBUF_LOCK)
        return True

    @property
    def unsent(self) -> int:
        """Bytes that the kernel keeps because its peer has no room for them (tcp(7), linux/sockios.h `SIOCOUTQNSD`)."""
        count: int
        (count,) = _COUNT(fcntl.ioctl(self.fd, _SIOCOUTQNSD, _NO_COUNT))
        return count

    async def delivered(self) -> None:
        """Wait until its peer has had room for all that was sent, for as long as it is there.

        Once it is closed the kernel alone keeps the rest, for minutes, and nothing counts it any more.

        Raises:
            OSError: the connection broke.
        """
        for pause in chain(DELIVERED, repeat(DELIVERED[-1])):
            if not self.unsent or self.gone:
                return
            future: asyncio.Future[None] = self._loop.create_future()
            over = self._loop.deadlines.after(pause, partial(wake, future))
            try:
                await future
            finally:
                over.cancel()
            # What follows is to be charged to the cell.
            await self.pace.rest()

    async def readable(self, within: float | None = None) -> None:
        """Wait until there is something to read.

        Raises:
            TimeoutError: there was nothing within so many seconds.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        late = None if within is None else self._loop.deadlines.after(within, partial(_late, future))
        self.watch.read(partial(wake, future))
        try:
            await future
        except TimeoutError:
            # A deadline passes in anyone's turn; what follows is to be charged to the cell.
            await self.pace.rest()
            raise
        finally:
            self.watch.unread()
            if late is not None:
                late.cancel()

    async def writable(self, within: float | None = None) -> None:
        """Wait until something can be written.

        Raises:
            TimeoutError: nothing could within so many seconds.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        late = None if within is None else self._loop.deadlines.after(within, partial(_late, future))
        self.watch.write(partial(wake, future))
        try:
            await future
        except TimeoutError:
            await self.pace.rest()
            raise
        finally:
            self.watch.unwrite()
            if late is not None:
                late.cancel()

    def finish(self) -> None:
        """Say that nothing more will be sent."""
        try:  # noqa: SIM105 - each connection comes here twice, and `suppress` costs three calls
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone already

    def reset(self) -> None:
        """End the connection so that the other side sees a reset."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
        self._let_go()

    def abandon(self) -> None:
        """End the connection: in good order, or with a reset where its peer has had no room for all that was sent."""
        if self.unsent:
            self.reset()
        else:
            self.close()

    def close(self) -> None:
        """End the connection in good order."""
        self._let_go()

    def _let_go(self) -> None:
        for wire in self.narrowing:
            # Each of them refers to both.
            wire.narrowing = ()
        self.watch.close()
        self.sock.close()


@cache
def _most_receive_buffer() -> int:
    """What may be asked for as a buffer of what has come (bytes); 0 where that is not known."""
    try:
        return int(Path("/proc/sys/net/core/rmem_max").read_bytes())
    except (OSError, ValueError):
        return 0


def wake(future: asyncio.Future[None]) -> None:
    """Have whoever waits go on, unless that is so already."""
    if not future.done():
        future.set_result(None)


def _late(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
