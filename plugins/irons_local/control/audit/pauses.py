"""Work that no one waits for stops for a moment again and again, so that those who are waited for get the processor."""

from __future__ import annotations

import time
from collections.abc import Callable

WORK = 0.0003
"""Seconds of work after which there is a pause."""
PAUSE = 0.0001
"""Seconds that it lasts, at least."""


class Pauses:
    """Pauses of one thread.

    The scheduler lets a process that has just been woken wait for as long as the turn of the one that is running takes,
    milliseconds as a rule. A gateway that waits behind the intake of its own records keeps a connection waiting.

    Args:
        clock: tells the time, in seconds.
        sleep: waits, for so many seconds.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._until = 0.0

    def begin(self) -> None:
        """Work begins."""
        self._until = self._clock() + WORK

    def __call__(self) -> None:
        """Pause, where it is time."""
        if self._clock() >= self._until:
            self._sleep(PAUSE)
            self._until = self._clock() + WORK
