"""The members of the fleet, and which cells are, or were, on which of them."""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass

from irons_local import times
from irons_local.control.store import changelog


@dataclass(frozen=True, slots=True)
class StoredMember:
    """What is known of a member.

    Attributes:
        name: its name, as Incus has it.
        fingerprint: SHA-256 of its certificate; empty before it has joined.
        epoch: what a token was made for: a member takes policies of one epoch in their order.
        revision: of the last policy that was pushed to it.
        token: hash of the secret of its token; empty where there is none.
        token_until: until when the token is valid, microseconds since 1970.
        added_at: microseconds since 1970.
        joined_at: the same; None before it has joined.
    """

    name: str
    fingerprint: str
    epoch: str
    revision: int
    token: str
    token_until: int
    added_at: int
    joined_at: int | None


def all_of(connection: sqlite3.Connection) -> list[StoredMember]:
    """Every member, by name."""
    return [StoredMember(**dict(row)) for row in connection.execute("SELECT * FROM members ORDER BY name")]


def get(connection: sqlite3.Connection, name: str) -> StoredMember | None:
    """One member."""
    row = connection.execute("SELECT * FROM members WHERE name = ?", (name,)).fetchone()
    return None if row is None else StoredMember(**dict(row))


def add(connection: sqlite3.Connection, name: str, token: str, until: int) -> None:
    """Let a machine of that name join, by a token; one that has joined stays until the token is used."""
    connection.execute(
        "INSERT INTO members (name, epoch, token, token_until, added_at) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET token = excluded.token, token_until = excluded.token_until",
        (name, secrets.token_hex(8), token, until, times.now()),
    )
    changelog.record(connection, changelog.What.MEMBER_ADDED, subject=name)


def spend(connection: sqlite3.Connection, name: str, token: str) -> bool:
    """Use a token, once; whether it was valid."""
    done = connection.execute(
        "UPDATE members SET token = '' WHERE name = ? AND token = ? AND token <> '' AND token_until > ?",
        (name, token, times.now()),
    )
    return done.rowcount == 1


def join(connection: sqlite3.Connection, name: str, fingerprint: str) -> bool:
    """Note a member's certificate, in place of any before; False where it was removed in between.

    Policies begin again, of another epoch.
    """
    done = connection.execute(
        "UPDATE members SET fingerprint = ?, epoch = ?, revision = 0, joined_at = ? WHERE name = ?",
        (fingerprint, secrets.token_hex(8), times.now(), name),
    )
    joined = done.rowcount == 1
    if joined:
        changelog.record(
            connection, changelog.What.MEMBER_JOINED, subject=name, after={"fingerprint": fingerprint}
        )
    return joined


def remove(connection: sqlite3.Connection, name: str) -> bool:
    """Forget a member and its certificate; whether there was one. Where its cells were stays known."""
    gone = connection.execute("DELETE FROM members WHERE name = ?", (name,)).rowcount == 1
    if gone:
        changelog.record(connection, changelog.What.MEMBER_REMOVED, subject=name)
    return gone


def next_revision(connection: sqlite3.Connection, name: str) -> int | None:
    """The number of the next policy for a member; None where it was removed."""
    found = connection.execute(
        "UPDATE members SET revision = revision + 1 WHERE name = ? RETURNING revision", (name,)
    ).fetchone()
    return None if found is None else int(found[0])


def place(connection: sqlite3.Connection, cell: str, member: str) -> None:
    """Note that a cell is on a member, and no more on any other."""
    connection.execute("UPDATE member_cells SET current = 0 WHERE cell = ? AND member <> ?", (cell, member))
    connection.execute(
        "INSERT INTO member_cells (cell, member, current) VALUES (?, ?, 1) "
        "ON CONFLICT (cell, member) DO UPDATE SET current = 1",
        (cell, member),
    )


def unplace(connection: sqlite3.Connection, cell: str) -> None:
    """Note that a cell is on no member any more; records of it that arrive later are still believed."""
    connection.execute("UPDATE member_cells SET current = 0 WHERE cell = ?", (cell,))


def places(connection: sqlite3.Connection) -> dict[str, str]:
    """The member of each cell that is on one."""
    rows = connection.execute("SELECT cell, member FROM member_cells WHERE current = 1")
    return {str(row[0]): str(row[1]) for row in rows}


def was_on(connection: sqlite3.Connection, cell: str, member: str) -> bool:
    """Whether a cell is, or was, on a member."""
    found = connection.execute("SELECT 1 FROM member_cells WHERE cell = ? AND member = ?", (cell, member))
    return found.fetchone() is not None


def without_sandbox(connection: sqlite3.Connection) -> set[str]:
    """The cells that are on a member, of sandboxes that are gone."""
    rows = connection.execute(
        "SELECT cell FROM member_cells WHERE current = 1 AND cell NOT IN (SELECT id FROM sandboxes)"
    )
    return {str(row[0]) for row in rows}
