"""The gateway's workers, as the keeper sees them: each is watched, restarted and refused for separately."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from irons.files import write_whole
from irons_local.ipc.fields import BadMessageError
from irons_local.ipc.framing import Body
from irons_local.ipc.messages import WORKER_TO_KEEPER, Detach, FromKeeper, Missed, body_of, read
from irons_local.keeper.cells.loop import Loop
from irons_local.keeper.cells.registry import CellRegistry, CellSockets
from irons_local.keeper.cells.requests import KeeperRequest
from irons_local.keeper.cells.standby import StandbyRefuser
from irons_local.keeper.supervise import succession
from irons_local.keeper.supervise.assignment import Assignment
from irons_local.keeper.supervise.forkserver import Warm
from irons_local.keeper.supervise.spawn import PendingProcess, Plan
from irons_local.keeper.supervise.supervisor import ManagedProcess, find, say

_BEGUN_WITHIN = 5.0


@dataclass(slots=True)
class _Gateway:
    """One worker, what is refused in its place while it is gone, and what it says of itself."""

    process: ManagedProcess
    absence: StandbyRefuser
    memory: int | None = None


class GatewayWorkers:
    """Keeps the workers, and gives each cell to one of them.

    Args:
        loop: the keeper's.
        warm: what the process is that workers are forked from; workers are named after it.
        count: how many workers there are for all cells.
        version: the keeper's own.
        kept: the file that tells the next keeper which worker serves which cell.
        begun: called with a worker's number when its link is up.
        moved: called with a cell that is about to be served by another worker than before.

    Attributes:
        held: the cells.
    """

    def __init__(
        self,
        loop: Loop,
        warm: Plan,
        count: int,
        version: str,
        kept: Path,
        begun: Callable[[int], None],
        moved: Callable[[str], None],
    ) -> None:
        self._loop, self._plan, self._version, self._kept = loop, warm, version, kept
        self._told_begun, self._told_moved = begun, moved
        self._warm = Warm(loop, warm, version)
        self._assignment = Assignment(count)
        self._workers: dict[int, _Gateway] = {}
        self._resuming = False
        self.held = CellRegistry(loop, self._attach, self._detach)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._workers))

    def process(self, number: int) -> ManagedProcess:
        """The process of a worker."""
        return self._workers[number].process

    def cells(self, number: int) -> list[str]:
        """The cells of a worker."""
        return self._assignment.cells(number)

    def served(self, cell: str) -> list[int]:
        """Every worker that serves or served a cell in its life, the one of now last."""
        return list(self._assignment.served(cell))

    def status(self) -> list[dict[str, Any]]:
        """How each worker is."""
        return [
            {
                "worker": number,
                "pid": gateway.process.pid if gateway.process.link else None,
                "failures": gateway.process.failures,
                "cells": self.cells(number),
                "memory": gateway.memory if gateway.process.link else None,
            }
            for number, gateway in sorted(self._workers.items())
        ]

    @property
    def nursery(self) -> ManagedProcess:
        """The warm process."""
        return self._warm.process

    # Finding and starting

    def run(self) -> None:
        """Take over what an earlier keeper left, and start what is missing; cells that are found are held again."""
        # One of a time when there was one gateway for all; or the warm process of an earlier keeper, which is ended.
        single = find(self._plan)
        # It takes longest, and imports while this process waits for others.
        self._warm.process.start()
        left = succession.take_over(self._plan, self._plan_of, self._version, self._kept, self.held, single)
        for cell in self.held:
            if cell.name in left.served:
                self._assignment.learn(cell.name, left.served[cell.name])
        if len(self.held):
            self._keep()
        self._resuming = True
        for number, process in left.workers.items():
            found = self._add(number).process
            found.resume(process)
            # It reported that it is alive while it was taken over, and may hang before the next report.
            for body in left.said[number] if found.link is not None else ():
                self._told(number, body)
        self._resuming = False
        for cell in self.held:
            number = self._serve(cell)
            if cell.name in left.unserved:
                # Its new worker may have been found too.
                self._hand_over(number, cell)
        for number in range(self._assignment.count):
            if number not in self._workers:
                self._add(number).process.start()
        self._drop_idle()
        for number in succession.numbers(self._plan):
            if number not in self._workers:
                succession.remove(self._plan_of(number))

    def _plan_of(self, number: int) -> Plan:
        return self._plan._replace(
            name=f"{self._plan.name}-{number}",
            argv=(),
            log=self._plan.log.with_name(f"{self._plan.name}-{number}.log"),
            stays=True,
            link="IRONS_LINK",
        )

    def _add(self, number: int) -> _Gateway:
        absence = StandbyRefuser(self._loop, partial(self._tell_missed, number))
        # It is absent until it begins, perhaps from a warm process that begins itself.
        absence.gateway_ended(_BEGUN_WITHIN)
        process = ManagedProcess(
            self._loop,
            self._plan_of(number),
            self._version,
            partial(self._heard, number),
            partial(self._begun, number),
            partial(self._ended, number),
            partial(self._bear, number),
        )
        gateway = self._workers[number] = _Gateway(process, absence)
        return gateway

    def _bear(self, number: int, birth: PendingProcess) -> None:
        self._warm.bear(birth, number, max(self._assignment.count, len(self._workers)))

    # What happens to workers

    def _heard(self, number: int, ask: KeeperRequest) -> None:
        self._told(number, ask.body)
        ask.drop()

    def _told(self, number: int, body: Body) -> None:
        gateway = self._workers.get(number)
        # One that was just ended, as its last cell is gone, may still have something to say.
        if gateway is None:
            return
        if "ok" in body:
            gateway.absence.gateway_noted(str(body.get("id")))
            return
        try:
            alive = read(WORKER_TO_KEEPER, body)
        except BadMessageError:
            return  # of a later version, or of a worker that went mad
        gateway.process.alive()
        gateway.absence.gateway_alive()
        gateway.memory = gateway.memory if alive.memory is None else alive.memory

    def _begun(self, number: int) -> None:
        gateway = self._workers[number]
        gateway.absence.gateway_begun()
        gateway.memory = None
        if not self._resuming:
            self._told_begun(number)
            for cell in self._held(self.cells(number)):
                self._hand_over(number, cell)

    def _ended(self, number: int) -> None:
        gateway = self._workers.get(number)
        if gateway is None:
            return
        gateway.absence.gateway_ended()
        if gateway.process.served and not gateway.process.told:
            for name, other in self._assignment.died(number).items():
                self._move(name, number, other)

    def _move(self, name: str, number: int, other: int) -> None:
        """Have a cell served by another worker: its own may die again and again because of it."""
        say(f"gateway-{other} serves {name} alone from now on: its worker died twice within a minute")
        self._keep()
        self._told_moved(name)
        missed = self._workers[number].absence.remove(name)
        fresh = other not in self._workers
        if fresh:
            self._add(other)
        for cell in self._held([name]):
            self._workers[other].absence.add(cell, missed)
            self._hand_over(other, cell)
        if fresh:
            self._start(other)

    def _start(self, number: int) -> None:
        # Without a failure before, that is at once.
        self._workers[number].process.renew()

    def _tell_missed(self, number: int, name: str, count: int) -> None:
        link = self._workers[number].process.link
        if link is not None:
            # It answers once it has noted it.
            link.send({**body_of(Missed(name, count)), "id": name})

    def _send(self, number: int, message: FromKeeper, fds: Iterable[int] = ()) -> None:
        link = self._workers[number].process.link
        if link is not None:
            link.send(body_of(message), list(fds))

    # What happens to cells

    def place(self, name: str) -> dict[str, Any]:
        """The worker of a cell, which is given one here if it has none: its number and its process."""
        known = self._assignment.served(name)
        number = self._assignment.of(name)
        if not known:
            self._keep()
        if number not in self._workers:
            self._add(number)
            self._start(number)
        process = self._workers[number].process
        return {
            "worker": number,
            "pid": process.pid if process.link else None,
            "served": self.served(name),
        }

    def _attach(self, cell: CellSockets) -> None:
        """Have a cell served."""
        number = self._serve(cell)
        self._hand_over(number, cell)

    def _detach(self, name: str) -> None:
        """A cell is gone, or was only named."""
        number = self._assignment.release(name)
        if number is None:
            return
        self._keep()
        gateway = self._workers.get(number)
        if gateway is not None:
            gateway.absence.remove(name)
            self._send(number, Detach(name))
        self._drop_idle()

    def _serve(self, cell: CellSockets) -> int:
        number = int(self.place(cell.name)["worker"])
        self._workers[number].absence.add(cell)
        return number

    def _hand_over(self, number: int, cell: CellSockets) -> None:
        self._send(number, cell.attachment(), cell.sockets)

    def _held(self, names: Iterable[str]) -> list[CellSockets]:
        wanted = set(names)
        return [cell for cell in self.held if cell.name in wanted]

    def _keep(self) -> None:
        """Record for the next keeper, and for the journal's reader, which worker serves which cell."""
        try:
            write_whole(self._kept, json.dumps(self._assignment.state()), parents=False)
        except OSError as error:
            say(f"which worker serves which cell cannot be kept: {error}")

    def _drop_idle(self) -> None:
        """End a worker beyond those for all that has no cell any more."""
        for number in [number for number in self._workers if number >= self._assignment.count]:
            if not self.cells(number):
                gateway = self._workers.pop(number)
                gateway.process.end(partial(succession.remove, gateway.process.plan))

    # Restart and end

    def restart(self, number: int | None = None) -> None:
        """Start one worker again, or all, and the warm process with them."""
        if number is None:
            self._warm.renew()
        for each in [number] if number in self._workers else sorted(self._workers):
            self._workers[each].process.renew()

    def end(self, done: Callable[[], None]) -> None:
        """End them all, and then call back."""
        processes = [gateway.process for gateway in self._workers.values()]
        left = [*processes, self._warm.process]

        def ended(process: ManagedProcess) -> None:
            left.remove(process)
            succession.remove(process.plan)
            if not left:
                done()

        # The warm one first: nothing is forked from now on.
        for process in [self._warm.process, *processes]:
            process.end(partial(ended, process))
