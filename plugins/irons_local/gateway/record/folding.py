"""Refusals on their way to the log: repeats of one within a second become one event with a count.

The first of them is written at once. A repeat that has a record of its own, as a connection has, gets a short one that
says which event it belongs to; any other is counted next to the log (see `tally`) before it is answered. So a kill loses
nothing. The log has the count each time it has doubled, and when its second is over. A cell that makes more different
events than there is room for gets one event that says how many were left out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from irons_local.gateway.record.journal import Entry, Journal, JournalError
from irons_local.gateway.record.refusal import Refusal
from irons_local.times import now
from irons_policy.causes import Cause, Outcome
from irons_policy.event import record

WINDOW = 1.0
DISTINCT = 200
REMEMBERED = 50


class Dropped(NamedTuple):
    """Why attempts were refused that are not reported one by one."""

    reason: str
    cause: Cause


FULL = Dropped("more different refusals at once than the log has room for", Cause.CAP)
UNWRITTEN = Dropped("refused while the audit log could not be written", Cause.JOURNAL)


@dataclass(slots=True)
class _Fold:
    entry: Entry
    what: Refusal | Dropped
    until: float
    count: int
    written: int = 0

    def write(self) -> None:
        """Raises `JournalError` where it cannot be."""
        if isinstance(self.what, Dropped):
            _drop(self.entry, self.what, self.count)
        else:
            self.entry.event(**self.what.record(), **record(count=self.count))
        self.written = self.count


@dataclass(slots=True)
class Remembered:
    """A refusal as `http://irons.internal/` tells it."""

    at: int
    refusal: Refusal
    command: str | None
    count: int


@dataclass(slots=True)
class Folds:
    """What is being folded of one cell."""

    recent: deque[Remembered] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    open: dict[Refusal | Dropped, _Fold] = field(default_factory=dict)
    unwritten: int = 0


class Folder:
    """Writes refusals, folded.

    Args:
        loop: whose clock counts the seconds.
        journal: where they are written.
        missing: called when the number of refusals that the log has no room for has changed, and again each second
            while there are any.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        missing: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._missing = missing
        self._cells: dict[str, Folds] = {}
        self._timer: asyncio.TimerHandle | None = None

    def of(self, cell: str) -> Folds:
        """What is folded and remembered of one cell."""
        return self._cells.setdefault(cell, Folds())

    def refused(self, cell: str, refusal: Refusal, entry: Entry | None = None) -> None:
        """Take note of a refusal.

        Args:
            cell: whose it is.
            refusal: why.
            entry: the attempt that is refused, where it has a record already; the folder's from now on.
        """
        folds = self.of(cell)
        full = refusal not in folds.open and len(folds.open) >= DISTINCT
        self._take(cell, folds, FULL if full else refusal, 1, entry)

    def remember(self, cell: str, refusal: Refusal, command: str | None, count: int = 1) -> None:
        """Keep a refusal for `http://irons.internal/`."""
        recent = self.of(cell).recent
        if recent and recent[-1].refusal == refusal:
            recent[-1].count += count
            recent[-1].at = now()
        else:
            recent.append(Remembered(now(), refusal, command, count))

    def dropped(self, cell: str, count: int, why: Dropped) -> None:
        """Take note of attempts that were refused and cannot be logged one by one."""
        self._take(cell, self.of(cell), why, count, None)

    def unwritten(self, cell: str) -> None:
        """Take note of an attempt that was refused because the log could not be written: logged once it can be."""
        self._journal.lost += 1
        self.of(cell).unwritten += 1
        self._missing()
        self._wake()

    def unrecorded(self) -> Mapping[str, int]:
        """How many refusals of each cell are not in the log, because it could not be written."""
        return {cell: folds.unwritten for cell, folds in self._cells.items() if folds.unwritten}

    def forget(self, cell: str) -> None:
        """The cell is gone: write what is open."""
        folds = self._cells.pop(cell, None)
        if folds is not None:
            self._close(cell, folds, float("inf"))

    def flush(self) -> None:
        """Write every count and end every fold."""
        for cell, folds in self._cells.items():
            self._close(cell, folds, float("inf"))

    def _take(
        self, cell: str, folds: Folds, what: Refusal | Dropped, count: int, entry: Entry | None
    ) -> None:
        fold = folds.open.get(what)
        if fold is not None and entry is not None and entry.run is not fold.entry.run:
            # The log went on in another file, which must be readable by itself.
            self._end(cell, folds.open.pop(what))
            fold = None
        if fold is None:
            entry = entry or self._journal.entry(cell)
            fold = folds.open[what] = _Fold(entry, what, self._loop.time() + WINDOW, count)
            self._write(cell, fold)
            self._wake()
            return
        fold.count += count
        if entry is not None:
            try:
                entry.fold(fold.entry, fold.count)
                fold.written = fold.count
            except JournalError:
                # It was refused whether or not that can be logged; its opening record shows it.
                fold.count -= count
            return
        fold.entry.count(fold.count)
        if fold.count >= 2 * fold.written:
            self._write(cell, fold)

    def _write(self, cell: str, fold: _Fold) -> None:
        try:
            fold.write()
        except JournalError:
            # What is missing is counted, and logged when there is room.
            missing, fold.written = fold.count - fold.written, fold.count
            self._journal.lost += missing
            self.of(cell).unwritten += missing
            self._missing()

    def _wake(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(WINDOW, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        more = False
        for cell, folds in self._cells.items():
            self._close(cell, folds, now)
            more = more or bool(folds.open) or bool(folds.unwritten)
        if more:
            self._wake()

    def _close(self, cell: str, folds: Folds, now: float) -> None:
        for what in [key for key, fold in folds.open.items() if fold.until <= now]:
            self._end(cell, folds.open.pop(what))
        if folds.unwritten:
            entry = self._journal.entry(cell)
            try:
                _drop(entry, UNWRITTEN, folds.unwritten)
                folds.unwritten = 0
            except JournalError:
                return
            finally:
                entry.done()
                self._missing()

    def _end(self, cell: str, fold: _Fold) -> None:
        if fold.count != fold.written:
            self._write(cell, fold)
        fold.entry.done()


def _drop(entry: Entry, why: Dropped, count: int) -> None:
    entry.dropped(**record(reason=why.reason, cause=why.cause, outcome=Outcome.REFUSED, count=count))
