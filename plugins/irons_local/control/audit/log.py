"""The audit log, kept up with: new records are taken in as the gateway tells of them, and readers woken."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

from irons_local import times
from irons_local.control.audit import events, hosts_tried, retention
from irons_local.control.audit.changes import Changes
from irons_local.control.audit.events import Page, Query
from irons_local.control.audit.hosts_tried import HostQuery
from irons_local.control.audit.ingest import GatheredLogs, Ingest, IngestResult
from irons_local.control.audit.retention import Retention
from irons_local.control.store.database import Store, StoreError

_log = logging.getLogger(__name__)
_LOOK_ANYWAY = 2.0
"""Seconds between two looks at the logs of which no worker has given notice, while readers wait."""
_LOOK_UNREAD = 10.0
"""The same while none does: what a burst of connections leaves in the logs is taken in after it, not in its midst."""
UNREAD = 1.0
"""Seconds between two looks while no reader waits for new records: one that asks has them taken in first."""
_EXPIRE_EVERY = 3600.0
_CATCHING_UP = 10.0
"""Seconds that a reader is held at most until the logs are taken in."""
_LOOKED_WITHIN = 0.5
"""The same for what is shown to a person while a connection waits."""
LONGEST_WAIT = 60.0
"""Seconds that a long poll is held at most."""
FOLLOWED = 2 * LONGEST_WAIT
"""Seconds for which it counts that a reader has begun to wait: it is reported again once what is left is no longer than a wait."""


class News:
    """Wakes all who wait for the next entry of a log."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    def next(self) -> asyncio.Future[None]:
        """Return what is done at the next entry; to be asked for before looking, so that nothing in between is missed."""
        if self._next is None or self._next.done():
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    def wake(self) -> None:
        """There is an entry: wake those who wait."""
        if self._next is not None and not self._next.done():
            self._next.set_result(None)


