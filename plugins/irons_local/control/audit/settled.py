"""Which events may still change: connections that are open, and refusals whose repeats are still being counted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Final

SETTLES_AFTER: Final = 10_000_000
"""Microseconds after which the count of a refusal is final: the gateway folds repeats for a second, and writes them at once."""

_OF = (
    "SELECT event FROM attempts WHERE event IN (SELECT value FROM json_each(:ids)) AND NOT "
    "(coalesce(json_extract(opened, '$.whole'), 0) AND coalesce(json_extract(opened, '$.whole_at'), 0) < :before)"
)


def unsettled(connection: sqlite3.Connection, ids: Iterable[int], looked_at: int | None) -> list[int]:
    """Return those of some events that may still change, in order.

    Args:
        connection: the store's.
        ids: the events.
        looked_at: when the last look at the gateway's logs began that took in all of them, microseconds since 1970; None
            where the last look did not, so that the count of no refusal is known to be final.
    """
    before = 0 if looked_at is None else looked_at - SETTLES_AFTER
    # In one pass: an index would cost each event that is taken in.
    rows = connection.execute(_OF, {"ids": json.dumps(list(ids)), "before": before})
    return sorted(int(row[0]) for row in rows)
