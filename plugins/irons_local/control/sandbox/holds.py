"""Sandboxes that live only while a client holds them: the end of `irons run`, however its client ends.

A client holds a sandbox by a request that is answered late, and asks again. When no request is open, and none comes within a minute,
the sandbox is stopped, which ends all that runs in it, and destroyed. The minute begins again when this process starts again.
Time is the monotonic clock's: while the machine is suspended, neither the client nor the minute goes on.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3

from irons_local.control.sandbox.lifecycle import Lifecycle
from irons_local.control.schema.errors import HttpError, conflict
from irons_local.control.store import sandboxes
from irons_local.control.store.changelog import ITSELF, ORIGIN, What, record
from irons_local.control.store.database import Store, StoreError
from irons_local.control.store.sandboxes import ERROR, STOPPED

GRACE = 60.0
"""Seconds that a client may be gone."""

ANSWERED_AFTER = 20.0
"""Seconds after which a holding request is answered: a connection that broke without a word is noticed by then."""

_AGAIN = 5.0
_log = logging.getLogger(__name__)


class Holds:
    """Knows which sandboxes are held, and destroys those that are let go of.

    Args:
        store: where it is kept which sandboxes end with their client.
        lifecycle: what stops and destroys.
        grace: seconds that a client may be gone.
    """

    def __init__(self, store: Store, lifecycle: Lifecycle, grace: float = GRACE) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._grace = grace
        self._open: dict[str, int] = {}
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._ending: set[str] = set()
        self._released: dict[str, asyncio.Event] = {}

    async def resume(self) -> None:
        """Give the clients of another control plane's sandboxes their minute.

        Raises:
            StoreError: the database failed.
        """
        for identity in await self._store.read(sandboxes.held):
            self.begin(identity)

    def begin(self, identity: str) -> None:
        """Let a sandbox's minute begin, unless a request holds it."""
        if not self._open.get(identity) and identity not in self._ends:
            task = asyncio.create_task(self._end(identity), name=f"let go of {identity}")
            self._ends[identity] = task
            task.add_done_callback(lambda done: self._forget(identity, done))

    async def hold(self, name: str, seconds: float, left: asyncio.Event) -> bool:
        """Hold a sandbox for at most so many seconds, until the client leaves or the sandbox is released or gone.

        Args:
            name: its name or id.
            seconds: how long; `ANSWERED_AFTER` at most.
            left: set when the client has gone.

        Returns:
            Whether it still ends with its client.

        Raises:
            HttpError: there is none of that name, or it does not end with its client.
        """
        found = await self._store.read(lambda connection: sandboxes.get(connection, name))
        if not await self._is_held(found.id):
            raise conflict(f"{found.name} does not end with its client")
        if found.id in self._ending:
            raise conflict(f"{found.name} is being destroyed: its client was gone for {self._grace:g} s")
        self._open[found.id] = self._open.get(found.id, 0) + 1
        end = self._ends.pop(found.id, None)
        if end is not None:
            end.cancel()
        released = self._released.setdefault(found.id, asyncio.Event())
        waits = [asyncio.ensure_future(left.wait()), asyncio.ensure_future(released.wait())]
        try:
            await asyncio.wait(
                waits, timeout=min(seconds, ANSWERED_AFTER), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for each in waits:
                each.cancel()
            self._open[found.id] -= 1
            if not self._open[found.id]:
                del self._open[found.id]
                self._released.pop(found.id, None)
                if not released.is_set():
                    self.begin(found.id)
        return not released.is_set() and await self._is_held(found.id)

    async def release(self, name: str) -> None:
        """Let a sandbox live on without its client; one that does already stays as it is.

        Raises:
            HttpError: there is none of that name.
            StoreError: the database failed.
        """

        def work(connection: sqlite3.Connection) -> str:
            found = sandboxes.get(connection, name)
            if sandboxes.release(connection, found.id):
                record(connection, What.RELEASED, sandbox=found)
            return found.id

        self.gone(await self._store.write(work))

    def gone(self, identity: str) -> None:
        """Note that a sandbox is not held any more, or is no more: whoever holds it is answered."""
        released = self._released.get(identity)
        if released is not None:
            released.set()
        end = self._ends.pop(identity, None)
        if end is not None and identity not in self._ending:
            end.cancel()

    async def close(self) -> None:
        """Stop counting; what is held stays noted."""
        tasks = tuple(self._ends.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _is_held(self, identity: str) -> bool:
        return identity in await self._store.read(sandboxes.held)

    async def _end(self, identity: str) -> None:
        # What ends then was asked for by no request, though one began this task.
        ORIGIN.set(ITSELF)
        await asyncio.sleep(self._grace)
        self._ending.add(identity)
        while True:
            try:
                found = await self._store.read(lambda connection: sandboxes.find(connection, identity))
                if found is None or not await self._is_held(identity):
                    return
                _log.warning("%s (%s) is destroyed: its client is gone", found.name, identity)
                if found.status not in (STOPPED, ERROR) and not found.deleting:
                    await self._lifecycle.stop(identity, "its client is gone")
                    await self._lifecycle.settled(identity)
                await self._lifecycle.delete(identity, "its client is gone")
                return
            except HttpError as error:
                if error.status == 404:
                    return
                _log.warning("%s could not be destroyed: %s", identity, error)
            except StoreError as error:
                _log.warning("%s could not be destroyed: %s", identity, error)
            await asyncio.sleep(_AGAIN)

    def _forget(self, identity: str, done: asyncio.Task[None]) -> None:
        self._ending.discard(identity)
        if self._ends.get(identity) is done:
            del self._ends[identity]
        if not done.cancelled() and done.exception() is not None:
            _log.error("%s could not be destroyed", identity, exc_info=done.exception())
