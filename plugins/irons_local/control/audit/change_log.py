"""The change log as clients read it: a page at once, or held until there is a change."""

from __future__ import annotations

import asyncio
import contextvars
from functools import partial

from irons_local.control.audit.log import LONGEST_WAIT, News
from irons_local.control.store import changelog
from irons_local.control.store.changelog import RECORDED, ChangePage, ChangeQuery
from irons_local.control.store.database import Store


class ChangeLog:
    """Answers readers of the change log, and wakes those who wait.

    Args:
        store: where changes are recorded.
        most: how many are kept.
    """

    def __init__(self, store: Store, most: int) -> None:
        changelog.keep_only(store, most)
        store.on_commit(self._committed)
        self._store = store
        self._news = News()
        self._closing = False

    async def page(self, query: ChangeQuery, wait: float = 0.0) -> ChangePage:
        """Return a page of changes; where there is none, wait for one, for `wait` seconds at most.

        Raises:
            HttpError: no sandbox has, or had, that name.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + min(wait, LONGEST_WAIT)
        while True:
            # Registered before looking, so that what comes in between is not missed.
            news = self._news.next()
            found = await self._store.read(partial(changelog.page, query=query))
            left = until - loop.time()
            if found.changes or left <= 0 or self._closing:
                return found
            await asyncio.wait((news,), timeout=left)

    def close(self) -> None:
        """Answer everyone who waits."""
        self._closing = True
        self._news.wake()

    def _committed(self, context: contextvars.Context) -> None:
        if context.get(RECORDED):
            self._news.wake()
