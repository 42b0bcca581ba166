"""Waiting for one socket, whose place in the selector is kept from one wait to the next.

A connection waits for the same two sockets again and again. The loop's `add_reader` and `remove_reader` would tell
the kernel of each wait twice; a `Watch` tells it once, and takes the socket out only when something comes that
nothing waits for. So what is watched lasts until the socket is closed, and must be closed first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from irons_local.gateway.budget.deadlines import Deadlines
from irons_local.gateway.budget.fairness import FairSelector

_READ, _WRITE = 1, 2
"""`selectors.EVENT_READ` and `selectors.EVENT_WRITE`."""

_Handles = tuple[asyncio.Handle | None, asyncio.Handle | None]

_NONE: _Handles = (None, None)


class FairLoop(asyncio.SelectorEventLoop):
    """The gateway's loop.

    Args:
        selector: shares it among cells.

    Attributes:
        fair: the selector.
        deadlines: of waits.
    """

    def __init__(self, selector: FairSelector | None = None) -> None:
        self.fair = FairSelector() if selector is None else selector
        super().__init__(self.fair)
        self.deadlines = Deadlines(self)


class Watch:
    """One socket; belongs to the cell in whose context it is first waited for.

    Args:
        loop: the loop that waits.
        fd: the socket's descriptor.
    """

    __slots__ = ("_events", "_fair", "_fd", "_handles", "_loop", "_reader", "_writer")

    def __init__(self, loop: FairLoop, fd: int) -> None:
        self._loop = loop
        self._fair = loop.fair
        self._fd = fd
        self._events = 0
        self._handles: _Handles = _NONE
        self._reader: Callable[[], None] | None = None
        self._writer: Callable[[], None] | None = None

    def read(self, ready: Callable[[], None]) -> None:
        """Have `ready` called in every turn in which there is something to read."""
        self._reader = ready
        if not self._events & _READ:
            self._ask(self._events | _READ)

    def write(self, ready: Callable[[], None]) -> None:
        """Have `ready` called in every turn in which something can be written."""
        self._writer = ready
        if not self._events & _WRITE:
            self._ask(self._events | _WRITE)

    def unread(self) -> None:
        """Wait no more for something to read; the kernel is asked to only if something arrives."""
        self._reader = None

    def deafen(self) -> None:
        """Wait no more for something to read, where there is something in all likelihood."""
        self._reader = None
        if self._events & _READ:
            self._ask(self._events & ~_READ)

    def unwrite(self) -> None:
        """Wait no more until something can be written, which is nearly always."""
        self._writer = None
        if self._events & _WRITE:
            self._ask(self._events & ~_WRITE)

    def close(self) -> None:
        """Wait no more at all: the descriptor is closed right afterwards."""
        self._reader = self._writer = None
        self._handles = _NONE
        if self._events:
            self._events = 0
            self._fair.forget(self._fd)

    def _ask(self, events: int) -> None:
        reader, writer = self._handles
        # Most sockets are waited for in one way alone.
        if reader is None and events & _READ:
            self._handles = asyncio.Handle(self._readable, (), self._loop), writer
        elif writer is None and events & _WRITE:
            self._handles = reader, asyncio.Handle(self._writable, (), self._loop)
        if not self._events:
            self._fair.register(self._fd, events, self._handles)
        elif events:
            self._fair.modify(self._fd, events, self._handles)
        else:
            self._fair.unregister(self._fd)
        self._events = events

    def _readable(self) -> None:
        if self._reader is not None:
            self._reader()
        elif self._events & _READ:
            self._ask(self._events & ~_READ)

    def _writable(self) -> None:
        if self._writer is not None:
            self._writer()
        elif self._events & _WRITE:
            self._ask(self._events & ~_WRITE)
