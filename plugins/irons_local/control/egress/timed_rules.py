"""The rules that end by a clock: removed from the store and noted in the change log. The gateway has ended them already."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable

from irons_local.control.store import changelog, rules, sandboxes
from irons_local.control.store.database import Store, StoreError
from irons_local.control.store.rules import ACCOUNT
from irons_local.control.store.terms import SECOND, Instant

_EVERY = 5.0
"""Seconds between two looks: how much later than at the gateway a rule may end in the store."""
_log = logging.getLogger(__name__)


class TimedRules:
    """Removes the rules whose time has come.

    Args:
        store: where rules are kept.
        instant: the clocks.
    """

    def __init__(self, store: Store, instant: Callable[[], Instant] = Instant.now) -> None:
        self._store = store
        self._instant = instant

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                wait = await self.look()
            except StoreError as error:
                _log.warning("rules that end can't be looked at: %s", error)
                wait = _EVERY
            await asyncio.sleep(wait)

    async def look(self) -> float:
        """Remove what is over by now.

        Returns:
            Seconds until the next look.

        Raises:
            StoreError: the database failed.
        """
        now = self._instant()
        if await self._store.read(lambda connection: rules.next_end(connection, now)) is None:
            return _EVERY
        left = await self._store.write(lambda connection: _end(connection, now))
        return _EVERY if left is None else min(_EVERY, max(0.05, left / SECOND))


def _end(connection: sqlite3.Connection, now: Instant) -> int | None:
    gone = rules.end(connection, now)
    known = {each.id: each for each in sandboxes.all_of(connection)} if gone else {}
    for sandbox, rule in gone:
        if sandbox != ACCOUNT and sandbox not in known:
            # It was kept with a snapshot, for copies that would have had it.
            continue
        changelog.record_end(connection, rule, known.get(sandbox), "its time is over")
    return rules.next_end(connection, now)
