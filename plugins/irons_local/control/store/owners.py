"""What an API key of the role `user` has created: its sandboxes, those that are gone, and its snapshots."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import ExitStack, closing
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple


class Owner(NamedTuple):
    """Whose something is.

    Attributes:
        id: what it is; never used again.
        creator: the id of the key that created it; empty where that was no key.
    """

    id: str
    creator: str


def sandboxes(connection: sqlite3.Connection, key: str) -> dict[str, str]:
    """The names of the sandboxes that a key has created and that are there, by their ids."""
    rows = connection.execute("SELECT id, name FROM sandboxes WHERE creator = ?", (key,))
    return {row["id"]: row["name"] for row in rows}


def snapshots(connection: sqlite3.Connection, key: str) -> dict[str, str]:
    """The names of the snapshots of sandboxes that a key has created, by their ids; empty where only a fork uses one."""
    rows = connection.execute("SELECT id, name FROM snapshots WHERE creator = ?", (key,))
    return {row["id"]: row["name"] or "" for row in rows}


def events(
    connection: sqlite3.Connection,
    key: str,
    sql: str,
    values: Mapping[str, Any],
    *,
    most: int,
    skip: int = 0,
    newest_first: bool = False,
) -> list[int]:
    """Merge the events of the sandboxes that a key has created, also of those that are gone: no more is read than is wanted.

    Args:
        connection: the store's.
        key: the id of the key.
        sql: selects ids of events of one `:subject`, in order.
        values: the other parameters.
        most: ids at most.
        skip: ids that are passed over.
        newest_first: the order is that.

    Returns:
        The ids, in that order.
    """
    subjects = connection.execute(
        "SELECT id FROM subjects WHERE creator = ? AND events > 0", (key,)
    ).fetchall()
    with ExitStack() as ends:
        each = (connection.execute(sql, {**values, "subject": row["id"]}) for row in subjects)
        cursors = [ends.enter_context(closing(cursor)) for cursor in each]
        found = merge(*cursors, key=itemgetter(0), reverse=newest_first)
        return [int(row[0]) for row in islice(found, skip, skip + most)]


def of_id(connection: sqlite3.Connection, sandbox: str) -> str | None:
    """The id of the key that created the sandbox with an id, empty where that was no key; None where it is gone."""
    row = connection.execute("SELECT creator FROM sandboxes WHERE id = ?", (sandbox,)).fetchone()
    return None if row is None else str(row["creator"])


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
