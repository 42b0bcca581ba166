"""The warm process that carries out starts: its answers, its end, and what becomes of its children."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from irons_local.engines.namespace.starter import Starter

pytestmark = pytest.mark.process

ORDER: dict[str, Any] = {
    "inherited": (),
    "owner": [[0, 0], [0, 0]],
    "disk": "",
    "lower": ["/none"],
    "upper": "/none",
    "work": "/none",
    "kit": "",
}
"""An order whose directories are not there."""


@asynccontextmanager
async def starter() -> AsyncIterator[Starter]:
    """One that is ended afterwards."""
    made = Starter()
    try:
        yield made
    finally:
        await made.close()


@contextmanager
def descriptors(held: int, note: int) -> Iterator[list[int]]:
    """What comes with an order; the namespaces are this process's own."""
    with ExitStack() as stack:
        own = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in ("user", "net", "mnt")]
        null = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (*own, null):
            stack.callback(os.close, descriptor)
        yield [held, *own, null, note]


async def carried_out(by: Starter, note: Path) -> dict[str, Any]:
    """Have the order carried out; gives the answer."""
    with ExitStack() as stack:
        file, held = (stack.enter_context(each.open("wb")) for each in (note, Path(os.devnull)))
        given = stack.enter_context(descriptors(held.fileno(), file.fileno()))
        return await by.carry_out(ORDER, given)


def test_a_failure_is_answered_and_noted(tmp_path: Path) -> None:
    """Orders that are given at the same time have a child each, and each has its own answer, also in its note."""

    async def work() -> None:
        async with starter() as by:
            notes = [tmp_path / str(number) for number in range(3)]
            answers = await asyncio.gather(*(carried_out(by, note) for note in notes))
            assert all(answer["error"] for answer in answers)
            assert [json.loads(note.read_text()) for note in notes] == answers

    asyncio.run(work())


def test_a_dead_process_is_replaced(tmp_path: Path) -> None:
    """One that was killed, and one that ends while it is asked, cost no start."""

    async def work() -> None:
        before = set(_children())
        async with starter() as by:
            link = await by.warm()
            (child,) = set(_children()) - before
            os.kill(child, signal.SIGSTOP)
            start = asyncio.ensure_future(carried_out(by, tmp_path / "note"))
            await asyncio.sleep(0)
            os.kill(child, signal.SIGKILL)
            assert "error" in await start
            assert await by.warm() is not link
            assert child not in _children()

    asyncio.run(work())


def test_a_cancelled_start_ends_its_child() -> None:
    """Nothing goes on when no one waits for it any more: also where it hangs."""

    async def work() -> None:
        full, note = os.pipe()
        end, held = os.pipe()
        os.write(note, bytes(fcntl.fcntl(note, fcntl.F_GETPIPE_SZ)))
        async with starter() as by:
            with descriptors(held, note) as given:
                start = asyncio.ensure_future(by.carry_out(ORDER, given))
                done, _ = await asyncio.wait((start,), timeout=1.0)
                assert not done
                start.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await start
            os.close(held)
            # The child held the other one.
            assert os.read(end, 1) == b""
        for descriptor in (full, note, end):
            os.close(descriptor)

    asyncio.run(work())


def _children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found
