"""Counts of the audit log that only grow: of events, by verdict and cause, from the first time that they are asked for."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from irons_local import times
from irons_local.control.store.database import Store

SETTLED = 5_000_000
"""Microseconds after which an event's count hardly grows any more: repeats raise it for a second from the refusal."""
_LARGEST = 1 << 62

Counts = Mapping[tuple[str, str], int]
"""Attempts by verdict and cause; an empty cause is none."""


class EventTally:
    """Adds up the events of one control plane; each is read once."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._last: int | None = None
        self._turn = asyncio.Lock()

    async def read(self, store: Store) -> Counts:
        """Return the counts, with the events that are settled by now.

        Raises:
            StoreError: the database failed.
        """
        async with self._turn:
            now = times.now()
            last, fresh = await store.read(partial(_fresh, after=self._last, now=now))
            self._last = last
            self._counts.update(fresh)
            return dict(self._counts)


def _fresh(connection: sqlite3.Connection, after: int | None, now: int) -> tuple[int, Counts]:
    """The last settled event, and what there is up to it; where nothing was read before, only which event is the last."""
    if after is None:
        return int(connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]), {}
    # What is later than now is of a clock that was set back since, and is as old as it is.
    young = "SELECT min(id) FROM events WHERE id > ? AND at BETWEEN ? AND ?"
    first = connection.execute(young, (after, now - SETTLED, now + SETTLED)).fetchone()[0]
    end = _LARGEST if first is None else int(first)
    found = connection.execute(
        "SELECT verdict, coalesce(cause, '') AS cause, sum(count) AS times, max(id) AS last FROM events"
        " WHERE id > ? AND id < ? GROUP BY verdict, cause",
        (after, end),
    ).fetchall()
    counts: Counter[tuple[str, str]] = Counter()
    for row in found:
        counts[row["verdict"], row["cause"]] += int(row["times"])
    return max((int(row["last"]) for row in found), default=after), counts


def backlog(connection: sqlite3.Connection, directory: Path) -> int:
    """Bytes of the gateway's logs that are not taken in yet."""
    taken = {row["run"]: int(row["offset"]) for row in connection.execute("SELECT run, offset FROM runs")}
    left = 0
    for log in directory.glob("*.jsonl"):
        try:
            size = log.lstat().st_size
        except OSError:
            continue  # it was taken in to its end just now
        left += max(0, size - taken.get(log.stem, 0))
    return left
