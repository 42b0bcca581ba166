"""Whose turn it is: the loop's selector, which hands out what is ready cell by cell, by the time each has taken.

What a callback registers with the loop belongs to the cell in whose context it runs (`of`). Of all that is ready,
one turn serves one cell: the one that has used the least time so far, a few of its sockets at once, in turn too. The time until its turn has come to rest is charged to it; a cell that had nothing to do has saved nothing up.
So with many cells at work each gets its share of the loop, however many connections one of them has; and as long as
one cell is alone it is hardly held up. Start-time fair queueing, with measured costs.
"""

from __future__ import annotations

import contextvars
import math
import select
import selectors
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from irons_local.gateway.budget.yielding import Pace, Slice, keep

ALONE = 64
"""Sockets served in one turn while only one cell is at work."""
CROWDED = 3
"""The same while others are too: another one's turn comes the sooner."""
LATELY = 0.02
"""Seconds after the turn went from one cell to another in which both count as at work."""
TURN = 0.002
"""Seconds that a turn may take while other cells are at work (see `yielding`)."""
TURN_ALONE = 0.008
"""The same while none is: what another one that wakes may have to wait."""
SETTLING = 8
"""Rounds of the loop that may pass before what a turn has set off is taken for endless."""

_MASKS = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)
"""What epoll(7) is asked for, by `selectors.EVENT_READ` (1) and `selectors.EVENT_WRITE` (2)."""

_OWNER: contextvars.ContextVar[str | None] = contextvars.ContextVar("owner", default=None)


def of(cell: str, pace: Pace | None = None) -> contextvars.Context:
    """A context in which everything that is registered belongs to a cell, and keeps its pace."""
    context = contextvars.copy_context()
    context.run(_OWNER.set, cell)
    if pace is not None:
        context.run(keep, pace)
    return context


class _Share:
    """What one cell has used, and an epoll of its own with its sockets, which the kernel hands out in turn."""

    __slots__ = ("epoll", "name", "used", "watched")

    def __init__(self, name: str) -> None:
        self.name = name
        self.used = 0.0
        self.watched = 0
        self.epoll = select.epoll()


