"""Connections of a cell that has as many as it may: they wait for room, at most so long, and others wait behind them.

A few are accepted, recorded and not read, so that one to `irons.internal` is seen among them; the rest stays in the
kernel's queue. One for which no room has come in time is reset, the oldest first, with its reason in the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irons_local.gateway.attempt.attempt import Attempt

PATIENCE = 10.0
"""Seconds that a connection waits for room."""
MOST = 64
"""Connections of a cell that are accepted while they wait."""


class Waiting:
    """The connections of one cell that wait.

    Args:
        loop: the loop that runs them.
        full: says why there is no room, or None where there is.
        leave: is called when no more are to be accepted.
        take: is called when they are again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        full: Callable[[], str | None],
        leave: Callable[[], None],
        take: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._full = full
        self._leave = leave
        self._take = take
        self._row: deque[tuple[float, Attempt]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._holding = False

    @property
    def holding(self) -> bool:
        """True from `leave` to `take`."""
        return self._holding

    def __len__(self) -> int:
        return len(self._row)

    def add(self, attempt: Attempt, age: float) -> None:
        """Let a connection wait; it has its record now.

        Args:
            attempt: the connection, which has not begun.
            age: seconds that it has waited in the kernel's queue already.
        """
        if not attempt.open():
            return
        self._row.append((self._loop.time() + PATIENCE - age, attempt))
        if self._timer is None:
            self._wake()
        if len(self._row) >= MOST and not self._holding:
            self._holding = True
            self._leave()

    def admit(self) -> None:
        """Let those begin for which there is room now, the oldest first."""
        if not self._row:
            return
        while self._row and self._full() is None:
            self._row.popleft()[1].begin()
        self._moved()

    def close(self) -> None:
        """End all that wait."""
        while self._row:
            self._row.popleft()[1].turn_away("its sandbox is gone, or its gateway ends")
        self._moved()

    def _late(self) -> None:
        self._timer = None
        reason = self._full()
        if reason is None:
            self.admit()
            return
        now = self._loop.time()
        while self._row and self._row[0][0] <= now:
            self._row.popleft()[1].turn_away(reason)
        self._moved()

    def _moved(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._row:
            self._wake()
        if self._holding and len(self._row) < MOST:
            self._holding = False
            self._take()

    def _wake(self) -> None:
        self._timer = self._loop.call_at(self._row[0][0], self._late)
