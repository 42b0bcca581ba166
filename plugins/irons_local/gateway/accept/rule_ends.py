"""The rules of a cell that end by a clock: noticed at their end, whoever else still runs."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

from irons_local import clocks
from irons_local.gateway.shared.cell import Cell

SECOND = 1_000_000
"""Microseconds."""

LOOK = 1.0
"""Seconds between two looks at most: the loop's own clock neither counts a suspend nor sees a step of the wall clock."""

_SOON = 0.001


class RuleEnds:
    """Looks at the rules of one cell for as long as one of them ends by a clock.

    Args:
        loop: whose timers are used.
        cell: whose rules these are.
        over: is called when rules of the policy active have ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, cell: Cell, over: Callable[[], None]) -> None:
        self._loop, self._cell = loop, cell
        self._timer: asyncio.TimerHandle | None = None
        # Not of whichever cell's turn it is.
        self._context = contextvars.copy_context()
        cell.over = over
        self.look()

    def look(self) -> None:
        """Apply what the clocks say now, and look again when the next rule ends."""
        self.close()
        self._cell.renew()
        policy = self._cell.policy
        left = None if policy is None or not policy.is_timed else policy.changes_in(clocks.moment())
        if left is not None:
            wait = min(LOOK, max(_SOON, left / SECOND))
            self._timer = self._loop.call_later(wait, self.look, context=self._context)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
