"""The links to the keeper and the gateway: renewed when they break, and every failure in words."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.conftest import HOUR
from tests.local.control.lab import ForwardLoop, Lab, control_plane, run, until

from irons_local.control.clients import gateways as module
from irons_local.control.clients import keeper as keeper_client
from irons_local.control.clients.gateways import CellPlace, Gateways
from irons_local.control.clients.keeper import KeeperClient
from irons_local.control.schema.errors import HttpError
from irons_local.errors import CellError
from irons_local.ipc.aio import AsyncLink
from irons_local.ipc.framing import LinkError
from irons_local.ipc.messages import OpenQuestions, body_of

CELL = "sb_00112233445566ff"


WITHIN = module._WITHIN
PLACED_WITHIN = keeper_client._PLACED_WITHIN
"""The limits as they are where no test runs."""


class OtherEnd:
    """What answers at the other end of a link: for each operation an answer, one that comes later, descriptors, or an error."""

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
                if isinstance(answer, asyncio.Future):
                    answer = await answer
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
async def kept(answers: dict[str, Any]) -> AsyncIterator[tuple[KeeperClient, OtherEnd]]:
    """A keeper that gives these answers."""
    near, far = socket.socketpair()
    keeper = KeeperClient(
        on_peer=lambda sock, _worker, _cells: sock.close(), on_moved=lambda _cell, _served: None
    )
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
        keeper = KeeperClient(
            on_peer=lambda sock, _worker, _cells: sock.close(), on_moved=lambda _cell, _served: None
        )
        first = OtherEnd(far, {})
        serving = asyncio.ensure_future(keeper.serve(near, rendezvous, take_up))
        await asyncio.sleep(0)
        await keeper.drop(CELL)
        await first.close()
        # The link's end is heard within some turns of the loop, however long each takes.
        for _ in range(50):
            await asyncio.sleep(0.001)
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


@contextlib.asynccontextmanager
async def workers(place: CellPlace, **told: Any) -> AsyncIterator[tuple[Gateways, list[str]]]:
    """The set of the gateway's workers, for a cell that is served at `place`; and what it got about audit logs."""
    heard: list[str] = []

    async def locate(cell: str) -> CellPlace:
        assert cell == CELL
        return place

    async def nothing(*_: Any) -> None:
        """Nothing is to be done."""

    gateways = Gateways(
        **{
            "locate": locate,
            "release": nothing,
            "on_audit": heard.append,
            "on_connect": nothing,
            "on_lost": nothing,
            **told,
        }
    )
    try:
        yield gateways, heard
    finally:
        await gateways.close()


def attached(gateways: Gateways, answers: dict[str, Any], worker: int = 0) -> OtherEnd:
    """A worker that gives these answers, linked to."""
    near, far = socket.socketpair()
    gateways.attach(near, worker, [])
    return OtherEnd(far, answers)


async def _equal(heard: list[str], wanted: list[str]) -> bool:
    return heard == wanted


async def _heard(ends: list[OtherEnd], *counts: int) -> bool:
    """Whether each worker has heard so many requests."""
    return [len(end.heard) for end in ends] == [*counts]


def _is(gateways: Gateways, known: dict[str, int]) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return gateways.unrecorded == known

    return holds


def test_a_worker_is_believed_for_its_own_cells() -> None:
    """What a worker could not record is counted for cells that it serves; nonsense and a gone worker count for nothing."""

    async def work() -> None:
        async with workers(
            CellPlace(0, runs=True), serves=lambda cell, worker: (cell, worker) == (CELL, 0)
        ) as (
            gateways,
            _,
        ):
            end = attached(gateways, {})
            for said, known in (
                ({CELL: 3, "sb_other": 5}, {CELL: 3}),
                ({CELL: "many"}, {}),
                ({CELL: 4}, {CELL: 4}),
            ):
                await end.link.send({"op": "unrecorded", "cells": said})
                await until(_is(gateways, known))
            second = attached(gateways, {})
            assert gateways.unrecorded == {}
            await end.close()
            await second.close()

    run(work())


