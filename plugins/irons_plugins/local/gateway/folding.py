"""Refusals on their way to the log: repeats of one within a second become one event with a count.

The first of them is written at once. Its count is written again each time it has doubled, and when its second is
over, so a kill loses no event and at most the end of a count. A cell that makes more different events than there
is room for gets one event that says how many were left out.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from irons_plugins.local.gateway.journal import Entry, Journal, JournalError, microseconds

WINDOW = 1.0
DISTINCT = 200
REMEMBERED = 50
FULL = "more different refusals at once than the log has room for"


class Refusal(NamedTuple):
    """Why something was refused, as the log says it.

    Attributes:
        host: a canonical name or address.
        port: 0 where the protocol has none.
        protocol: http, tls, tcp, udp, icmp or the number of another.
        mode: the mode in force, or None where no policy was known.
        rule: the pattern that decided, or None.
        reason: one line for the log.
        inside: one line for the sandbox, which learns no address the host resolved; None where it may read `reason`.
    """

    host: str
    port: int
    protocol: str
    mode: str | None
    rule: str | None
    reason: str
    inside: str | None = None

    def record(self) -> dict[str, Any]:
        """The fields of a verdict record."""
        return {
            "host": self.host,
            "port": self.port,
            "protocol": self.protocol,
            "allowed": False,
            "verdict": "blocked",
            "mode": self.mode,
            "rule": self.rule,
            "reason": self.reason,
        }


@dataclass(slots=True)
class _Fold:
    entry: Entry
    refusal: Refusal
    until: float
    count: int = 1
    written: int = 1


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
    open: dict[Refusal, _Fold] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


class Folder:
    """Writes refusals, folded.

    Args:
        loop: whose clock counts the seconds.
        journal: where they are written.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
        self._loop = loop
        self._journal = journal
        self._cells: dict[str, Folds] = {}
        self._timer: asyncio.TimerHandle | None = None

    def of(self, cell: str) -> Folds:
        """What is folded and remembered of one cell."""
        return self._cells.setdefault(cell, Folds())

    def refused(self, cell: str, refusal: Refusal, count: int = 1) -> None:
        """Take note of a refusal, or of several alike."""
        folds = self.of(cell)
        fold = folds.open.get(refusal)
        if fold is not None:
            fold.count += count
            if fold.count >= 2 * fold.written:
                self._write(fold)
        elif len(folds.open) >= DISTINCT:
            folds.left_out[FULL] += count
        else:
            self._begin(cell, folds, refusal, count)

    def remember(self, cell: str, refusal: Refusal, command: str | None, count: int = 1) -> None:
        """Keep a refusal for `http://irons.internal/`."""
        recent = self.of(cell).recent
        if recent and recent[-1].refusal == refusal:
            recent[-1].count += count
            recent[-1].at = microseconds()
        else:
            recent.append(Remembered(microseconds(), refusal, command, count))

    def dropped(self, cell: str, count: int, reason: str) -> None:
        """Take note of attempts that were refused and cannot be told one by one."""
        self.of(cell).left_out[reason] += count
        self._wake()

    def forget(self, cell: str) -> None:
        """The cell is gone: write what is open."""
        folds = self._cells.pop(cell, None)
        if folds is not None:
            self._close(cell, folds, float("inf"))

    def flush(self) -> None:
        """Write every count and end every fold."""
        for cell, folds in self._cells.items():
            self._close(cell, folds, float("inf"))

    def _begin(self, cell: str, folds: Folds, refusal: Refusal, count: int) -> None:
        entry = self._journal.entry(cell)
        fold = _Fold(entry, refusal, self._loop.time() + WINDOW, count)
        folds.open[refusal] = fold
        self._write(fold)
        self._wake()

    def _write(self, fold: _Fold) -> None:
        fold.written = fold.count
        try:
            fold.entry.event(**fold.refusal.record(), count=fold.count)
        except JournalError:
            # It was refused whether or not it can be told; what is missing is counted.
            self._journal.lost += 1

    def _wake(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(WINDOW, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        more = False
        for cell, folds in self._cells.items():
            self._close(cell, folds, now)
            more = more or bool(folds.open)
        if more:
            self._wake()

    def _close(self, cell: str, folds: Folds, now: float) -> None:
        for refusal in [key for key, fold in folds.open.items() if fold.until <= now]:
            fold = folds.open.pop(refusal)
            if fold.count != fold.written:
                self._write(fold)
            fold.entry.done()
        for reason, count in folds.left_out.items():
            try:
                self._journal.dropped(cell, count, reason)
            except JournalError:
                self._journal.lost += count
        folds.left_out.clear()
