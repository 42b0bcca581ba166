"""The valid API keys in memory: whether a key opens the API is known without waiting for the database."""

from __future__ import annotations

from dataclasses import replace

from irons_local import times
from irons_local.control.store import keys
from irons_local.control.store.database import Store
from irons_local.control.store.keys import StoredKey

_NOTED_EVERY = 60_000_000
"""Microseconds: how exactly it is noted when a key was used."""


class KeyRing:
    """Looks keys up, and makes and revokes them; this process alone changes them, so it knows when to read them again."""

    def __init__(self, store: Store) -> None:
        """Make a ring of the keys in a database; they are read when they are first needed."""
        self._store = store
        self._known: dict[bytes, StoredKey] | None = None
        self._changes = 0

    async def find(self, secret: str) -> StoredKey | None:
        """Return the key that `secret` is; None where it is not a valid key.

        Raises:
            StoreError: the database failed.
        """
        known = await self._read()
        hashed = keys.hash_of(secret)
        key = known.get(hashed)
        if key is None:
            return None
        now = times.now()
        if key.used_at is None or now - key.used_at > _NOTED_EVERY:
            # First, so that of many requests at once one writes.
            known[hashed] = replace(key, used_at=now)
            await self._store.write(lambda connection: keys.touch(connection, key.id))
        return key

    async def create(self, label: str, role: str) -> tuple[StoredKey, str]:
        """Make a key; see `keys.create`."""
        try:
            return await self._store.write(lambda connection: keys.create(connection, label, role))
        finally:
            self._changed()

    async def revoke(self, name: str) -> int:
        """Make a key worthless; see `keys.revoke`."""
        try:
            return await self._store.write(lambda connection: keys.revoke(connection, name))
        finally:
            self._changed()

    def _changed(self) -> None:
        self._changes += 1
        self._known = None

    async def _read(self) -> dict[bytes, StoredKey]:
        if self._known is not None:
            return self._known
        changes = self._changes
        found = dict(await self._store.read(keys.by_hash))
        # What was read while a key was revoked may still have it.
        if changes == self._changes:
            self._known = found
        return found
