"""What plugins hear: new events of the audit log, steps of sandboxes and questions, written to a process of their own.

The log itself is the queue of events, read like any other reader does, so that intake never waits for a plugin. Where a plugin falls
behind by more than `BEHIND` events, the oldest are passed over, and the plugin gets the number.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from irons.plugin.finding import are_there, fingerprint
from irons.text import clean
from irons_local import times
from irons_local.control.audit.events import Page, Query
from irons_local.control.schema.errors import HttpError
from irons_local.control.store.database import StoreError
from irons_local.control.store.sandboxes import StoredSandbox
from irons_local.times import rfc3339

_log = logging.getLogger(__name__)

BEHIND = 10_000
"""Events that a plugin may be behind."""

CHANGES = 1_000
"""Steps of sandboxes that wait at most."""

_PIECE = 200
_LONGEST_TEXT = 500
_LOOK_EVERY = 5.0
_LOADED_WITHIN = 60.0
_ENDS_WITHIN = 1.0
_WELL_AFTER = 60.0
_LONGEST_PAUSE = 300.0
_LINES = 20
"""Lines of its output that are logged in `_LOOK_EVERY` seconds."""

_OURS = ("IRONS_LINK", "IRONS_KEEPER", "IRONS_NURSERY")
"""Variables that name descriptors of the daemon."""


class _Asked:
    """A question that plugins hear of, and what they may answer."""

    def __init__(self, found: asyncio.Future[tuple[str, str] | None], may: Sequence[str]) -> None:
        self.found, self.may = found, may

    def take(self, answer: tuple[str, str] | None) -> None:
        """Take the first answer, with who gave it; None for no answer from plugins that had no time for it."""
        if not self.found.done():
            self.found.set_result(answer)


Pager = Callable[[Query, float], Awaitable[Page]]


class HookFeed:
    """Keeps the process of `irons_local.hooks` running where there are plugins, and feeds it.

    Args:
        page: reads a page of the audit log, and waits for one.
        environ: this process's variables.
        command: gives what starts the process; asked where there are plugins.
        pause: seconds before it is started again after it failed; doubled each time.
        look_every: seconds between two looks for plugins that are new or changed.
    """

    def __init__(
        self,
        page: Pager,
        environ: Mapping[str, str],
        command: Callable[[], Sequence[str]],
        *,
        pause: float = 1.0,
        look_every: float = _LOOK_EVERY,
    ) -> None:
        self._page = page
        self._environ = {name: value for name, value in environ.items() if name not in _OURS}
        self._command = command
        self._first_pause = pause
        self._look_every = look_every
        self._cursor: int | None = None
        self._begun = self._from = 0
        self._changes: deque[dict[str, str]] = deque()
        self._lost = 0
        self._questions: deque[Mapping[str, Any]] = deque()
        self._asked: dict[str, _Asked] = {}
        self._news = asyncio.Event()
        self._wanted = self._hears = False

    def note(self, kind: str, sandbox: StoredSandbox) -> None:
        """Take a step of a sandbox: `ready`, `stopped` or `destroyed`."""
        if not self._wanted:
            return
        if len(self._changes) >= CHANGES:
            self._changes.popleft()
            self._lost += 1
        at = rfc3339(times.now())
        self._changes.append({"kind": kind, "sandbox": clean(sandbox.name), "id": sandbox.id, "at": at})
        self._news.set()

    @property
    def hears_questions(self) -> bool:
        """Whether a plugin has the hook `irons_ask`, and its process runs."""
        return self._hears

    async def ask(self, question: Mapping[str, Any]) -> tuple[str, str] | None:
        """Have plugins hear of a question. The caller limits how many are open.

        Args:
            question: what goes out of it; its `id` names it, and no other one that is open.

        Returns:
            The plugin that first gave an answer that `may` of the question has, and that answer; two empty texts where none did, or its
            process ended at this question. None where it ended, or plugins were exchanged, before they could answer.
        """
        identity = str(question["id"])
        if not self._hears:
            # They have gone since the caller looked.
            return None
        asked = self._asked[identity] = _Asked(
            asyncio.get_running_loop().create_future(), tuple(question["may"])
        )
        self._questions.append(question)
        self._news.set()
        try:
            return await asked.found
        finally:
            del self._asked[identity]

    async def run(self) -> None:
        """Serve plugins for as long as this is not cancelled; no failure of theirs ends it."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            seen = fingerprint(self._environ)
            began = loop.time()
            well = True
            if are_there(self._environ):
                try:
                    well = await self._serve(seen)
                except (OSError, ValueError, StoreError, HttpError) as error:
                    _log.warning("the process of plugins: %s", error)
                    well = False
            else:
                self._wanted = False
                await self._until_changed(seen)
            if well or loop.time() - began > _WELL_AFTER:
                failures = 0
            if not well:
                failures += 1
                await asyncio.sleep(min(self._first_pause * 2 ** min(failures - 1, 16), _LONGEST_PAUSE))

    async def _serve(self, seen: object) -> bool:
        """Run the process until plugins change (True) or it ends (False); True too where no plugin has such a hook."""
        process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=self._environ,
            cwd="/",
            start_new_session=True,
        )
        changed = asyncio.create_task(self._until_changed(seen))
        work: list[asyncio.Task[None]] = [asyncio.create_task(self._log_of(process))]
        try:
            hooks = await self._hooks_of(process)
            self._wanted = bool(hooks)
            self._hears = hooks is not None and "irons_ask" in hooks
            if hooks is None:
                return False
            if not hooks:
                await changed
                return True
            last = [asyncio.create_task(_ended(process)), asyncio.create_task(self._follow(process))]
            until: list[asyncio.Task[None]] = [changed, *last, asyncio.create_task(self._steps(process))]
            if "irons_event" in hooks:
                until.append(asyncio.create_task(self._events(process)))
            work += until
            await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
            if changed.done():
                return True
            # Which event it began last is known once its output was read to the end.
            await asyncio.wait(last, timeout=_ENDS_WITHIN)
            self._resume(process)
            return False
        finally:
            self._hears = False
            self._let_go(exchanged=changed.done())
            for each in (changed, *work):
                each.cancel()
            for problem in await asyncio.gather(changed, *work, return_exceptions=True):
                if isinstance(problem, Exception):
                    _log.warning("the process of plugins: %s: %s", type(problem).__name__, problem)
            await asyncio.shield(_end(process))

    def _let_go(self, *, exchanged: bool) -> None:
        """Give up the questions of a process that is over: they are asked again, but for the one that it may have ended at."""
        queued = {str(each["id"]) for each in self._questions}
        self._questions.clear()
        begun = (name for name, each in self._asked.items() if name not in queued and not each.found.done())
        last = None if exchanged else next(begun, None)
        for name, asked in self._asked.items():
            asked.take(("", "") if name == last else None)

    async def _hooks_of(self, process: Process) -> Sequence[str] | None:
        """The hooks that plugins implement; None where the process did not say."""
        try:
            async with asyncio.timeout(_LOADED_WITHIN):
                told = json.loads(await _out(process).readline())
            return [str(each) for each in told["hooks"]]
        except (TimeoutError, ValueError, LookupError, TypeError):
            _log.warning("the process of plugins did not begin")
            return None

    def _resume(self, process: Process) -> None:
        """Go on after the event that was begun last: the one that a process ended at is not repeated."""
        if self._cursor is not None:
            self._cursor = max(self._begun, self._from)
        _log.warning("the process of plugins ended (%s) at event %d", process.returncode, self._begun)

    async def _events(self, process: Process) -> None:
        if self._cursor is None:
            self._cursor = self._from = (await self._page(Query(limit=1, size=1), 0.0)).token
        while True:
            found = await self._page(Query(after=self._cursor, size=_PIECE), 60.0)
            await _write(process, [{"event": _cut(event)} for event in found.events])
            self._cursor = max(self._cursor, found.token)
            if len(found.events) == _PIECE:
                await self._catch_up()

    async def _catch_up(self) -> None:
        """Pass over the oldest events where the plugins are too far behind."""
        assert self._cursor is not None  # noqa: S101 - events were read
        newest = (await self._page(Query(limit=1, size=1), 0.0)).token
        if newest - self._cursor > BEHIND:
            self._lost += newest - BEHIND - self._cursor
            self._cursor = self._from = newest - BEHIND
            self._news.set()

    async def _steps(self, process: Process) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._questions:
                await _write(process, [{"question": self._questions.popleft()}])
            lost, self._lost = self._lost, 0
            if lost:
                _log.warning("plugins are behind: %d events or changes were not delivered", lost)
                await _write(process, [{"lost": lost}])
            while self._changes:
                await _write(process, [{"change": self._changes.popleft()}])

    async def _follow(self, process: Process) -> None:
        while line := await _out(process).readline():
            with suppress(ValueError, LookupError, TypeError):
                told = json.loads(line)
                if "question" in told:
                    self._take_answer(str(told["question"]), str(told["by"]), str(told["answer"]))
                else:
                    self._begun = int(told["event"])

    def _take_answer(self, question: str, by: str, said: str) -> None:
        """Take an answer to a question; an empty one of no plugin says that all are done."""
        asked = self._asked.get(question)
        if asked is None:
            return
        if (by or said) and said not in asked.may:
            _log.warning("plugin %s, irons_ask: %r is not an answer that it may give", clean(by), clean(said))
        else:
            asked.take((by, said))

    async def _log_of(self, process: Process) -> None:
        """Log what plugins print, so much of it as one may."""
        assert process.stderr is not None  # noqa: S101 - it was asked for
        loop = asyncio.get_running_loop()
        since, lines, dropped = loop.time(), 0, 0
        while piece := await process.stderr.read(4096):
            if loop.time() - since > self._look_every:
                if dropped:
                    _log.warning("plugins: %d more pieces of output are left out", dropped)
                since, lines, dropped = loop.time(), 0, 0
            for line in piece.decode(errors="replace").splitlines():
                lines += 1
                if lines > _LINES:
                    dropped += 1
                elif line.strip():
                    _log.warning("plugins: %s", clean(line, limit=_LONGEST_TEXT))

    async def _until_changed(self, seen: object) -> None:
        while fingerprint(self._environ) == seen:  # noqa: ASYNC110 - files have no event
            await asyncio.sleep(self._look_every)


def _cut(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event with its texts cleaned and cut: they are the sandbox's words."""
    return {
        key: clean(value, limit=_LONGEST_TEXT) if isinstance(value, str) else value
        for key, value in event.items()
    }


def _out(process: Process) -> asyncio.StreamReader:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    return process.stdout


async def _write(process: Process, messages: Sequence[Mapping[str, Any]]) -> None:
    """Write messages, and wait while the process is behind. Raises `OSError` where it has ended."""
    assert process.stdin is not None  # noqa: S101 - it was asked for
    for message in messages:
        process.stdin.write(json.dumps(message).encode() + b"\n")
        await process.stdin.drain()


async def _ended(process: Process) -> None:
    await process.wait()


async def _end(process: Process) -> None:
    """End the process, and what it has started."""
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDS_WITHIN):
                await process.wait()
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
