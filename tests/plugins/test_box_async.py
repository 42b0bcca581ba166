"""`irons.aio`: the same as `irons.sandbox` with async. The sandbox is this machine, by a real SSH server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irons import aio
from irons.errors import NotFound
from irons.testing import EXTENSIONS, FakeApi

from .boxes import HELLO, fetched, names
from .conftest import until
from .remote_processes import running, seconds


def test_the_same_with_async(
    make_async: Callable[..., Any], fake_api: FakeApi, served: int, tmp_path: Path
) -> None:
    """Calls are awaited, run side by side, and call back in the loop's thread; contexts and iterators are asynchronous."""

    async def main() -> None:
        here: set[int] = set()
        async with make_async("x") as box:
            assert box.name == "x"
            both = await asyncio.gather(
                box.exec(["cat"], stdin=b"in"),
                box.exec(["echo", "out"], on_stdout=lambda _: here.add(threading.get_ident())),
            )
            assert [result.stdout for result in both] == ["in", "out\n"]
            assert here == {threading.get_ident()}
            await box.write(str(tmp_path / "f"), "text")
            assert await box.read_text(str(tmp_path / "f")) == "text"
            assert [entry.name for entry in await box.list(str(tmp_path))] >= ["f"]
            async with await box.popen(["cat"]) as process:
                await process.stdin.write(b"one\ntwo\n")
                await process.stdin.close()
                assert [line async for line in process.stdout] == [b"one\n", b"two\n"]
                assert (await process.wait()).exit == 0
            async with box.forward(served) as port:
                assert await aio.in_thread(fetched, port) == HELLO
            fake_api.record("a.example", "x")
            async for event in box.events(follow=True):
                assert event.host == "a.example"
                break
            with pytest.raises(NotFound):
                await box.read("nowhere")

    asyncio.run(main())
    assert names(fake_api) == set()


def test_a_cancelled_task_ends_what_it_started(make_async: Callable[..., Any], fake_api: FakeApi) -> None:
    """Cancelling ends the program, what follows the log, and the sandbox, before the cancellation goes on."""
    nap = seconds()

    async def work() -> None:
        async with make_async("x") as box:
            await box.exec(["sleep", nap])

    async def follow() -> None:
        async with make_async("one", attach=True) as box:
            async for _ in box.events(follow=True):
                pass

    async def main() -> None:
        tasks = [asyncio.create_task(work()), asyncio.create_task(follow())]
        await aio.in_thread(until, lambda: running(nap))
        await aio.in_thread(until, lambda: any("wait" in call.query for call in fake_api.calls))
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in done] == [asyncio.CancelledError] * 2

    asyncio.run(main())
    until(lambda: not running(nap))
    assert names(fake_api) == set()


def test_cancelling_a_creation_leaves_nothing(make_async: Callable[..., Any], fake_api: FakeApi) -> None:
    """A task that is cancelled while its sandbox is made has it destroyed."""
    fake_api.polls = 10_000
    fake_api.extensions = tuple(each for each in EXTENSIONS if each != "status-wait")

    async def work() -> None:
        async with make_async("x"):
            pass

    async def main() -> None:
        task = asyncio.create_task(work())
        await aio.in_thread(until, lambda: "GET /sandboxes/x" in fake_api.lines())
        with fake_api.lock:
            fake_api.polls = fake_api.sandboxes["x"].polls = 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert names(fake_api) == set()
