"""Which workers of the gateway ever served which cell: what a worker's log says of any other cell is not believed."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping


class Serving:
    """Pairs of cell and worker, in the store; a pair that is not there may still be, until the keeper was asked."""

    def __init__(self) -> None:
        self._known: set[tuple[str, int]] = set()
        self._refuted: set[tuple[str, int]] = set()

    def fresh(self, served: Mapping[str, Collection[int]]) -> list[tuple[str, int]]:
        """The pairs of these that `note` has not noted yet."""
        pairs = [(cell, worker) for cell, workers in served.items() for worker in workers]
        return [pair for pair in pairs if pair not in self._known]

    def note(self, connection: sqlite3.Connection, pairs: Collection[tuple[str, int]]) -> None:
        """Write pairs down, before the worker is asked anything of the cell."""
        connection.executemany("INSERT OR IGNORE INTO served (cell, worker) VALUES (?, ?)", pairs)
        self._known.update(pairs)

    def serves(self, cell: str, worker: int) -> bool:
        """Tell whether this pair was noted in this process's life, or asked for."""
        return (cell, worker) in self._known

    def refute(self, cell: str, worker: int) -> None:
        """The keeper says that the worker never had that cell."""
        self._refuted.add((cell, worker))

    def owns(self, connection: sqlite3.Connection, cell: str, worker: int) -> bool | None:
        """Whether a worker serves or served a cell; None where the keeper has to be asked."""
        pair = (cell, worker)
        if pair in self._known:
            return True
        sql = "SELECT 1 FROM served WHERE cell = ? AND worker = ?"
        if connection.execute(sql, pair).fetchone() is not None:
            self._known.add(pair)
            return True
        return False if pair in self._refuted else None
