"""The warm process, as the keeper sees it: workers are forked from it one by one, and outlive it."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from functools import partial

from irons_local.forkserver.server import BEGIN
from irons_local.keeper.cells.loop import Loop
from irons_local.keeper.cells.requests import KeeperRequest
from irons_local.keeper.supervise.spawn import PendingProcess, Plan, execute, log_of
from irons_local.keeper.supervise.supervisor import ManagedProcess, say

_ANSWER_WITHIN = 30.0
"""Seconds for one that has answered before: it does nothing but fork, and a busy machine may let it wait."""

_IMPORTED_WITHIN = 120.0
"""Seconds for one that has just been started: it imports first, which takes long where many others want the processors."""


class Warm:
    """Keeps a warm process, and has it fork.

    Args:
        loop: the keeper's.
        plan: what the warm process is.
        version: the keeper's own.
    """

    def __init__(self, loop: Loop, plan: Plan, version: str) -> None:
        self._loop = loop
        self._numbers = itertools.count(1)
        self._waiting: list[tuple[PendingProcess, int, int]] = []
        self._asked: dict[int, PendingProcess] = {}
        self._answered = False
        self.process = ManagedProcess(loop, plan, version, self._heard, self._begun, self._ended, execute)

    def bear(self, birth: PendingProcess, worker: int, workers: int) -> None:
        """Have a worker forked, now or as soon as the warm process is there.

        Args:
            birth: the worker.
            worker: its number.
            workers: how many there are.
        """
        self._waiting.append((birth, worker, workers))
        self._begun()

    def renew(self) -> None:
        """Start it again; what was not forked yet is forked from the next one."""
        self.process.renew()

    def _begun(self) -> None:
        link = self.process.link
        while link is not None and self._waiting:
            birth, worker, workers = self._waiting.pop(0)
            try:
                log = log_of(birth.plan)
            except OSError as error:
                birth.fail(str(error))
                continue
            number = next(self._numbers)
            self._asked[number] = birth
            asked = {"id": number, "op": "fork", "worker": worker, "workers": workers}
            link.send(asked, [*birth.given(), log])
            os.close(log)
            within = _ANSWER_WITHIN if self._answered else _IMPORTED_WITHIN
            self._loop.after(within, partial(self._late, number))
            link = self.process.link

    def _heard(self, ask: KeeperRequest) -> None:
        self._answered = True
        birth = self._asked.pop(ask.body.get("id", 0), None)
        ok = ask.body.get("ok")
        if birth is None:
            ask.drop()
        elif isinstance(ok, dict) and len(ask.fds) == 1:
            # It does nothing before this: one that no one waits for any more ends.
            with suppress(OSError):
                birth.near.send(BEGIN)
            birth.born(int(ok["pid"]), ask.fds.pop())
        else:
            ask.drop()
            birth.fail("the warm process could not fork")

    def _late(self, number: int) -> None:
        if number in self._asked:
            say(f"{self.process.plan.name} (process {self.process.pid}) does not answer; it is ended")
            self.process.kill()

    def _ended(self) -> None:
        asked, self._asked = self._asked, {}
        self._answered = False
        for birth in asked.values():
            birth.fail("the warm process ended")