class Audit:
    """Follows the gateway's logs from `run` on, and answers readers.

    Args:
        store: where events are kept.
        ingest: takes logs in.
        kept: how long events are kept.
        settle: asks which workers served these cells; False where the keeper does not answer now.
        followed: called where readers wait for new events, with the seconds for which that counts.
    """

    def __init__(
        self,
        store: Store,
        ingest: Ingest | GatheredLogs,
        kept: Retention,
        settle: Callable[[Collection[tuple[str, int]]], Awaitable[bool]] | None = None,
        followed: Callable[[float], None] = lambda _lease: None,
    ) -> None:
        self._store = store
        self._settle = settle
        self._follow = followed
        self._followed = float("-inf")
        self._began = float("-inf")
        self._ingest = ingest
        self._kept = kept
        self._changes = Changes()
        self._poked = asyncio.Event()
        self._later: asyncio.TimerHandle | None = None
        self._waiting = 0
        self._news = News()
        self._next_look: asyncio.Future[None] | None = None
        self._looked_at: int | None = None
        self._closing = False
        self._crowded = False
        self._expired_at = float("-inf")

    def poke(self, _run: str = "") -> None:
        """Say that a log has grown: it is read at once where a reader waits, else `UNREAD` seconds after the last look at the earliest."""
        if self._waiting:
            self._poked.set()
        elif self._later is None:
            loop = asyncio.get_running_loop()
            self._later = loop.call_at(max(loop.time(), self._began + UNREAD), self._poked.set)

    async def run(self) -> None:
        """Take records in for as long as this is not cancelled; a store that fails is tried again."""
        while True:
            self._poked.clear()
            self._put_off_no_more()
            looking, self._next_look = self._next_look, None
            began, self._began = times.now(), asyncio.get_running_loop().time()
            try:
                if await self.catch_up():
                    self._looked_at = began
            except StoreError as error:
                _log.warning("audit records wait: %s", error)
            except Exception:  # noqa: BLE001 (no log may stop the rest of the control plane)
                _log.exception("audit records wait")
            if looking is not None:
                looking.set_result(None)
            try:
                followed = asyncio.get_running_loop().time() < self._followed
                async with asyncio.timeout(_LOOK_ANYWAY if followed else _LOOK_UNREAD):
                    await self._poked.wait()
            except TimeoutError:
                continue

    async def catch_up(self) -> bool:
        """Take in all that the logs have.

        Returns:
            False where a part waits until the keeper answers.

        Raises:
            StoreError: the database failed; nothing is lost, the logs stay.
        """
        while True:
            taken, crowded = await self._store.write(self._take)
            self._crowded = self._crowded or crowded
            self._changes.note(taken.changed)
            if taken.shown or taken.changed:
                self._news.wake()
            settled = bool(taken.asked and self._settle is not None and await self._settle(taken.asked))
            if not taken.more and not settled:
                break
        await self._keep_house(taken)
        return not taken.asked

    async def page(self, query: Query, wait: float = 0.0) -> Page:
        """A page of events; where there is none, nor a change, held until there is one or `wait` seconds are over.

        A request that does not wait gets all that was recorded when it arrived, the latest refusals included.

        Raises:
            HttpError: no sandbox has, or had, that name.
        """
        if (wait <= 0 or query.export) and not self._closing:
            await self._look_now()
        if wait <= 0:
            return await self._page(query, wait)
        self._waiting += 1
        try:
            self._be_told()
            if self._later is not None:
                # What was put off is what this reader waits for.
                self._poked.set()
            return await self._page(query, wait)
        finally:
            self._waiting -= 1

    def _be_told(self) -> None:
        """Have the workers tell of each record soon, for as long as this reader may wait."""
        now = asyncio.get_running_loop().time()
        if self._followed - now <= LONGEST_WAIT:
            self._followed = now + FOLLOWED
            self._follow(FOLLOWED)
            self._poked.set()

    async def _page(self, query: Query, wait: float) -> Page:
        loop = asyncio.get_running_loop()
        until = loop.time() + min(wait, LONGEST_WAIT)
        while True:
            # Registered before looking, so that what comes in between is not missed.
            news = self._news.next()
            # Before the read, too: what changes during the read is in the next answer.
            changed = None if query.changes is None else self._changes.since(query.changes, query.size)
            found = await self._store.read(
                partial(events.page, query=query, changed=changed, looked_at=self._looked_at)
            )
            left = until - loop.time()
            if not found.is_empty or left <= 0 or self._closing:
                return found
            if changed is not None and changed.more:
                # A part that holds nothing for this reader: changes of other sandboxes do not keep it from its own.
                query = replace(query, changes=changed.cursor)
                continue
            await asyncio.wait((news,), timeout=left)

    async def hosts(self, query: HostQuery) -> list[dict[str, Any]]:
        """List what a sandbox tried by host, including everything recorded before this call.

        Raises:
            HttpError: no sandbox has, or had, that name.
        """
        if not self._closing:
            await self._look_now()
        return await self._store.read(lambda connection: hosts_tried.hosts(connection, query))

    async def totals(self, name: str) -> dict[str, int]:
        """Count what a sandbox tried, including everything recorded before this call.

        Raises:
            HttpError: no sandbox has, or had, that name.
        """
        if not self._closing:
            await self._look_now()
        return await self._store.read(lambda connection: hosts_tried.totals(connection, name))

    async def caught_up(self) -> None:
        """Have all taken in that was recorded before this call; where that takes long it goes on without it."""
        if not self._closing:
            await self._look_now(_LOOKED_WITHIN)

    def close(self) -> None:
        """Answer everyone who waits; `run` is ended by its owner."""
        self._closing = True
        self._put_off_no_more()
        self._news.wake()

    def _put_off_no_more(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None

    async def _look_now(self, within: float = _CATCHING_UP) -> None:
        """Wait for a look at the logs that begins after this call; many readers share one."""
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().create_future()
        self._poked.set()
        await asyncio.wait((self._next_look,), timeout=within)

    def _take(self, connection: sqlite3.Connection) -> tuple[IngestResult, bool]:
        """Take in what the logs have; and whether a sandbox has so many events now that older ones must go."""
        taken = self._ingest.take(connection)
        return taken, bool(taken.shown) and retention.crowded(connection, self._kept)

    async def _keep_house(self, taken: IngestResult) -> None:
        if taken.finished:
            # A log must not go before the disk has what was taken from it.
            await self._store.write(self._ingest.sweep, settled=True)
        if self._crowded:
            await self._store.write(lambda connection: retention.rotate(connection, self._kept))
            self._crowded = False
        now = asyncio.get_running_loop().time()
        if now - self._expired_at > _EXPIRE_EVERY:
            self._expired_at = now
            await self._store.write(lambda connection: retention.expire(connection, self._kept, times.now()))