class _Watched(Mapping[Any, selectors.SelectorKey]):
    """Keys by descriptor, or by any object that has one."""

    def __init__(self, keys: Mapping[int, selectors.SelectorKey]) -> None:
        self._keys = keys

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[_fd(fileobj)]

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class FairSelector(selectors.BaseSelector):
    """A selector for `asyncio.SelectorEventLoop`, of nested epoll(7)s: one for each cell, in one that the loop waits on.

    Args:
        spent: tells how long this thread has computed, in seconds, so that no one pays for what else the machine does.
            It is a system call, so it is asked only while more than one cell is at work.
        clock: tells the time, in seconds.

    Attributes:
        turn: the turn that is being served.
    """

    def __init__(
        self, spent: Callable[[], float] = time.thread_time, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._spent = spent
        self._clock = clock
        self._epoll = select.epoll()
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._watched = _Watched(self._keys)
        self._shares: dict[str, _Share] = {}
        self._owners: dict[int, _Share] = {}
        self._cells: dict[int, _Share] = {}
        self._serving: _Share | None = None
        self._last: _Share | None = None
        self._changed = -math.inf
        self._begun = 0.0
        self._contended = False
        self._virtual = 0.0
        self._settling = 0
        self.turn = Slice()

    @property
    def crowded(self) -> bool:
        """True where more than one cell is at work."""
        return self._clock() - self._changed < LATELY

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a descriptor, for the cell in whose context this is called.

        Raises:
            KeyError: it is watched already.
            OSError: it cannot be watched.
        """
        fd = fileobj if isinstance(fileobj, int) else _fd(fileobj)
        if fd in self._keys:
            raise KeyError(f"{fd} is registered already")
        name = _OWNER.get()
        if name is None:
            self._epoll.register(fd, _MASKS[events])
        else:
            share = self._shares.get(name) or self._share(name)
            share.epoll.register(fd, _MASKS[events])
            share.watched += 1
            self._owners[fd] = share
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Watch it no more.

        Raises:
            KeyError: it is not watched.
        """
        fd = fileobj if isinstance(fileobj, int) else _fd(fileobj)
        key = self._keys.pop(fd)
        share = self._owners.pop(fd, None)
        try:  # noqa: SIM105 - each connection comes here, and `suppress` costs three calls
            (self._epoll if share is None else share.epoll).unregister(fd)
        except OSError:
            pass  # it was closed first
        if share is not None:
            share.watched -= 1
            if not share.watched:
                self._drop(share)
        return key

    def forget(self, fd: int) -> None:
        """Watch a descriptor no more that is closed right afterwards, which takes it out of its epoll(7) by itself.

        Raises:
            KeyError: it is not watched.
        """
        del self._keys[fd]
        share = self._owners.pop(fd, None)
        if share is not None:
            share.watched -= 1
            if not share.watched:
                self._drop(share)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch it for something else; it stays whose it was.

        Raises:
            KeyError: it is not watched.
        """
        fd = fileobj if isinstance(fileobj, int) else _fd(fileobj)
        key = self._keys[fd]
        if events != key.events:
            share = self._owners.get(fd)
            (self._epoll if share is None else share.epoll).modify(fd, _MASKS[events])
        key = self._keys[fd] = key._replace(events=events, data=data)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready of the cell whose turn it is, and of what belongs to no cell.

        Args:
            timeout: seconds to wait; 0 where the loop has something to do in any case.
        """
        if timeout is not None and timeout <= 0 and self._settling > 0:
            # What the turn has set off belongs to it, and is charged once it is over.
            self._settling -= 1
            return []
        if self._serving is not None:
            self._charge(self._serving)
            self._serving = None
        patience = -1.0 if timeout is None else math.ceil(max(timeout, 0.0) * 1e3) * 1e-3
        found: list[tuple[selectors.SelectorKey, int]] = []
        share: _Share | None = None
        cells = 0
        try:
            ready = self._epoll.poll(patience, len(self._keys) + 1)
        except InterruptedError:
            ready = []
        for fd, mask in ready:
            cell = self._cells.get(fd)
            if cell is None:
                self._add(found, fd, mask)
                continue
            cells += 1
            # What was not used is not saved up.
            cell.used = max(cell.used, self._virtual)
            if share is None or cell.used < share.used:
                share = cell
        self._settling = SETTLING
        now = self._clock()
        if share is not None:
            if share is not self._last:
                self._changed = now if self._last is not None else self._changed
                self._last = share
            crowded = now - self._changed < LATELY
            self._contended = crowded or cells > 1
            self._begun = self._spent() if self._contended else now
            self._serve(share, found, CROWDED if crowded else ALONE)
        self.turn.until = now + (TURN if now - self._changed < LATELY else TURN_ALONE)
        return found

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """What is watched, by descriptor or by what has one: from Python 3.13 on, asyncio looks there for a socket."""
        return self._watched

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """What is watched of a descriptor.

        Raises:
            KeyError: nothing.
        """
        return self._keys[_fd(fileobj)]

    def close(self) -> None:
        """Watch nothing any more."""
        for share in list(self._shares.values()):
            self._drop(share)
        self._epoll.close()
        self._keys.clear()
        self._owners.clear()

    def _charge(self, share: _Share) -> None:
        """Add the turn that is over to what its cell has used."""
        if self._contended:
            share.used += self._spent() - self._begun
        else:
            # It counts only against a cell that has woken in it. What passed beyond its end went to other processes.
            share.used += min(self._clock() - self._begun, TURN_ALONE)

    def _serve(self, share: _Share, found: list[tuple[selectors.SelectorKey, int]], most: int) -> None:
        self._serving = share
        self._virtual = max(self._virtual, share.used)
        for fd, mask in share.epoll.poll(0, most):
            self._add(found, fd, mask)

    def _add(self, found: list[tuple[selectors.SelectorKey, int]], fd: int, mask: int) -> None:
        key = self._keys.get(fd)
        if key is None:
            return
        # An error or a hang-up is news to whoever waits for anything.
        events = (selectors.EVENT_READ if mask & ~select.EPOLLOUT else 0) | (
            selectors.EVENT_WRITE if mask & ~select.EPOLLIN else 0
        )
        if events & key.events:
            found.append((key, events & key.events))

    def _share(self, name: str) -> _Share:
        share = self._shares[name] = _Share(name)
        self._cells[share.epoll.fileno()] = share
        self._epoll.register(share.epoll.fileno(), select.EPOLLIN)
        return share

    def _drop(self, share: _Share) -> None:
        """A cell's own sockets are always watched: one of which nothing is has gone."""
        del self._shares[share.name]
        del self._cells[share.epoll.fileno()]
        self._epoll.unregister(share.epoll.fileno())
        share.epoll.close()


def _fd(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())
