"""Waiting for sockets: what the kernel is asked for, what is left behind, and deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from irons_local.gateway.budget import fairness
from irons_local.gateway.budget.fairness import FairSelector
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.streams.stream import Wire

CELL = "sb_00000000000000aa"
SHORT, LONG = 0.02, 30.0


class Counting(FairSelector):
    """Counts what the kernel is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.told = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        """Count."""
        self.told += 1
        return super().register(fileobj, events, data)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> Any:
        """Count."""
        self.told += 1
        return super().modify(fileobj, events, data)

    def unregister(self, fileobj: Any) -> Any:
        """Count."""
        self.told += 1
        return super().unregister(fileobj)


class Place:
    """A loop that counts."""

    def __init__(self) -> None:
        self.selector = Counting()
        self.loop = FairLoop(self.selector)
        self.held = contextlib.ExitStack()

    def wire(self) -> tuple[Wire, socket.socket]:
        """A wire of a cell's, and the other end of it."""
        near, far = (self.held.enter_context(each) for each in socket.socketpair())
        return fairness.of(CELL).run(Wire, self.loop, near), far

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run work of the cell's to its end."""
        task = fairness.of(CELL).run(self.loop.create_task, work)
        return self.loop.run_until_complete(asyncio.wait_for(task, 60))


@pytest.fixture
def place() -> Iterator[Place]:
    """A loop that counts."""
    place = Place()
    try:
        yield place
    finally:
        place.loop.close()
        place.held.close()


def test_many_waits_for_one_socket_tell_the_kernel_once(place: Place) -> None:
    """Waiting again costs no system call."""
    wire, far = place.wire()

    async def work() -> None:
        for _ in range(5):
            place.loop.call_soon(far.send, b"x")
            assert await wire.recv() == b"x"

    before = place.selector.told
    place.run(work())
    assert place.selector.told - before == 1


def test_what_nothing_waits_for_is_taken_out(place: Place) -> None:
    """A socket that is readable and not waited for wakes the loop once, not for ever, and can be waited for again."""
    wire, far = place.wire()

    async def work() -> int:
        place.loop.call_soon(far.send, b"x")
        await wire.readable()
        turns = 0
        for _ in range(50):
            await asyncio.sleep(0)
            turns += wire.fd in place.selector.get_map()
        assert wire.fd not in place.selector.get_map()
        await wire.readable(LONG)
        return turns

    assert place.run(work()) < 50


def test_a_closed_socket_leaves_nothing_that_meets_the_next_one(place: Place) -> None:
    """The descriptor of a socket that was waited for is waited for again in the hands of another socket."""
    wire, far = place.wire()

    async def work() -> None:
        place.loop.call_soon(far.send, b"x")
        await wire.readable()
        # An event may be under way already.
        far.send(b"y")
        wire.close()
        near, other = (place.held.enter_context(each) for each in socket.socketpair())
        if near.fileno() != wire.fd:
            os.dup2(near.fileno(), wire.fd)
            near = place.held.enter_context(socket.socket(fileno=wire.fd))
        fresh = Wire(place.loop, near)
        assert fresh.fd == wire.fd
        with pytest.raises(TimeoutError):
            await fresh.readable(SHORT)
        place.loop.call_soon(other.send, b"z")
        assert await fresh.recv(within=LONG) == b"z"

    place.run(work())


def test_an_end_that_nothing_waits_for_does_not_spin(place: Place) -> None:
    """Both ends of a connection that hung up are reported by the kernel for ever; the loop rests all the same."""
    wire, far = place.wire()

    async def work() -> None:
        place.loop.call_soon(far.close)
        assert await wire.recv() == b""
        wire.finish()
        for _ in range(20):
            await asyncio.sleep(0)
        assert wire.fd not in place.selector.get_map()

    place.run(work())


def test_a_deadline_passes_in_its_own_time_and_the_others_in_theirs(place: Place) -> None:
    """Waits of one length end one after the other, those that are over are not called, and lengths don't mix."""
    passed: list[str] = []

    async def work() -> None:
        deadlines = place.loop.deadlines
        began = place.loop.time()

        def second() -> None:
            passed.append("second")
            third.cancel()

        deadlines.after(LONG, lambda: passed.append("long"))
        first = deadlines.after(SHORT, lambda: passed.append("first"))
        deadlines.after(SHORT, second)
        third = deadlines.after(SHORT, lambda: passed.append("third"))
        first.cancel()
        first.cancel()
        done = asyncio.Event()
        await asyncio.sleep(SHORT / 2)
        deadlines.after(SHORT, done.set)
        await asyncio.wait_for(done.wait(), LONG)
        assert place.loop.time() - began >= SHORT * 1.5

    place.run(work())
    assert passed == ["second"]
