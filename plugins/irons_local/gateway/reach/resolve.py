"""Asks the host's resolver, in threads of its own: `getaddrinfo(3)` blocks, and one cell's slow names are its own affair.

The host's hosts file is looked through first. Names are asked absolute, so no search domain of the host applies. A
cell has few threads at once and waits for its own; an answer that comes too late is thrown away.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import NamedTuple

from irons_local.gateway.reach.hostsfile import HostsFile
from irons_policy.addresses import Address

PER_CELL = 8
QUEUE_PER_CELL = 128
TIMEOUT = 10.0
REMEMBER = 2.0
REMEMBERED = 1024

Lookup = Callable[[str], list[Address]]


class ResolveError(Exception):
    """A name could not be resolved; the message is for people, and says why."""


class _Kept(NamedTuple):
    until: float
    addresses: tuple[Address, ...]


def lookup(name: str) -> list[Address]:
    """The addresses of an absolute name, by the host's resolver, in its order.

    Raises:
        ResolveError: it has none, or no one could say.
    """
    try:
        found = socket.getaddrinfo(name.encode("ascii") + b".", None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ResolveError(reason) from None
    # A scoped address (fe80::1%eth0) is link-local, which is never dialled.
    texts = [str(entry[4][0]).partition("%")[0] for entry in found]
    return list(dict.fromkeys(ip_address(text) for text in texts))


class HostLookup:
    """Looks a name up as programs of the host do: in its hosts file, then by its resolver.

    Args:
        hosts: the hosts file.
        ask: the resolver.
    """

    def __init__(self, hosts: HostsFile | None = None, ask: Lookup = lookup) -> None:
        self._hosts = hosts or HostsFile()
        self._ask = ask

    def __call__(self, name: str) -> list[Address]:
        """The addresses of a canonical name, in order.

        Raises:
            ResolveError: it has none, or the resolver did not answer.
        """
        return self._hosts.addresses(name) or self._ask(name)


class Resolver:
    """Resolves names for cells, fairly.

    Args:
        loop: where answers are awaited.
        look: asks the host; blocks, and runs in threads.
        timeout: seconds after which an answer is no longer awaited.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, look: Lookup | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._loop = loop
        self._look = look or HostLookup()
        self._timeout = timeout
        self._busy: dict[str, int] = {}
        self._queues: dict[str, deque[tuple[str, asyncio.Future[list[Address]]]]] = {}
        self._asking: dict[tuple[str, str], asyncio.Future[list[Address]]] = {}
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def resolve(self, cell: str, name: str) -> tuple[Address, ...]:
        """The addresses of a name.

        Args:
            cell: who asks; each cell has its own turn, and its own short memory.
            name: canonical.

        Raises:
            ResolveError: there is no answer, or none in time.
        """
        known = self.known(cell, name)
        if known is not None:
            return known
        key = (cell, name)
        future = self._asking.get(key)
        if future is None:
            future = self._ask(key)
        try:
            async with asyncio.timeout(self._timeout):
                found = tuple(await asyncio.shield(future))
        except TimeoutError:
            raise ResolveError("the resolver did not answer in time") from None
        self._keep(key, found)
        return found

    def known(self, cell: str, name: str) -> tuple[Address, ...] | None:
        """The addresses of a name that was resolved for the cell a moment ago; no one is asked."""
        kept = self._kept.get((cell, name))
        return kept.addresses if kept is not None and kept.until > self._loop.time() else None

    @property
    def threads(self) -> int:
        """How many questions are under way."""
        return sum(self._busy.values())

    def _keep(self, key: tuple[str, str], found: tuple[Address, ...]) -> None:
        self._kept[key] = _Kept(self._loop.time() + REMEMBER, found)
        self._kept.move_to_end(key)
        while len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)

    def _ask(self, key: tuple[str, str]) -> asyncio.Future[list[Address]]:
        cell, name = key
        queue = self._queues.setdefault(cell, deque())
        if len(queue) >= QUEUE_PER_CELL:
            raise ResolveError("too many names are being resolved at once")
        future: asyncio.Future[list[Address]] = self._loop.create_future()
        future.add_done_callback(_retrieved)
        self._asking[key] = future
        queue.append((name, future))
        self._next(cell)
        return future

    def _next(self, cell: str) -> None:
        queue = self._queues.get(cell)
        while queue and self._busy.get(cell, 0) < PER_CELL:
            name, future = queue.popleft()
            self._busy[cell] = self._busy.get(cell, 0) + 1
            # A daemon thread: a resolver that hangs must not keep the process from ending.
            thread = threading.Thread(
                target=self._thread, args=(cell, name, future), name="resolve", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                self._done(cell, name, future, ResolveError("there are no threads left"))
        if not queue:
            self._queues.pop(cell, None)

    def _thread(self, cell: str, name: str, future: asyncio.Future[list[Address]]) -> None:
        answer: list[Address] | ResolveError
        try:
            answer = self._look(name)
        except ResolveError as error:
            answer = error
        except Exception as error:  # noqa: BLE001 (a turn that were never given back would be lost to the cell for good)
            answer = ResolveError(f"the host's resolver answered nonsense ({type(error).__name__})")
        try:
            self._loop.call_soon_threadsafe(self._done, cell, name, future, answer)
        except RuntimeError:
            return  # the loop is closed: no one waits any more

    def _done(
        self,
        cell: str,
        name: str,
        future: asyncio.Future[list[Address]],
        answer: list[Address] | ResolveError,
    ) -> None:
        left = self._busy.pop(cell) - 1
        if left:
            self._busy[cell] = left
        self._asking.pop((cell, name), None)
        if not future.done():
            if isinstance(answer, ResolveError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._next(cell)


def _retrieved(future: asyncio.Future[list[Address]]) -> None:
    """No one may be waiting any more; an unread failure needs no report."""
    if not future.cancelled():
        future.exception()