def test_each_worker_hears_that_readers_wait() -> None:
    """Those that are there hear it at once, and one that comes in the meantime first of all, for the rest of the time."""

    async def work() -> None:
        async with workers(CellPlace(0, runs=True)) as (gateways, _):
            ends = [attached(gateways, {})]
            gateways.followed(3600.0)
            ends.append(attached(gateways, {}, 1))
            await until(lambda: _heard(ends, 1, 1))
            (first,), (later,) = (end.heard for end in ends)
            assert first == {"op": "audit.followed", "lease": 3600.0}
            assert later["op"] == "audit.followed"
            assert 0 < later["lease"] <= 3600.0
            gateways.followed(1e-9)
            ends.append(attached(gateways, {}, 2))
            assert await gateways.stats(within=600.0) == {0: {}, 1: {}, 2: {}}
            assert [each["op"] for each in ends[2].heard] == ["stats"]
            for end in ends:
                await end.close()

    run(work())


def test_a_mute_gateway_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the link ends and no other comes, that is reported once; a request says that no one answers."""
    monkeypatch.setattr(module, "_RENEWED_WITHIN", 0.05)

    async def work() -> None:
        lost: asyncio.Queue[int] = asyncio.Queue()
        async with workers(CellPlace(3, runs=True), on_lost=lost.put) as (gateways, _):
            answers = {"policy": {"cut": "many"}, "impact": ("failed", "no such cell"), "stats": None}
            end = attached(gateways, answers, 3)
            assert await gateways.push(CELL, "box", {}) == 0
            with pytest.raises(HttpError, match="the gateway refused: no such cell"):
                await gateways.impact(CELL, {})
            with pytest.raises(HttpError, match="does not fit") as caught:
                await gateways.push(CELL, "box", {"rules": "x" * 5_000_000})
            assert caught.value.status == 400
            assert await gateways.stats(within=0.05) == {3: {"error": "it does not answer"}}
            await end.close()
            assert await asyncio.wait_for(lost.get(), 60) == 3
            assert not gateways.connected
            assert await gateways.stats(within=600.0) == {}
            monkeypatch.setattr(module, "_WITHIN", 0.1)
            with pytest.raises(HttpError, match="does not answer"):
                await gateways.forget(CELL)

    run(work())


def test_a_request_goes_to_the_next_gateway() -> None:
    """A policy whose worker dies before it confirmed goes to the one that comes after it; other workers hear nothing of it."""

    async def work() -> None:
        async with workers(CellPlace(1, runs=True)) as (gateways, heard):
            other = attached(gateways, {}, 0)
            mute = attached(gateways, {"policy": None}, 1)
            pushing = asyncio.ensure_future(gateways.push(CELL, "box", {"mode": "deny"}))
            await asyncio.sleep(0.02)
            assert not pushing.done()
            await mute.close()
            next_one = attached(gateways, {"policy": {"cut": 3}}, 1)
            assert await pushing == 3
            await next_one.link.send({"op": "audit", "run": "a-run"})
            await next_one.link.send({"op": "something new"})
            await next_one.link.send({"op": "audit", "run": "another"})
            await until(lambda: _equal(heard, ["a-run", "another"]))
            assert other.heard == []
            await next_one.close()
            await other.close()

    run(work())


class StillLoop(ForwardLoop):
    """A loop whose clock nothing but a test moves."""

    def time(self) -> float:
        """Seconds that were skipped."""
        return self._skipped


def test_a_worker_that_is_slow_to_come_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a worker hangs and is replaced on a busy machine, a change waits for the one that comes in its place."""
    monkeypatch.setattr(module, "_WITHIN", WITHIN)
    loop = StillLoop()

    async def work() -> None:
        async with workers(CellPlace(1, runs=True)) as (gateways, _):
            hung = attached(gateways, {"policy": None}, 1)
            pushing = asyncio.ensure_future(gateways.push(CELL, "box", {"mode": "deny"}))
            while not hung.heard:  # noqa: ASYNC110 - no timer ends on this loop
                await asyncio.sleep(0)
            loop.skip(20)
            await hung.close()
            next_one = attached(gateways, {"policy": {"cut": 3}}, 1)
            assert await pushing == 3
            await next_one.close()

    run(work(), loop)


