"""Old events make room: per sandbox, so that a flood rotates out only its own."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Retention:
    """How long events are kept.

    Attributes:
        events: the newest so many are kept of each sandbox.
        days: none is kept longer than this.
    """

    events: int = 100_000
    days: int = 90


def rotate(connection: sqlite3.Connection, retention: Retention) -> int:
    """Remove what is beyond the number kept per sandbox; a twentieth of slack keeps this from being done each time.

    Returns:
        How many events went.
    """
    limit = retention.events + retention.events // 20
    crowded = connection.execute("SELECT id, events FROM subjects WHERE events > ?", (limit,)).fetchall()
    for subject in crowded:
        connection.execute(
            "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE subject = ? ORDER BY id LIMIT ?)",
            (subject["id"], subject["events"] - retention.events),
        )
        connection.execute("UPDATE subjects SET events = ? WHERE id = ?", (retention.events, subject["id"]))
    return sum(subject["events"] - retention.events for subject in crowded)


def expire(connection: sqlite3.Connection, retention: Retention, now: int) -> int:
    """Remove what is older than the days kept, and sandboxes that are gone with all their events.

    Args:
        connection: in a write transaction.
        retention: how long events are kept.
        now: microseconds since 1970.

    Returns:
        How many events went.
    """
    # Ids grow with time, but for the moments between an attempt and its verdict: the first young one ends the search.
    young = connection.execute(
        "SELECT id FROM events WHERE at >= ? ORDER BY id LIMIT 1", (now - retention.days * _DAY,)
    ).fetchone()
    bound = 2**63 - 1 if young is None else int(young["id"])
    old = connection.execute(
        "SELECT subject, count(*) AS events FROM events WHERE id < ? GROUP BY subject", (bound,)
    ).fetchall()
    if old:
        connection.execute("DELETE FROM events WHERE id < ?", (bound,))
        connection.executemany(
            "UPDATE subjects SET events = events - ? WHERE id = ?",
            [(row["events"], row["subject"]) for row in old],
        )
    connection.execute("DELETE FROM subjects WHERE gone_at IS NOT NULL AND events = 0")
    connection.execute(
        "DELETE FROM served WHERE cell NOT IN (SELECT sandbox FROM subjects) AND cell NOT IN (SELECT id FROM sandboxes)"
    )
    return sum(row["events"] for row in old)
