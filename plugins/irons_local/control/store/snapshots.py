"""Snapshots as rows: which sandbox each is of, and what a copy gets next to the files, which the engine keeps."""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass, fields

from irons_local import times
from irons_local.control.schema.errors import HttpError, missing
from irons_local.control.store import rules, unasked
from irons_local.control.store.changelog import ORIGIN
from irons_local.control.store.sandboxes import StoredSandbox
from irons_policy.rules import Rule

_NAME_AT_MOST = 63


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """One snapshot as the store has it.

    Attributes:
        id: `sn_` and 16 lower-case hexadecimal digits; its rules are stored under it.
        name: what people call it, unique among the snapshots; None for one that only a fork uses.
        sandbox: id of the sandbox that it is of.
        sandbox_name: what that was called then.
        engine: name of its engine.
        image: name of its image.
        note: a text of whoever made it.
        made: False while it is being made or removed; what is left of either is removed at the start.
        pause: microseconds in which the sandbox was paused; None where it was stopped.
        layer: id of the layer that it added; "" where nothing had changed.
        mode: the sandbox's own egress mode then; None follows the account.
        public_key: text of the public keys that opened the sandbox.
        cpus: limit in processors; None: no limit.
        memory: limit in bytes.
        disk: limit in bytes.
        entrypoint: it ran the entrypoint of its image at each start.
        created_at: microseconds since 1970.
        creator: id of the API key that created its sandbox; see `StoredSandbox`.
    """

    id: str
    name: str | None
    sandbox: str
    sandbox_name: str
    engine: str
    image: str
    note: str
    made: bool
    pause: int | None
    layer: str
    mode: str | None
    public_key: str
    cpus: float | None
    memory: int | None
    disk: int | None
    entrypoint: bool
    created_at: int
    creator: str = ""

    @classmethod
    def of(cls, sandbox: StoredSandbox, name: str | None, note: str) -> StoredSnapshot:
        """Return a new snapshot of a sandbox that is not made yet."""
        return cls(
            id=f"sn_{secrets.token_hex(8)}",
            name=name,
            sandbox=sandbox.id,
            sandbox_name=sandbox.name,
            engine=sandbox.engine,
            image=sandbox.image,
            note=note,
            made=False,
            pause=None,
            layer="",
            mode=sandbox.mode,
            public_key=sandbox.public_key,
            cpus=sandbox.cpus,
            memory=sandbox.memory,
            disk=sandbox.disk,
            entrypoint=sandbox.entrypoint,
            created_at=times.now(),
            creator=sandbox.creator,
        )


_COLUMNS = ", ".join(each.name for each in fields(StoredSnapshot))


def insert(connection: sqlite3.Connection, snapshot: StoredSnapshot) -> None:
    """Write a new snapshot with the rules that its sandbox has.

    Raises:
        HttpError: the name is taken.
    """
    if snapshot.name is not None and _by_name(connection, snapshot.name) is not None:
        raise HttpError(
            409,
            f"there is a snapshot named {snapshot.name!r} already",
            "irons snapshot list shows them; --as names another",
        )
    values = [getattr(snapshot, column) for column in _COLUMNS.split(", ")]
    marks = ", ".join("?" * len(values))
    sql = f"INSERT INTO snapshots ({_COLUMNS}) VALUES ({marks})"  # noqa: S608 (names of ours)
    connection.execute(sql, values)
    # What is allowed until its sandbox stops is allowed to that sandbox alone.
    own = [
        each for each in rules.of(connection, snapshot.sandbox) if each.list == "deny" or not _of_a_run(each)
    ]
    rules.replace(connection, snapshot.id, own)
    unasked.copy(connection, snapshot.sandbox, snapshot.id)


def _of_a_run(rule: Rule) -> bool:
    return rule.until is not None and rule.until.at is None


def free_name(connection: sqlite3.Connection, sandbox: str) -> str:
    """Return a name for the next snapshot of a sandbox: its own with the first number that is free."""
    taken = {row["name"] for row in connection.execute("SELECT name FROM snapshots")}
    number = 1
    while True:
        end = f"-{number}"
        name = f"{sandbox[: _NAME_AT_MOST - len(end)].rstrip('-')}{end}"
        if name not in taken:
            return name
        number += 1


def finish(
    connection: sqlite3.Connection, snapshot: StoredSnapshot, *, pause: int | None, layer: str
) -> None:
    """Note that a snapshot is made."""
    connection.execute(
        "UPDATE snapshots SET made = 1, pause = ?, layer = ? WHERE id = ?", (pause, layer, snapshot.id)
    )


def begin_removal(connection: sqlite3.Connection, snapshot: str) -> None:
    """Note that a snapshot is being removed."""
    connection.execute("UPDATE snapshots SET made = 0 WHERE id = ?", (snapshot,))


def forget(connection: sqlite3.Connection, snapshot: str) -> None:
    """Remove a snapshot's row and its rules."""
    connection.execute("DELETE FROM rules WHERE sandbox = ?", (snapshot,))
    unasked.forget(connection, snapshot)
    connection.execute("DELETE FROM snapshots WHERE id = ?", (snapshot,))


def all_of(connection: sqlite3.Connection, sandbox: str | None = None) -> list[StoredSnapshot]:
    """Return the snapshots that are made and have a name, oldest first; with `sandbox` those of that id."""
    where = "made AND name IS NOT NULL" + ("" if sandbox is None else " AND sandbox = ?")
    sql = f"SELECT {_COLUMNS} FROM snapshots WHERE {where} ORDER BY created_at, id"  # noqa: S608 (names of ours)
    return [_snapshot(row) for row in connection.execute(sql, () if sandbox is None else (sandbox,))]


def left_over(connection: sqlite3.Connection) -> list[StoredSnapshot]:
    """Return what nothing needs: half made, half removed, or of a fork whose copies are all made."""
    sql = (
        f"SELECT {_COLUMNS} FROM snapshots WHERE (NOT made OR name IS NULL) "  # noqa: S608 (names of ours)
        "AND id NOT IN (SELECT snapshot FROM sandboxes)"
    )
    return [_snapshot(row) for row in connection.execute(sql)]


def get(connection: sqlite3.Connection, name: str) -> StoredSnapshot:
    """Return the snapshot of a name or an id.

    Raises:
        HttpError: there is none.
    """
    found = _by_name(connection, name)
    if found is None or not found.made:
        if ORIGIN.get().owner:
            # The others may be of sandboxes that are not the caller's.
            raise missing(f"there is no snapshot {name!r}", "irons snapshot list shows those there are")
        known = ", ".join(str(each.name) for each in all_of(connection)[-10:]) or "none yet"
        raise missing(
            f"there is no snapshot {name!r}; snapshots: {known}", "irons snapshot list shows them all"
        )
    return found


def users(connection: sqlite3.Connection, snapshot: str) -> list[str]:
    """Return the names of the sandboxes that are being made from a snapshot."""
    rows = connection.execute("SELECT name FROM sandboxes WHERE snapshot = ? ORDER BY name", (snapshot,))
    return [row["name"] for row in rows]


def _by_name(connection: sqlite3.Connection, name: str) -> StoredSnapshot | None:
    sql = f"SELECT {_COLUMNS} FROM snapshots WHERE name = ? OR id = ?"  # noqa: S608 (names of ours)
    row = connection.execute(sql, (name, name)).fetchone()
    return None if row is None else _snapshot(row)


def _snapshot(row: sqlite3.Row) -> StoredSnapshot:
    values = dict(row)
    return StoredSnapshot(
        **{**values, "made": bool(values["made"]), "entrypoint": bool(values["entrypoint"])}
    )