def test_an_answer_to_a_worker_that_hangs_takes_no_longer_than_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The time that the worker which asked had for it is not given once more to the one that comes in its place."""
    monkeypatch.setattr(module, "_WITHIN", WITHIN)
    loop = StillLoop()

    async def work() -> None:
        asking: list[OpenQuestions] = []
        located: list[str] = []

        async def locate(cell: str) -> CellPlace:
            located.append(cell)
            return CellPlace(0, runs=True)

        async with workers(CellPlace(0, runs=True), locate=locate, on_questions=asking.append) as (
            gateways,
            _,
        ):
            hung = attached(gateways, {"questions.reply": None}, 0)
            question = {"host": "a.example", "port": 443, "since": 7}
            await hung.link.send(body_of(OpenQuestions(CELL, [question], 0)))
            while not asking:  # noqa: ASYNC110 - no timer ends on this loop
                await asyncio.sleep(0)
            answering = asyncio.ensure_future(gateways.reply(CELL, "a.example", 443, "once", 7))
            while not hung.heard:  # noqa: ASYNC110 - no timer ends on this loop
                await asyncio.sleep(0)
            loop.skip(20)
            await hung.close()
            while not located:  # noqa: ASYNC110 - no timer ends on this loop
                await asyncio.sleep(0)
            loop.skip(WITHIN - 20)
            for _ in range(100):
                await asyncio.sleep(0)
            assert answering.done()
            assert isinstance(answering.exception(), HttpError)

    run(work(), loop)


def test_a_sandbox_that_starts_waits_longer_than_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy of a sandbox that starts may be confirmed later than a client would wait for an answer."""
    monkeypatch.setattr(module, "_WITHIN", WITHIN)
    loop = StillLoop()

    async def work() -> None:
        async with workers(CellPlace(1, runs=True)) as (gateways, _):
            confirmed: asyncio.Future[dict[str, Any]] = loop.create_future()
            slow = attached(gateways, {"policy": confirmed}, 1)
            pushing = asyncio.ensure_future(gateways.push(CELL, "box", {}, within=HOUR))
            while not slow.heard:  # noqa: ASYNC110 - no timer ends on this loop
                await asyncio.sleep(0)
            loop.skip(WITHIN + 1)
            for _ in range(10):
                await asyncio.sleep(0)
            confirmed.set_result({"cut": 4})
            assert await pushing == 4
            await slow.close()

    run(work(), loop)


def test_a_keeper_is_waited_for_where_nothing_is_known_of_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy keeper delays a new cell, which has no place yet; for one with a place its last answer counts."""
    monkeypatch.setattr(keeper_client, "_PLACED_WITHIN", PLACED_WITHIN)
    loop = StillLoop()

    async def work() -> None:
        answer: asyncio.Future[dict[str, Any]] = loop.create_future()
        answers: dict[str, Any] = {"cell.place": answer}
        async with kept(answers) as (keeper, end):
            placing = asyncio.ensure_future(keeper.place(CELL))
            while not end.heard:  # noqa: ASYNC110 - no timer ends on this loop
                await asyncio.sleep(0)
            loop.skip(PLACED_WITHIN + 1)
            for _ in range(10):
                await asyncio.sleep(0)
            answer.set_result({"worker": 2, "pid": 7, "served": [2]})
            place = await placing
            assert place == CellPlace(2, runs=True, served=(2,))
            answers["cell.place"] = None
            placing = asyncio.ensure_future(keeper.place(CELL))
            while len(end.heard) < 2:  # noqa: ASYNC110 - no timer ends on this loop
                await asyncio.sleep(0)
            loop.skip(PLACED_WITHIN + 1)
            assert await placing == place

    run(work(), loop)


def test_a_change_does_not_count_as_done_by_a_worker_that_has_another_cell_by_now() -> None:
    """Where a cell's worker died and came back without the cell while the keeper was asked, the next answer of the keeper counts."""

    async def work() -> None:
        moving: list[Any] = []

        async def locate(_cell: str) -> CellPlace:
            if not moving:
                # It dies now, and the keeper has not noticed.
                await first.close()
                moving.append(attached(gateways, {"policy": {"cut": 7}}, 0))
                return CellPlace(0, runs=True)
            return CellPlace(5, runs=True)

        async with workers(CellPlace(0, runs=True), locate=locate) as (gateways, _):
            first = attached(gateways, {"policy": {"cut": 7}}, 0)
            alone = attached(gateways, {"policy": {"cut": 2}}, 5)
            assert await gateways.push(CELL, "box", {}) == 2
            assert [each["op"] for each in moving[0].heard] == []
            await moving[0].close()
            await alone.close()

    run(work())


