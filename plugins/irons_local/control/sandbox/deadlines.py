"""What ends a sandbox without anybody asking: its time to live, and idleness."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from irons.ending import NEAR, ending
from irons_local.control.clients.gateways import Gateways
from irons_local.control.sandbox.change_records import record_terms
from irons_local.control.sandbox.lifecycle import Lifecycle
from irons_local.control.schema.errors import HttpError, bad, conflict
from irons_local.control.store import sandboxes, terms
from irons_local.control.store.database import Store, StoreError
from irons_local.control.store.sandboxes import ERROR, READY, RUNNING, STOPPED, StoredSandbox
from irons_local.control.store.terms import SECOND, Instant, Terms
from irons_local.engines.protocol import Activity, Announces, Engine, Observer
from irons_local.errors import CellError, EngineError

LONGEST = 10 * 366 * 86_400
"""Seconds: the longest ttl, idle stop and extension."""

_EVERY = 5.0
"""Seconds between two looks: how late a stop may come."""

_IDLE_EVERY = 30.0
"""Seconds between two looks at how busy one sandbox is; a quarter of its `idle_stop` where that is less."""

_IDLE_NOTED_AFTER = 60
"""Seconds of idleness that a restart of this process may forget."""

_SHARE = 0.01
"""Of one processor: what uses less is idle."""

_ENDED_WITHIN = 120.0

_ANNOUNCED = (NEAR, 60)
"""Seconds before the end at which open sessions are notified."""
_log = logging.getLogger(__name__)


class SandboxDeadlines:
    """Keeps the terms of sandboxes, and stops or destroys those whose time has come.

    Args:
        store: where terms are kept.
        engines: what tells how busy a sandbox is.
        gateways: what tells whether it has connections.
        lifecycle: what stops and destroys.
        instant: the clocks.
    """

    def __init__(
        self,
        store: Store,
        engines: Mapping[str, Engine],
        gateways: Gateways,
        lifecycle: Lifecycle,
        instant: Callable[[], Instant] = Instant.now,
    ) -> None:
        self.instant = instant
        self._store = store
        self._engines = engines
        self._gateways = gateways
        self._lifecycle = lifecycle
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._idle: dict[str, Terms] = {}
        self._looked: dict[str, int] = {}
        self._announced: dict[str, int] = {}
        self._announcing: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    @property
    def announces(self) -> bool:
        """Whether the open sessions of every sandbox can be notified of its end."""
        return all(isinstance(engine, Announces) for engine in self._engines.values())

    def first(
        self, sandbox: StoredSandbox, *, ttl: int | None, remove: bool, idle_stop: int | None
    ) -> Terms | None:
        """The terms of a sandbox that is to be made; None where it has none.

        Raises:
            HttpError: they contradict one another, or its engine cannot tell idleness.
        """
        asked = Terms(sandbox.id, ttl, remove, idle_stop=idle_stop)
        self._check(sandbox, asked)
        if asked.empty:
            return None
        return asked.due(self.instant(), None if ttl is None else ttl * SECOND)

    async def change(self, name: str, asked: Mapping[str, Any]) -> None:
        """Change a sandbox's `ttl` (from now on), `rm` or `idle_stop`; what is not in `asked` stays.

        Raises:
            HttpError: there is none of that name, or the terms contradict one another.
        """

        def work(found: StoredSandbox, before: Terms) -> Terms:
            now = self.instant()
            ttl = asked.get("ttl", before.ttl)
            after = replace(
                before,
                ttl=ttl,
                remove=asked.get("rm", before.remove and ttl is not None),
                idle_stop=asked.get("idle_stop", before.idle_stop),
            )
            self._check(found, after)
            if "idle_stop" in asked:
                self._idle.pop(found.id, None)
                after = replace(after, idle_since=None, idle_used=None)
            left = after.left(now)
            if "ttl" in asked:
                left = None if ttl is None else ttl * SECOND
            return after.due(now, left)

        await self._rewrite(name, work)

    async def extend(self, name: str, seconds: int) -> None:
        """Move a sandbox's deadline on; one that has passed begins again from now.

        Raises:
            HttpError: there is none of that name, or it has no deadline.
        """

        def work(found: StoredSandbox, before: Terms) -> Terms:
            if before.ttl is None:
                raise conflict(f"{found.name} has no deadline to extend")
            now = self.instant()
            left = max(0, before.left(now) or 0) + seconds * SECOND
            if left > LONGEST * SECOND:
                raise bad(f"{found.name} would end in more than {LONGEST} seconds; that is the most")
            return before.due(now, left)

        await self._rewrite(name, work)

    async def renew(self, name: str) -> None:
        """Give a sandbox that is started after its deadline its time to live again.

        Raises:
            StoreError: the database failed.
        """

        def work(_: StoredSandbox, before: Terms) -> Terms:
            now = self.instant()
            left = before.left(now)
            if before.ttl is None or (left is not None and left > 0):
                return before
            return before.due(now, before.ttl * SECOND)

        await self._rewrite(name, work)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        try:
            while True:
                try:
                    wait = await self.look()
                except StoreError as error:
                    _log.warning("deadlines can't be looked at: %s", error)
                    wait = _EVERY
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._news.wait()
        finally:
            tasks = [*self._ending.values(), *self._announcing]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def look(self) -> float:
        """Look once at all that have terms, and begin to end those whose time has come.

        Returns:
            Seconds until the next look.

        Raises:
            StoreError: the database failed.
        """
        known, found = await self._store.read(
            lambda connection: (sandboxes.all_of(connection), terms.all_of(connection))
        )
        wait = _EVERY
        ids = {sandbox.id for sandbox in known}
        self._announced = {one: passed for one, passed in self._announced.items() if one in ids}
        for sandbox in known:
            given = found.get(sandbox.id)
            if given is None or sandbox.id in self._ending or sandbox.deleting:
                continue
            now = self.instant()
            after = await self._idleness(sandbox, given, now)
            left = after.left(now)
            if left is not None and left <= 0:
                self._end(sandbox, after, "ttl")
            elif (idle := after.idle_left(now)) is not None and idle <= 0:
                self._end(sandbox, after, "idle")
            else:
                if after.ttl is not None and left is None and sandbox.status in (READY, RUNNING):
                    # It was started while the control plane did not run.
                    after = after.due(now, after.ttl * SECOND)
                await self._note(given, _kept(after, now).noted(now))
                self._announce(sandbox, after, left)
                nearest = [each for each in (left, idle) if each is not None]
                wait = min([wait, *(each / SECOND for each in nearest)])
        return max(0.05, wait)

    def _announce(self, sandbox: StoredSandbox, given: Terms, left: int | None) -> None:
        """Have open sessions say that the sandbox ends soon: once at each of `_ANNOUNCED`, again where it was extended."""
        passed = sum(1 for each in _ANNOUNCED if left is not None and left <= each * SECOND)
        before = self._announced.pop(sandbox.id, 0)
        if passed:
            self._announced[sandbox.id] = passed
        engine = self._engines.get(sandbox.engine)
        if left is None or passed <= before or sandbox.status not in (READY, RUNNING):
            return
        if isinstance(engine, Announces):
            happens = ending(round(left / SECOND), "destroy" if given.remove else "stop")
            line = f"irons: {sandbox.name} {happens}; irons extend {sandbox.name} 2h gives it more time"
            task = asyncio.create_task(_announced(engine, sandbox.id, line), name=f"announce {sandbox.id}")
            self._announcing.add(task)
            task.add_done_callback(self._announcing.discard)

    def _end(self, sandbox: StoredSandbox, given: Terms, by: str) -> None:
        if sandbox.id in self._ending:
            return
        self._ending[sandbox.id] = task = asyncio.create_task(
            self._ended(sandbox, given, by), name=f"end {sandbox.id}"
        )
        task.add_done_callback(lambda _: self._ending.pop(sandbox.id, None))

    async def _ended(self, sandbox: StoredSandbox, given: Terms, by: str) -> None:
        destroys = by == "ttl" and given.remove
        if by == "ttl":
            why = f"at the end of its time to live ({_duration(given.ttl or 0)})"
        else:
            why = f"after it was idle for {_duration(given.idle_stop or 0)}"
        try:
            async with asyncio.timeout(_ENDED_WITHIN):
                if sandbox.status not in (STOPPED, ERROR):
                    _log.warning("%s (%s) is stopped %s", sandbox.name, sandbox.id, why)
                    await self._lifecycle.stop(sandbox.id, f"stopped {why}")
                    await self._lifecycle.settled(sandbox.id)
                if destroys:
                    text = f"destroyed {why}"
                    await self._store.write(lambda c: sandboxes.note_end(c, sandbox.id, text), last=True)
                    _log.warning("%s (%s) is destroyed %s", sandbox.name, sandbox.id, why)
                    await self._lifecycle.delete(sandbox.id, text)
                    return
            # The stop itself is in the change log.
            await self._rewrite(sandbox.id, lambda _, now: _over(now, by, self.instant()), noted=False)
        except HttpError as error:
            if error.status != 404:
                _log.warning("%s (%s) could not be ended %s: %s", sandbox.name, sandbox.id, why, error)
                await asyncio.sleep(_EVERY)
        except (StoreError, TimeoutError) as error:
            _log.warning("%s (%s) could not be ended %s: %s", sandbox.name, sandbox.id, why, error or "late")
            await asyncio.sleep(_EVERY)

    async def _idleness(self, sandbox: StoredSandbox, given: Terms, now: Instant) -> Terms:
        """The terms with since when it has been idle."""
        if given.idle_stop is None:
            return given
        kept = self._idle.get(sandbox.id)
        since = kept if kept is not None and kept.boot == now.boot else given
        if sandbox.status not in (READY, RUNNING):
            self._idle.pop(sandbox.id, None)
            self._looked.pop(sandbox.id, None)
            return replace(given, idle_since=None, idle_used=None)
        pause = min(_IDLE_EVERY, given.idle_stop / 4) * SECOND
        looked = self._looked.get(sandbox.id)
        if looked is not None and looked <= now.up < looked + pause and (since.idle_left(now) or 1) > 0:
            return replace(given, idle_since=since.idle_since, idle_used=since.idle_used)
        self._looked[sandbox.id] = now.up
        seen = await self._activity(sandbox)
        budget = _SHARE * given.idle_stop * SECOND
        if seen is None or seen.sessions or await self._gateways.live(sandbox.id) != 0:
            after = replace(given, boot=now.boot, idle_since=None, idle_used=None)
        elif (
            since.idle_since is None
            or since.boot != now.boot
            or since.idle_used is None
            or not 0 <= seen.processor - since.idle_used < budget
        ):
            after = replace(given, boot=now.boot, idle_since=now.up, idle_used=seen.processor)
        else:
            after = replace(given, boot=now.boot, idle_since=since.idle_since, idle_used=since.idle_used)
        self._idle[sandbox.id] = after
        return after

    async def _activity(self, sandbox: StoredSandbox) -> Activity | None:
        engine = self._engines.get(sandbox.engine)
        if not isinstance(engine, Observer):
            return None
        try:
            return await engine.activity(sandbox.id)
        except (EngineError, CellError, OSError):
            return None

    async def _note(self, before: Terms, after: Terms) -> None:
        def write(connection: sqlite3.Connection) -> None:
            # What was asked for in the meantime is not undone.
            if terms.get(connection, before.sandbox) == before:
                terms.put(connection, after)

        if after != before:
            await self._store.write(write)

    async def _rewrite(
        self, name: str, work: Callable[[StoredSandbox, Terms], Terms], *, noted: bool = True
    ) -> None:
        def write(connection: sqlite3.Connection) -> None:
            found = sandboxes.get(connection, name)
            before = terms.get(connection, found.id)
            after = work(found, before)
            terms.put(connection, after)
            if noted:
                record_terms(connection, found, before, after)

        await self._store.write(write)
        self._news.set()

    def _check(self, sandbox: StoredSandbox, asked: Terms) -> None:
        if asked.remove and asked.ttl is None:
            raise bad("rm needs a ttl: it destroys the sandbox at the end of it")
        engine = self._engines.get(sandbox.engine)
        if asked.idle_stop is not None and engine is not None and not isinstance(engine, Observer):
            raise bad(f"the engine {sandbox.engine!r} cannot tell whether a sandbox is idle")


async def _announced(engine: Announces, sandbox: str, line: str) -> None:
    try:
        await engine.announce(sandbox, line)
    except (EngineError, CellError, OSError) as error:
        _log.warning("open sessions of %s could not be notified of its end: %s", sandbox, error)


def _kept(given: Terms, now: Instant) -> Terms:
    """Terms as they are worth storing: who is busy now and then is idle for some seconds ever again."""
    if given.idle_since is not None and now.up - given.idle_since < _IDLE_NOTED_AFTER * SECOND:
        return replace(given, idle_since=None, idle_used=None)
    return given


def _over(given: Terms, by: str, now: Instant) -> Terms:
    """Terms after one of them has done its work; `ttl` counts again from the next start."""
    left = given.left(now)
    if by == "ttl" and left is not None and left <= 0:
        given = given.due(now, None)
    return replace(given, idle_since=None, idle_used=None)


def _duration(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length and not seconds % length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
