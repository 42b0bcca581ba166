"""Asking the host's resolver, fairly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address

import pytest
from tests.local.gateway.live_talks import Loop

from irons_local.gateway.reach.resolve import (
    PER_CELL,
    QUEUE_PER_CELL,
    REMEMBER,
    TIMEOUT,
    ResolveError,
    Resolver,
    lookup,
)
from irons_policy.addresses import Address

HERE = IPv4Address("203.0.113.1")


def run(work: Callable[[Resolver, threading.Event, list[str]], Awaitable[None]]) -> None:
    """Run `work` with a resolver that answers names beginning with `slow` only once the event is set.

    The clock stands, so that no answer comes too late unless the test puts it forward.
    """
    loop = Loop(stands=True)

    async def main() -> None:
        released, asked = threading.Event(), []

        def look(name: str) -> list[Address]:
            asked.append(name)
            if name.startswith("slow"):
                released.wait()
            if name.startswith("odd"):
                raise ValueError(name)
            if name.startswith("none"):
                raise ResolveError("there is none")
            return [HERE]

        resolver = Resolver(loop, look)
        try:
            await work(resolver, released, asked)
        finally:
            released.set()
            # Nothing may come back to a loop that is closed: the threads end first.
            for thread in threading.enumerate():
                if thread.name == "resolve":
                    await asyncio.to_thread(thread.join)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())


def test_one_cell_s_slow_names_hold_up_no_other() -> None:
    """However many names of a cell hang, another's are answered; and its own are, in turn, once there is room."""

    async def work(resolver: Resolver, released: threading.Event, _: list[str]) -> None:
        hanging = [asyncio.create_task(resolver.resolve("one", f"slow{number}")) for number in range(50)]
        await asyncio.sleep(0)
        assert await resolver.resolve("two", "web") == (HERE,)
        assert resolver.threads == PER_CELL
        released.set()
        assert await asyncio.gather(*hanging) == [(HERE,)] * 50

    run(work)


def test_a_name_is_asked_once_at_a_time() -> None:
    """Those who ask for the same name share the answer, for a moment afterwards too, and not for longer."""

    async def work(resolver: Resolver, released: threading.Event, asked: list[str]) -> None:
        both = [asyncio.create_task(resolver.resolve("one", "slow")) for _ in range(2)]
        await asyncio.sleep(0)
        released.set()
        await asyncio.gather(*both)
        await resolver.resolve("one", "slow")
        assert asked == ["slow"]
        await resolver.resolve("two", "slow")
        assert asked == ["slow", "slow"]
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        loop.skipped += REMEMBER
        await resolver.resolve("one", "slow")
        assert asked == ["slow"] * 3

    run(work)


def test_an_answer_that_does_not_come_is_not_awaited() -> None:
    """After its time the question fails; a failure is reported as it is, and asked again the next time."""

    async def work(resolver: Resolver, _: threading.Event, asked: list[str]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        asking = loop.create_task(resolver.resolve("one", "slow"))
        await asyncio.sleep(0)
        loop.skipped += TIMEOUT
        with pytest.raises(ResolveError, match="in time"):
            await asking
        for _again in range(2):
            with pytest.raises(ResolveError, match="there is none"):
                await resolver.resolve("one", "none")
        assert asked == ["slow", "none", "none"]

    run(work)


def test_an_answer_that_makes_no_sense_costs_no_turn() -> None:
    """With any answer of the host's resolver the question ends and the next one has its turn."""

    async def work(resolver: Resolver, _: threading.Event, __: list[str]) -> None:
        for number in range(2 * PER_CELL):
            with pytest.raises(ResolveError, match="nonsense"):
                await resolver.resolve("one", f"odd{number}")
        assert resolver.threads == 0
        assert await resolver.resolve("one", "web") == (HERE,)

    run(work)


def test_too_many_questions_are_refused() -> None:
    """A cell's queue has an end."""

    async def work(resolver: Resolver, released: threading.Event, _: list[str]) -> None:
        tasks = [
            asyncio.create_task(resolver.resolve("one", f"slow{number}"))
            for number in range(PER_CELL + QUEUE_PER_CELL + 1)
        ]
        done, _waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert [type(task.exception()) for task in done] == [ResolveError]
        released.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(work)


def test_the_host_is_asked_for_absolute_names() -> None:
    """A name that the host knows by its files alone is not known: it is asked with its final dot."""
    with pytest.raises(ResolveError):
        lookup("localhost.invalid")
