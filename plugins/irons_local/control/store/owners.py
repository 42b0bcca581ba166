"""What an API key of the role `user` has created: its sandboxes, those that are gone, and its snapshots."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import NamedTuple


class Owned(NamedTuple):
    """What a key has created and that is there.

    Attributes:
        key: the id of the key.
        sandboxes: the names of its sandboxes, by their ids.
        snapshots: the ids of its snapshots.
        ever: the ids of its sandboxes, and of those that are gone and have a log.
    """

    key: str
    sandboxes: Mapping[str, str]
    snapshots: frozenset[str]
    ever: frozenset[str] = frozenset()


class Owner(NamedTuple):
    """Whose something is.

    Attributes:
        id: what it is; never used again.
        creator: the id of the key that created it; empty where that was no key.
    """

    id: str
    creator: str


def owned(connection: sqlite3.Connection, key: str) -> Owned:
    """What a key has created and that is there."""
    made = connection.execute("SELECT id, name FROM sandboxes WHERE creator = ?", (key,))
    kept = connection.execute("SELECT id FROM snapshots WHERE creator = ?", (key,))
    ever = connection.execute("SELECT sandbox FROM subjects WHERE creator = ?", (key,))
    return Owned(
        key,
        {row["id"]: row["name"] for row in made},
        frozenset(row["id"] for row in kept),
        frozenset(row["sandbox"] for row in ever),
    )


def of_sandbox(connection: sqlite3.Connection, name: str, *, gone: bool) -> Owner | None:
    """Whose sandbox has a name or an id; with `gone`, where none has it, whose the last one was that had it."""
    row = connection.execute(
        "SELECT id, creator FROM sandboxes WHERE name = :name OR id = :name", {"name": name}
    ).fetchone()
    if row is None and gone:
        row = connection.execute(
            "SELECT sandbox AS id, creator FROM subjects WHERE (name = :name OR sandbox = :name) "
            "AND gone_at IS NOT NULL ORDER BY gone_at DESC LIMIT 1",
            {"name": name},
        ).fetchone()
    return None if row is None else Owner(row["id"], row["creator"])


def of_snapshot(connection: sqlite3.Connection, name: str) -> Owner | None:
    """Whose snapshot has a name or an id; None also where it is being made or removed, or only a fork uses it."""
    row = connection.execute(
        "SELECT id, creator FROM snapshots WHERE (name = :name OR id = :name) AND made AND name IS NOT NULL",
        {"name": name},
    ).fetchone()
    return None if row is None else Owner(row["id"], row["creator"])
