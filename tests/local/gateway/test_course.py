"""What runs a connection's coroutine without a task: it goes on in the call that brings what it waits for."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from irons_local.gateway.attempt.course import Course, pause

NAMED: contextvars.ContextVar[str] = contextvars.ContextVar("named", default="")


class Desk:
    """A loop, one course on it, and what became of it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.seen: list[str] = []
        self.ends: list[BaseException | None] = []

    def course(self, steps: Coroutine[Any, Any, None]) -> Course:
        """A course that has not begun, with a context of its own."""
        context = contextvars.copy_context()
        context.run(NAMED.set, "its own")
        return Course(self.loop, steps, context, self.ends.append)

    def turns(self) -> None:
        """Let the loop do all that is to be done at once."""
        for _ in range(5):
            self.loop.run_until_complete(asyncio.sleep(0))

    async def waits(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for something, and tell whether that was interrupted."""
        self.seen.append("begun")
        try:
            await wait()
        except asyncio.CancelledError:
            self.seen.append("interrupted")
            raise
        self.seen.append(NAMED.get())


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A loop that is closed."""
    desk = Desk()
    yield desk
    desk.loop.close()


async def paused() -> None:
    """Wait for `go_on`."""
    await pause()


def test_its_end_is_told_in_its_own_context(desk: Desk) -> None:
    """Whoever calls last: what begins at the end of a connection is charged to the sandbox whose it was."""
    seen: list[str] = []
    context = contextvars.copy_context()
    context.run(NAMED.set, "its own")
    course = Course(desk.loop, paused(), context, lambda _: seen.append(NAMED.get()))
    course.go_on()
    course.go_on()
    assert seen == ["its own"]


def test_it_goes_on_in_the_call_that_says_so(desk: Desk) -> None:
    """Not a turn of the loop's later, and in its own context."""
    course = desk.course(desk.waits(paused))
    course.go_on()
    assert desk.seen == ["begun"]
    assert not course.stepping
    course.go_on()
    assert desk.seen == ["begun", "its own"]
    assert desk.ends == [None]
    course.go_on()
    course.cancel()
    desk.turns()
    assert desk.ends == [None]


def test_it_waits_for_whatever_a_task_could_wait_for(desk: Desk) -> None:
    """For a future, a task, and a task with a time limit; the context is its own afterwards too."""
    future = desk.loop.create_future()

    async def limited() -> None:
        async with asyncio.timeout(60):
            await future

    async def all_of_them() -> None:
        await future
        await desk.loop.create_task(asyncio.sleep(0))
        await desk.loop.create_task(limited())

    course = desk.course(desk.waits(all_of_them))
    course.go_on()
    desk.turns()
    assert desk.seen == ["begun"]
    future.set_result(None)
    desk.loop.run_until_complete(asyncio.wait_for(course.ended(), 60))
    assert (desk.seen, desk.ends) == (["begun", "its own"], [None])


@pytest.mark.parametrize("where", ["paused", "future", "task"])
def test_it_is_interrupted_wherever_it_waits(desk: Desk, where: str) -> None:
    """In a later call of the loop's; a task for which it waits is interrupted first."""
    future = desk.loop.create_future()

    async def inner() -> None:
        await desk.waits(lambda: asyncio.sleep(60))

    async def on_future() -> None:
        await future

    async def on_task() -> None:
        await desk.loop.create_task(inner())

    course = desk.course(desk.waits({"paused": paused, "future": on_future, "task": on_task}[where]))
    course.go_on()
    desk.turns()
    course.cancel()
    course.cancel()
    assert not desk.ends
    desk.loop.run_until_complete(asyncio.wait_for(course.ended(), 60))
    assert desk.seen.count("interrupted") == (2 if where == "task" else 1)
    assert [type(each) for each in desk.ends] == [asyncio.CancelledError]


def test_it_may_be_interrupted_before_it_begins(desk: Desk) -> None:
    """Nothing of it has run then, and its end is reported all the same."""
    course = desk.course(desk.waits(paused))
    desk.loop.call_soon(course.go_on)
    course.cancel()
    desk.turns()
    assert desk.seen == []
    assert [type(each) for each in desk.ends] == [asyncio.CancelledError]


@pytest.mark.parametrize("where", ["paused", "future"])
def test_it_may_interrupt_itself(desk: Desk, where: str) -> None:
    """What it does may lead to its own end, which it meets at its next wait."""
    courses: list[Course] = []

    async def work() -> None:
        courses[0].cancel()
        await (paused() if where == "paused" else desk.loop.create_future())

    courses.append(desk.course(desk.waits(work)))
    courses[0].go_on()
    desk.turns()
    assert desk.seen == ["begun", "interrupted"]
    assert [type(each) for each in desk.ends] == [asyncio.CancelledError]


def test_an_interruption_is_met_before_what_was_waited_for(desk: Desk) -> None:
    """Where both happen before it runs again it is interrupted, once, and may still wait to clean up."""
    future = desk.loop.create_future()

    async def cleans_up() -> None:
        try:
            await future
        finally:
            await pause()
            desk.seen.append("clean")

    course = desk.course(desk.waits(cleans_up))
    course.go_on()
    future.set_result(None)
    course.cancel()
    desk.turns()
    assert desk.seen == ["begun"]
    course.go_on()
    assert desk.seen == ["begun", "clean", "interrupted"]


def test_what_it_raises_is_handed_on(desk: Desk) -> None:
    """A fault does not reach the caller, who brought only an event; the end of the program does."""

    async def fails(error: BaseException) -> None:
        await pause()
        raise error

    fault = OSError("a fault")
    course = desk.course(fails(fault))
    course.go_on()
    course.go_on()
    assert desk.ends == [fault]
    course = desk.course(fails(KeyboardInterrupt()))
    course.go_on()
    with pytest.raises(KeyboardInterrupt):
        course.go_on()
    assert len(desk.ends) == 2
