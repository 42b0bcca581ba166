"""What no person is asked about (`[ask] never` of a policy) as rows: of all sandboxes, of one sandbox, or of a snapshot."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from irons_local.control.store.stored_patterns import stored_pattern
from irons_policy.patterns import Pattern


def of(connection: sqlite3.Connection, sandbox: str) -> tuple[Pattern, ...]:
    """The patterns of one sandbox's or snapshot's id, or of `ACCOUNT`, by their spelling."""
    rows = connection.execute("SELECT pattern FROM unasked WHERE sandbox = ? ORDER BY pattern", (sandbox,))
    return tuple(stored_pattern(row["pattern"]) for row in rows)


def of_all(connection: sqlite3.Connection) -> dict[Pattern, str]:
    """The patterns of all sandboxes, and of each one that no key of the role `user` created.

    Returns:
        Each pattern with the name of a sandbox that has it; empty where that is all of them.
    """
    rows = connection.execute(
        "SELECT pattern, min(ifnull(known.name, '')) AS name FROM unasked LEFT JOIN sandboxes AS known ON known.id = sandbox "
        "WHERE sandbox = '' OR (known.id IS NOT NULL AND known.creator NOT IN (SELECT id FROM keys WHERE role = 'user')) "
        "GROUP BY pattern ORDER BY pattern"
    )
    return {stored_pattern(row["pattern"]): row["name"] for row in rows}


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