def test_an_answer_goes_to_the_worker_that_asks_before_the_keeper_is_asked_anything() -> None:
    """The worker whose question it is takes the answer at once; where it has the question no more, the keeper says who is told next."""

    async def work() -> None:
        located: list[str] = []
        asking: list[OpenQuestions] = []

        async def locate(cell: str) -> CellPlace:
            located.append(cell)
            return CellPlace(5, runs=True)

        async def has_asked() -> bool:
            return bool(asking)

        async with workers(CellPlace(5, runs=True), locate=locate, on_questions=asking.append) as (
            gateways,
            _,
        ):
            of_first: dict[str, Any] = {"questions.reply": {"waited": 3}}
            of_second: dict[str, Any] = {"questions.reply": {"waited": 2}}
            first, second = attached(gateways, of_first, 0), attached(gateways, of_second, 5)
            question = {"host": "a.example", "port": 443, "since": 7}
            await first.link.send(body_of(OpenQuestions(CELL, [question], 0)))
            await until(has_asked)
            assert await gateways.reply(CELL, "a.example", 443, "once", 7) == 3
            assert located == []
            assert await _heard([first, second], 1, 0)
            of_first["questions.reply"] = {"gone": True}
            assert await gateways.reply(CELL, "a.example", 443, "once", 7) == 2
            assert located == [CELL]
            await first.close()
            assert await gateways.reply(CELL, "a.example", 443, "once", 7) == 2
            assert await _heard([second], 2)
            of_second["questions.reply"] = {"gone": True}
            assert await gateways.reply(CELL, "a.example", 443, "once", 7) is None
            await second.close()

    run(work())


@pytest.mark.slow
def test_a_change_waits_for_a_worker_that_hangs_and_not_for_one_that_is_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a living worker has not confirmed is not done; of a dead one nothing passes, and another lays down what its next process begins with."""
    monkeypatch.setattr(module, "_DEAD_AFTER", 0.05)

    async def work() -> None:
        monkeypatch.setattr(module, "_WITHIN", 0.5)
        async with workers(CellPlace(1, runs=True)) as (gateways, _):
            other = attached(gateways, {}, 0)
            hangs = attached(gateways, {"policy": None}, 1)
            with pytest.raises(HttpError, match="does not answer") as caught:
                await gateways.push(CELL, "box", {})
            assert caught.value.status == 503
            assert other.heard == []
            await hangs.close()
            await other.close()
        async with workers(CellPlace(1, runs=False)) as (gateways, _):
            with pytest.raises(HttpError, match="does not answer"):
                # No one is there to lay it down.
                await gateways.push(CELL, "box", {})
            monkeypatch.setattr(module, "_WITHIN", HOUR)
            other = attached(gateways, {}, 0)
            assert await gateways.push(CELL, "box", {"mode": "deny"}) == 0
            assert [each["op"] for each in other.heard] == ["policy"]
            assert await gateways.impact(CELL, {}) == 0
            await other.close()

    run(work())


def test_every_worker_knows_irons_own_ports_before_a_policy_and_one_keeps_them() -> None:
    """The ports are the first thing that each worker hears, also one that comes later; only the first of them writes them to disk."""

    async def work() -> None:
        async with workers(CellPlace(1, runs=True)) as (gateways, _):
            ends = [attached(gateways, {}, number) for number in (0, 1)]
            await gateways.listeners([("127.0.0.1", 22000)], {"host": "proxy.test"})
            await gateways.push(CELL, "box", {})
            ends.append(attached(gateways, {}, 2))
            await until(lambda: _heard(ends, 1, 2, 1))
            for number, end in enumerate(ends):
                assert end.heard[0]["listeners"] == [["127.0.0.1", 22000]]
                assert end.heard[0]["upstream"] == {"host": "proxy.test"}
                assert end.heard[0]["keep"] is (number == 0)
            assert [each["op"] for each in ends[1].heard] == ["listeners", "policy"]
            for end in ends:
                await end.close()

    run(work())


def test_a_worker_that_runs_without_a_link_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules would not reach it: the keeper is asked to restart that worker, and no other, however late it says that it runs."""
    monkeypatch.setattr(module, "_RENEWED_WITHIN", 0.05)
    loop = ForwardLoop()

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            lab.keeper_speaks.clear()
            lab.gateway.link.close()
            await until(lambda: _asked(lab, "status"))
            loop.skip(30)
            await asyncio.sleep(0.01)
            lab.keeper_speaks.set()
            await until(lambda: _asked(lab, "restart"))
            (restart,) = [each for each in lab.kept if each["op"] == "restart"]
            assert (restart["name"], restart["worker"]) == ("gateway", 0)

    run(work(), loop)


async def _asked(lab: Lab, op: str) -> bool:
    return any(each["op"] == op for each in lab.kept)
