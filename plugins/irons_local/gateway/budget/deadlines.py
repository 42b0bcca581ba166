"""Deadlines of many waits of the same few lengths: one timer of the loop for each length, not one for each wait.

Nearly every wait is over long before its deadline, and a timer of the loop's own for each would be put into its heap
and taken out again in vain. Waits of one length end in the order in which they began, so a row of them is sorted.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable


class Deadline:
    """One wait's deadline."""

    __slots__ = ("_row", "callback", "when")

    def __init__(self, when: float, callback: Callable[[], None], row: dict[Deadline, None]) -> None:
        self.when = when
        self.callback = callback
        self._row = row

    def cancel(self) -> None:
        """Do not call anything; no matter whether it has passed."""
        self._row.pop(self, None)


class Deadlines:
    """The deadlines of one loop.

    Args:
        loop: the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rows: dict[float, dict[Deadline, None]] = {}
        self._armed: set[float] = set()
        # Not of whichever cell's wait comes first.
        self._context = contextvars.copy_context()

    def after(self, seconds: float, callback: Callable[[], None]) -> Deadline:
        """Have something called unless it is cancelled first.

        Args:
            seconds: one of a few lengths; each that was ever used is remembered.
            callback: called from the loop, in no cell's context.
        """
        row = self._rows.get(seconds)
        if row is None:
            row = self._rows[seconds] = {}
        deadline = Deadline(self._loop.time() + seconds, callback, row)
        row[deadline] = None
        if seconds not in self._armed:
            self._arm(seconds, deadline.when)
        return deadline

    def _arm(self, seconds: float, when: float) -> None:
        self._armed.add(seconds)
        self._loop.call_at(when, self._pass, seconds, context=self._context)

    def _pass(self, seconds: float) -> None:
        self._armed.discard(seconds)
        row, now = self._rows[seconds], self._loop.time()
        passed: list[Deadline] = []
        for deadline in row:
            if deadline.when > now:
                self._arm(seconds, deadline.when)
                break
            passed.append(deadline)
        for deadline in passed:
            # One that was called before may have cancelled it.
            if deadline in row:
                del row[deadline]
                deadline.callback()
