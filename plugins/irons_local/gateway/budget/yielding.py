"""How long one turn of a cell may take, and how a task that has used that time up gives way to other cells.

A task that reads and writes without ever having to wait would keep the loop for itself. So each read and each write
looks at the clock first (`Wire.recv`, `Wire.send`), and once the turn is over it waits for the cell's next one. It
waits by a descriptor of the cell's own that is always ready: the fair selector hands it out like any other socket of
the cell, and charges to the cell what follows. What is on the loop's ready list, as after `asyncio.sleep(0)`, would run
in every round instead, no matter what its cell has used already.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import os
from collections import deque
from time import monotonic


class Slice:
    """The turn that the loop is serving.

    Attributes:
        until: when it should be over, by `time.monotonic`.
    """

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = math.inf


class Pace:
    """The tasks of one cell that have used up a turn; one of them goes on in each turn that follows.

    Args:
        turn: the turn that the loop is serving, whichever cell has it.

    Attributes:
        turn: the same.
    """

    __slots__ = ("_closed", "_fd", "_waiting", "turn")

    def __init__(self, turn: Slice) -> None:
        self.turn = turn
        self._fd = -1
        self._closed = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def over(self) -> bool:
        """True once the turn has taken its time."""
        return monotonic() >= self.turn.until

    async def rest(self) -> None:
        """Wait for a turn of the cell's that is this task's."""
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        if self._fd < 0:
            self._fd = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        if not self._waiting:
            loop.add_reader(self._fd, self._next, loop)
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        await future

    def close(self) -> None:
        """Let go of the descriptor; whoever waits goes on."""
        self._closed = True
        if self._waiting:
            self._waiting[0].get_loop().remove_reader(self._fd)
        while self._waiting:
            _wake(self._waiting.popleft())
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        # Those that were cancelled while they waited have no turn to use.
        while self._waiting and not _wake(self._waiting.popleft()):
            pass
        if not self._waiting:
            loop.remove_reader(self._fd)


def _wake(future: asyncio.Future[None]) -> bool:
    if future.done():
        return False
    future.set_result(None)
    return True


_PACE: contextvars.ContextVar[Pace | None] = contextvars.ContextVar("pace", default=None)


def current() -> Pace:
    """The pace of the cell in whose context this is called; what belongs to no cell is never over it."""
    return _PACE.get() or Pace(Slice())


def keep(pace: Pace) -> None:
    """Let everything in this context keep a cell's pace."""
    _PACE.set(pace)
