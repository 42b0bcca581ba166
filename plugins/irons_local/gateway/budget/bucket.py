"""How often something may be done: so many times a second on average, and more in one go."""

from __future__ import annotations

import time
from collections.abc import Callable


class Bucket:
    """A token bucket.

    Args:
        rate: tokens per second.
        burst: how many it holds.
        clock: tells the time, in seconds.
    """

    __slots__ = ("_burst", "_clock", "_level", "_rate", "_when")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._clock = clock
        self._when = clock()

    def take(self) -> bool:
        """Take a token; False where there is none."""
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._when) * self._rate)
        self._when = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
