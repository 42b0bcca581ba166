"""What the agent of one cell may ask of a person without a connection: so often in an hour, and so many requests that wait."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

MOST_AN_HOUR = 60
"""Requests in an hour."""
HOUR = 3600.0
MOST_LISTENING = 8
"""Requests that wait for an answer at the same time: half of the cell's connections to `irons.internal`, so that the page can still be read."""


class RequestAllowance:
    """Counts the requests of one cell.

    Args:
        clock: seconds that only ever grow.

    Attributes:
        listening: requests that wait for an answer.
    """

    __slots__ = ("_clock", "_taken", "listening")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken: deque[float] = deque(maxlen=MOST_AN_HOUR)
        self.listening = 0

    def take(self) -> float | None:
        """Take a place in this hour; where there is none, the seconds until there is one."""
        now = self._clock()
        if len(self._taken) == MOST_AN_HOUR and now - self._taken[0] < HOUR:
            return self._taken[0] + HOUR - now
        self._taken.append(now)
        return None

    @property
    def may_listen(self) -> bool:
        """True where another request may wait."""
        return self.listening < MOST_LISTENING
