"""The links to the keeper and the gateway: renewed when they break, and every failure in words."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.local.control.lab import run

from irons_plugins.local.asynclink import AsyncLink
from irons_plugins.local.control import peer
from irons_plugins.local.control.errors import ApiError
from irons_plugins.local.control.keeper import Keeper
from irons_plugins.local.control.peer import Gateway
from irons_plugins.local.engines import CellError
from irons_plugins.local.link import LinkError

CELL = "sb_00112233445566ff"


class OtherEnd:
    """What answers at the other end of a link: for each operation an answer, descriptors, or an error."""

    def __init__(self, sock: socket.socket, answers: dict[str, Any]) -> None:
        self.link = AsyncLink(sock)
        self.heard: list[dict[str, Any]] = []
        self._answers = answers
        self._task = asyncio.ensure_future(self._serve())

    async def _serve(self) -> None:
        with contextlib.suppress(LinkError):
            while True:
                message = await self.link.recv()
                self.heard.append(message.body)
                answer = self._answers.get(message.body["op"], {})
                if isinstance(answer, tuple):
                    await self.link.refuse(message, *answer)
                elif isinstance(answer, list):
                    await self.link.answer(message, {}, answer)
                elif answer is not None:
                    await self.link.answer(message, answer)

    async def close(self) -> None:
        """End the link."""
        self.link.close()
        await self._task


@contextlib.asynccontextmanager
async def kept(answers: dict[str, Any]) -> AsyncIterator[tuple[Keeper, OtherEnd]]:
    """A keeper that gives these answers."""
    near, far = socket.socketpair()
    keeper = Keeper(on_peer=lambda sock: sock.close())
    end = OtherEnd(far, answers)
    serving = asyncio.ensure_future(keeper.serve(near, None, _nothing))
    await asyncio.sleep(0)
    try:
        yield keeper, end
    finally:
        await end.close()
        await serving


async def _nothing() -> None:
    """Nothing is to be done."""


def test_cells_are_made_and_entered() -> None:
    """Each method asks the keeper what the contract says, and gives what it answered."""

    async def work() -> None:
        ends = socket.socketpair()
        three = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
        try:
            answers = {"cell.namespaces": three, "cell.connect": [ends[0].fileno()]}
            async with kept(answers) as (keeper, end):
                await keeper.make(CELL)
                assert end.heard[0]["cell"] == CELL
                spaces = await keeper.namespaces(CELL)
                assert len(set(spaces)) == 3
                for fd in spaces:
                    os.close(fd)
                sock = await keeper.connect(CELL, "127.0.0.1", 22, within=60)
                assert sock.getblocking() is False
                sock.close()
                await keeper.adopt(CELL, 12, 34)
                await keeper.drop(CELL)
                assert end.heard[-2]["pid"] == 12
        finally:
            for fd in three:
                os.close(fd)
            for each in ends:
                each.close()

    run(work())


def test_refusals_are_told_apart() -> None:
    """An errno of connect(2) is that `OSError`; all else is a `CellError` with the keeper's words."""

    async def work() -> None:
        answers: dict[str, Any] = {
            "cell.connect": ("ECONNREFUSED", "nobody listens"),
            "cell.make": ("exists", "it is there already"),
            "cell.namespaces": {},
        }
        async with kept(answers) as (keeper, _):
            with pytest.raises(OSError, match="nobody listens") as caught:
                await keeper.connect(CELL, "127.0.0.1", 22, within=60)
            assert caught.value.errno == errno.ECONNREFUSED
            with pytest.raises(CellError, match="it is there already"):
                await keeper.make(CELL)
            with pytest.raises(CellError, match="0 descriptors"):
                await keeper.namespaces(CELL)
            answers["cell.connect"] = {}
            with pytest.raises(CellError, match="no connection"):
                await keeper.connect(CELL, "127.0.0.1", 22, within=60)
            answers["status"] = None
            with pytest.raises(CellError, match="does not answer"):
                await keeper.status(within=0.05)

    run(work())


def test_the_next_keeper_takes_over(tmp_path: Any) -> None:
    """When the keeper dies, the next one calls at the rendezvous; what runs is taken up, and requests wait for it."""

    async def work() -> None:
        rendezvous = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        rendezvous.bind(str(tmp_path / "server.sock"))
        rendezvous.listen()
        renewed = asyncio.Event()

        async def take_up() -> None:
            renewed.set()

        near, far = socket.socketpair()
        keeper = Keeper(on_peer=lambda sock: sock.close())
        first = OtherEnd(far, {})
        serving = asyncio.ensure_future(keeper.serve(near, rendezvous, take_up))
        await asyncio.sleep(0)
        await keeper.drop(CELL)
        await first.close()
        await asyncio.sleep(0.05)
        waiting = asyncio.ensure_future(keeper.status(within=60))
        calling = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        calling.connect(str(tmp_path / "server.sock"))
        second = OtherEnd(calling, {"status": {"pid": 5}})
        assert await waiting == {"pid": 5}
        await asyncio.wait_for(renewed.wait(), 60)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await second.close()
        keeper.close()
        rendezvous.close()

    run(work())


def test_a_mute_gateway_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the link ends and no other comes, that is reported once; a request says that nobody answers."""
    monkeypatch.setattr(peer, "_RENEWED_WITHIN", 0.05)
    monkeypatch.setattr(peer, "_WITHIN", 0.1)

    async def work() -> None:
        lost = asyncio.Event()

        async def is_lost() -> None:
            lost.set()

        gateway = Gateway(on_audit=lambda _: None, on_connect=_nothing, on_lost=is_lost)
        near, far = socket.socketpair()
        gateway.attach(near)
        end = OtherEnd(far, {"policy": {"cut": "many"}, "impact": ("failed", "no such cell"), "stats": None})
        assert await gateway.push(CELL, "box", {}) == 0
        with pytest.raises(ApiError, match="the gateway refused: no such cell"):
            await gateway.impact(CELL, {})
        with pytest.raises(ApiError, match="does not fit") as caught:
            await gateway.push(CELL, "box", {"rules": "x" * 5_000_000})
        assert caught.value.status == 400
        with pytest.raises(ApiError, match="does not answer"):
            await gateway.stats(0.05)
        await end.close()
        await asyncio.wait_for(lost.wait(), 60)
        assert not gateway.connected
        with pytest.raises(ApiError, match="does not answer"):
            await gateway.forget(CELL)
        await gateway.close()

    run(work())


def test_a_request_goes_to_the_next_gateway() -> None:
    """A policy whose gateway dies before it confirmed goes to the one that comes after it."""

    async def work() -> None:
        heard: list[str] = []
        gateway = Gateway(on_audit=heard.append, on_connect=_nothing, on_lost=_nothing)
        near, far = socket.socketpair()
        gateway.attach(near)
        mute = OtherEnd(far, {"policy": None})
        pushing = asyncio.ensure_future(gateway.push(CELL, "box", {"mode": "deny"}))
        await asyncio.sleep(0.02)
        await mute.close()
        near, far = socket.socketpair()
        gateway.attach(near)
        next_one = OtherEnd(far, {"policy": {"cut": 3}})
        assert await pushing == 3
        await next_one.link.send({"op": "audit", "run": "a-run"})
        await next_one.link.send({"op": "something new"})
        await asyncio.sleep(0.02)
        assert heard == ["a-run"]
        await gateway.close()
        await next_one.close()

    run(work())
