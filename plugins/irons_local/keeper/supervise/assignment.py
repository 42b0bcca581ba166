"""Which worker serves which cell: the one with the fewest, for the cell's life, unless its worker dies again and again.

No one can tell from outside which cell made a worker die. So every cell that was served at two deaths of its worker
within a minute is put into a worker of its own: whichever it was dies alone from then on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping

DEATHS_WITHIN = 60.0
"""Seconds between two deaths that put a cell into a worker of its own."""
QUIET_AFTER = 600.0
"""Seconds after the last death for which a cell is given a worker of its own."""
MOST_ALONE = 32
"""Workers of one cell each; beyond, such cells share them."""


class Assignment:
    """Which worker serves which cell.

    Args:
        count: how many workers there are for all cells, numbered from 0.
        clock: seconds, from anywhere.
    """

    def __init__(self, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = count
        self._clock = clock
        self._served: dict[str, list[int]] = {}
        self._deaths: dict[str, float] = {}
        self._suspected: dict[str, float] = {}

    def of(self, cell: str) -> int:
        """The worker of a cell, which is given one here if it has none."""
        served = self._served.get(cell)
        if served is None:
            suspect = self._clock() < self._suspected.get(cell, 0.0)
            served = self._served[cell] = [self._apart() if suspect else self._fewest(range(self.count))]
        return served[-1]

    def served(self, cell: str) -> Collection[int]:
        """Every worker that serves or served a cell in its life."""
        return tuple(self._served.get(cell, ()))

    def learn(self, cell: str, served: Collection[int]) -> None:
        """Take up what an earlier keeper had decided; the last worker is the one of now."""
        self._served[cell] = list(served)

    def release(self, cell: str) -> int | None:
        """A cell is gone; gives the worker that had it."""
        served = self._served.pop(cell, None)
        self._forget()
        return served[-1] if served else None

    def cells(self, worker: int) -> list[str]:
        """The cells of a worker."""
        return [cell for cell, served in self._served.items() if served[-1] == worker]

    def died(self, worker: int) -> Mapping[str, int]:
        """A worker died while it served; gives the cells that have another one now, and which."""
        now = self._clock()
        moved: dict[str, int] = {}
        for cell in self.cells(worker):
            again = now - self._deaths.get(cell, float("-inf")) <= DEATHS_WITHIN
            self._deaths[cell] = now
            if again or cell in self._suspected:
                self._suspected[cell] = now + QUIET_AFTER
            if again and worker < self.count:
                moved[cell] = self._apart()
                self._served[cell].append(moved[cell])
        return moved

    def state(self) -> Mapping[str, Collection[int]]:
        """What `learn` takes, for every cell."""
        return {cell: tuple(served) for cell, served in self._served.items()}

    def _apart(self) -> int:
        """A worker beyond those that are for all."""
        taken = {served[-1] for served in self._served.values()}
        beyond = range(self.count, self.count + MOST_ALONE)
        return next((number for number in beyond if number not in taken), None) or self._fewest(beyond)

    def _fewest(self, workers: Collection[int]) -> int:
        cells = Counter(served[-1] for served in self._served.values())
        return min(workers, key=lambda number: (cells[number], number))

    def _forget(self) -> None:
        """Forget deaths and suspicions that count no more: their cells may be gone for good."""
        now = self._clock()
        self._deaths = {cell: at for cell, at in self._deaths.items() if now - at <= DEATHS_WITHIN}
        self._suspected = {cell: until for cell, until in self._suspected.items() if until > now}
