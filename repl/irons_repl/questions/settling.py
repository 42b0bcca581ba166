"""Tells a list of questions when keys count: it was on the terminal for a while, and no key was waiting to be read."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irons.asking.screen import AskScreen

WAITING = 0.05
"""Seconds until it is looked again whether keys wait to be read."""

Later = Callable[[float, Callable[[], None]], Callable[[], None]]
"""Calls after so many seconds, in the thread that draws; returns what cancels that."""


class Settling:
    """Watches over one list, in the thread that draws it."""

    def __init__(
        self, screen: AskScreen, keys: int, later: Later, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the list, the descriptor of the terminal's keys, and time."""
        self._screen, self._keys, self._later, self._clock = screen, keys, later, clock
        self._cancel = nothing

    def drawn(self) -> None:
        """Note that the picture is on the terminal."""
        now = self._clock()
        self._screen.drawn(now)
        self._look_in(self._screen.settles_in(now))

    def stop(self) -> None:
        """Look no more."""
        self._look_in(None)

    def _look_in(self, seconds: float | None) -> None:
        self._cancel()
        self._cancel = nothing if seconds is None else self._later(seconds, self._look)

    def _look(self) -> None:
        now = self._clock()
        if select.select([self._keys], [], [], 0)[0]:
            # They were typed before this moment, and perhaps before the question.
            self._look_in(WAITING)
            return
        self._screen.settle(now)
        self._look_in(self._screen.settles_in(now))


def nothing() -> None:
    """Cancel nothing."""
