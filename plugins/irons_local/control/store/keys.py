"""API keys for clients that come over TCP: random, labelled, stored as hashes only."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from dataclasses import dataclass

from irons_local import times
from irons_local.control.store import changelog

_PREFIX = "irons_"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What is known of a key.

    Attributes:
        id: what it is revoked by.
        label: a person's own words.
        created_at: microseconds since 1970.
        used_at: microseconds since 1970, to the minute; None for never.
        role: one of `KEY_ROLES`: what it may do.
    """

    id: str
    label: str
    created_at: int
    used_at: int | None
    role: str = "admin"


def create(connection: sqlite3.Connection, label: str, role: str) -> tuple[StoredKey, str]:
    """Make a key.

    Returns:
        What is known of it, and the key itself, which is not stored and cannot be shown again.
    """
    secret = _PREFIX + secrets.token_urlsafe(32)
    key = StoredKey(
        id=f"key_{secrets.token_hex(6)}", label=label, created_at=times.now(), used_at=None, role=role
    )
    connection.execute(
        "INSERT INTO keys (id, label, hash, created_at, role) VALUES (?, ?, ?, ?, ?)",
        (key.id, key.label, hash_of(secret), key.created_at, key.role),
    )
    changelog.record(connection, changelog.What.KEY_MADE, subject=key.label, after=_told(key))
    return key, secret


def all_of(connection: sqlite3.Connection) -> list[StoredKey]:
    """Every key, oldest first."""
    rows = connection.execute("SELECT id, label, created_at, used_at, role FROM keys ORDER BY created_at, id")
    return [StoredKey(**dict(row)) for row in rows]


def revoke(connection: sqlite3.Connection, name: str) -> int:
    """Make a key worthless, named by its id, or by its label where no other has the same.

    Returns:
        How many keys the name means; with any other number than 1 nothing was done.
    """
    found = connection.execute(
        "SELECT id, label, created_at, used_at, role FROM keys WHERE id = :name OR label = :name",
        {"name": name},
    ).fetchall()
    if len(found) == 1:
        key = StoredKey(**dict(found[0]))
        connection.execute("DELETE FROM keys WHERE id = ?", (key.id,))
        changelog.record(connection, changelog.What.KEY_REVOKED, subject=key.label, before=_told(key))
    return len(found)


def by_hash(connection: sqlite3.Connection) -> dict[bytes, StoredKey]:
    """Every key by its hash.

    A key has 256 random bits, so a plain hash of it cannot be guessed back, and looking it up by its hash tells
    nothing about others by the time it takes.
    """
    rows = connection.execute("SELECT hash, id, label, created_at, used_at, role FROM keys")
    return {bytes(hashed): StoredKey(*rest) for hashed, *rest in map(tuple, rows)}


def touch(connection: sqlite3.Connection, identity: str) -> None:
    """Remember that a key was used now."""
    connection.execute("UPDATE keys SET used_at = ? WHERE id = ?", (times.now(), identity))


def _told(key: StoredKey) -> dict[str, str]:
    """What the change log has of a key."""
    return {"id": key.id, "label": key.label, "role": key.role}


def hash_of(secret: str) -> bytes:
    """What is stored of a key."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
