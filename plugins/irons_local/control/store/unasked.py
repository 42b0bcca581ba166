"""What no person is asked about (`[ask] never` of a policy) as rows: of all sandboxes, of one sandbox, or of a snapshot."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache

from irons_policy.patterns import Pattern, read_pattern


def of(connection: sqlite3.Connection, sandbox: str) -> tuple[Pattern, ...]:
    """The patterns of one sandbox's or snapshot's id, or of `ACCOUNT`, by their spelling."""
    rows = connection.execute("SELECT pattern FROM unasked WHERE sandbox = ? ORDER BY pattern", (sandbox,))
    return tuple(_pattern(row["pattern"]) for row in rows)


def of_all(connection: sqlite3.Connection) -> dict[Pattern, str]:
    """The patterns of all sandboxes, and of each one that no key of the role `user` created.

    Returns:
        Each pattern with the name of a sandbox that has it; empty where that is all of them.
    """
    rows = connection.execute(
        "SELECT pattern, min(ifnull(known.name, '')) AS name FROM unasked LEFT JOIN sandboxes AS known ON known.id = sandbox "
        "WHERE sandbox = '' OR known.creator NOT IN (SELECT id FROM keys WHERE role = 'user') "
        "GROUP BY pattern ORDER BY pattern"
    )
    return {_pattern(row["pattern"]): row["name"] for row in rows}


def replace(connection: sqlite3.Connection, sandbox: str, patterns: Sequence[Pattern]) -> None:
    """Put patterns in place of all that there are."""
    forget(connection, sandbox)
    texts = sorted({each.text for each in patterns})
    connection.executemany(
        "INSERT INTO unasked (sandbox, pattern) VALUES (?, ?)", ((sandbox, each) for each in texts)
    )


def copy(connection: sqlite3.Connection, of: str, to: str) -> None:
    """Give what one has to another, too."""
    connection.execute(
        "INSERT OR IGNORE INTO unasked (sandbox, pattern) SELECT ?, pattern FROM unasked WHERE sandbox = ?",
        (to, of),
    )


def forget(connection: sqlite3.Connection, sandbox: str) -> None:
    """Remove all that there are."""
    connection.execute("DELETE FROM unasked WHERE sandbox = ?", (sandbox,))


@lru_cache(maxsize=10_000)
def _pattern(text: str) -> Pattern:
    """Read a stored pattern, which names its port or all of them; every change of a policy reads all of them again."""
    return read_pattern(text, mapped=True)
