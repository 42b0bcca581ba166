"""How a task that has used up its turn gives way: in its own cell's turn, charged to that cell."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import selectors
import socket
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from irons_local.gateway.budget import fairness
from irons_local.gateway.budget.fairness import FairSelector
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.budget.yielding import Pace
from irons_local.gateway.streams.stream import Wire

BUSY, OTHER = "sb_00000000000000aa", "sb_00000000000000bb"
ONE = 0.002
"""Seconds that each task computes before it gives way."""


class Place:
    """A loop with two cells, whose time passes as its test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.selector = FairSelector(spent=lambda: self.now, clock=lambda: self.now)
        self.loop = FairLoop(self.selector)
        self.paces = {name: Pace(self.selector.turn) for name in (BUSY, OTHER)}
        self._held = contextlib.ExitStack()
        for name in self.paces:
            # As a cell's doors are, something of each is always watched.
            door, _ = (self._held.enter_context(each) for each in socket.socketpair())
            fairness.of(name).run(self.selector.register, door, selectors.EVENT_READ, (None, None))

    def task(self, cell: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work of one cell."""
        return self.loop.create_task(work, context=fairness.of(cell, self.paces[cell]))

    def wires(self, cell: str) -> tuple[Wire, socket.socket]:
        """One cell's wire, and the other end of it."""
        near, far = (self._held.enter_context(each) for each in socket.socketpair())
        return fairness.of(cell, self.paces[cell]).run(Wire, self.loop, near), far

    def close(self) -> None:
        """End what runs."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.wait_for(self.loop.shutdown_asyncgens(), 60))
        for pace in self.paces.values():
            pace.close()
        self.loop.close()
        self._held.close()


@pytest.fixture
def place() -> Iterator[Place]:
    """A loop and its clock."""
    place = Place()
    try:
        yield place
    finally:
        place.close()


def waits(place: Place, yielding: int) -> list[float]:
    """How long another cell waits each time for its turn, next to so many tasks that compute and give way."""
    wire, far = place.wires(OTHER)
    found: list[float] = []

    async def compute() -> None:
        while True:
            place.now += ONE
            await place.paces[BUSY].rest()

    async def live() -> None:
        for _ in range(200):
            asked = place.now
            far.send(b"x")
            assert wire.take() == b"x"
            far.send(b"y")
            await wire.readable()
            assert wire.take() == b"y"
            place.now += ONE / 10
            found.append(place.now - asked)

    for _ in range(yielding):
        place.task(BUSY, compute())
    place.loop.run_until_complete(asyncio.wait_for(place.task(OTHER, live()), 30))
    return found[1:]


def test_many_that_give_way_cost_another_cell_no_more_than_one(place: Place) -> None:
    """Next to 64 tasks of a cell that compute and give way, another cell waits as long as next to one of them."""
    one, many = waits(place, 1), waits(place, 64)
    assert max(one) >= ONE
    assert max(many) <= max(one)
    assert sum(many) <= sum(one) + ONE


def test_each_of_those_that_gave_way_goes_on_in_turn(place: Place) -> None:
    """None of many goes on twice before every other has."""
    order: list[int] = []

    async def compute(number: int) -> None:
        for _ in range(3):
            order.append(number)
            await place.paces[BUSY].rest()

    tasks = [place.task(BUSY, compute(number)) for number in range(20)]
    place.loop.run_until_complete(asyncio.wait(tasks, timeout=60))
    assert order == [*range(20)] * 3


def test_one_that_is_cancelled_while_it_waits_has_no_turn(place: Place) -> None:
    """The next one goes on in its place, and a cell without a waiting connection watches nothing."""

    async def wait() -> None:
        await place.paces[BUSY].rest()

    async def run() -> None:
        before = set(place.selector.get_map())
        first, second = place.task(BUSY, wait()), place.task(BUSY, wait())
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert first.cancelled()
        assert set(place.selector.get_map()) == before

    place.loop.run_until_complete(asyncio.wait_for(run(), 30))


def test_whoever_waits_goes_on_when_the_cell_is_gone(place: Place) -> None:
    """Closing lets go of the descriptor, and of everyone."""
    # What an earlier test has left is closed before it is counted.
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))

    async def run() -> None:
        task = place.task(BUSY, place.paces[BUSY].rest())
        await asyncio.sleep(0)
        place.paces[BUSY].close()
        await task
        await place.paces[BUSY].rest()

    place.loop.run_until_complete(asyncio.wait_for(run(), 30))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("way", ["recv", "send"])
def test_a_wire_that_never_has_to_wait_gives_way(place: Place, way: str) -> None:
    """A cell that reads or writes without end leaves another its turns, once its own are over."""
    wire, far = place.wires(BUSY)
    far.setblocking(False)
    moved = 0

    async def go() -> None:
        nonlocal moved
        while True:
            place.selector.turn.until = -math.inf if moved else math.inf
            if way == "send":
                await wire.send(b"x")
                far.recv(1)
            else:
                far.send(b"x")
                await wire.recv(16)
            moved += 1
            place.now += ONE / 10

    place.task(BUSY, go())
    assert len(waits(place, 0)) == 199
    assert 0 < moved <= 1000


def test_a_wire_outside_any_cell_never_gives_way() -> None:
    """What is made in no cell's context has all the time there is."""
    near, far = socket.socketpair()
    with near, far, contextlib.closing(FairLoop()) as loop:
        assert not Wire(loop, near).pace.over
