"""Whose the project of irons in an Incus is: one server's at a time, and another server's sandboxes are not touched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.local.pretended_incus import PretendedIncus
from tests.local.test_incus_away import NAME, SANDBOX, Bench, bench

from irons_local.engines.incus.client import Incus
from irons_local.engines.incus.owner import FILE, ProjectOwner, ServerEpoch, take_over
from irons_local.engines.incus.present import PresentRun
from irons_local.engines.incus.reach.ways import SocketWay
from irons_local.errors import EngineError

__all__ = ["bench"]

ANOTHER = {"user.irons.server": "feedfacefeedface", "user.irons.epoch": "3"}
REFUSED = "the Incus project irons has sandboxes of another server, feedface"


def test_nothing_of_another_server_is_touched(bench: Bench) -> None:
    """Where the project is another server's, nothing is started, stopped, removed or taken up, whatever was recorded here."""
    bench.has(runs=True)
    bench.incus.project |= ANOTHER
    bench.cells.held.add(SANDBOX)

    async def work() -> None:
        async with bench.incus.open():
            assert await bench.engine.recover() == []
            for call in (bench.engine.start, bench.engine.stop, bench.engine.destroy):
                with pytest.raises(EngineError) as caught:
                    await call(SANDBOX)
                assert caught.value.message == REFUSED
                assert "irons fleet takeover" in caught.value.hint
            assert (await bench.engine.look(SANDBOX)).reason == REFUSED
            assert bench.status() == "Running"
            assert bench.cells.held == {SANDBOX}
            assert PresentRun.read(bench.home()) is not None
            assert {each.partition(" ")[0] for each in bench.incus.asked} == {"GET"}
            await take_over(SocketWay(bench.incus.path), bench.sandboxes.parent)
            await bench.engine.stop(SANDBOX)
            assert bench.status() == "Stopped"

    bench.run(work())


def owners(
    place: Path, work: Callable[[PretendedIncus, ProjectOwner, ProjectOwner], Awaitable[None]]
) -> None:
    """Do something with two servers at one Incus."""

    async def whole() -> None:
        incus = PretendedIncus(place / "s")
        client = Incus(SocketWay(incus.path), "irons")
        try:
            async with incus.open():
                await work(
                    incus,
                    ProjectOwner(client, place / "one" / FILE),
                    ProjectOwner(client, place / "two" / FILE),
                )
        finally:
            await client.close()

    asyncio.run(whole())


def test_a_project_without_instances_is_anyones(tmp_path: Path) -> None:
    """The server that comes first has it; another takes it while nothing is there, and is refused once something is."""

    async def work(incus: PretendedIncus, one: ProjectOwner, two: ProjectOwner) -> None:
        assert await one.refusal() == ""
        first = incus.project["user.irons.server"]
        assert await one.refusal() == ""
        assert incus.project["user.irons.epoch"] == "1"
        assert await two.refusal() == ""
        assert incus.project["user.irons.server"] != first
        assert incus.project["user.irons.epoch"] == "2"
        incus.instances[NAME] = {}
        assert "has sandboxes of another server" in await one.refusal()
        assert await two.refusal() == ""

    owners(tmp_path, work)


def test_a_takeover_refuses_the_server_before_and_its_copies(tmp_path: Path) -> None:
    """The server that had the project is refused, and so is an older copy of the state of the one that took it."""

    async def work(incus: PretendedIncus, one: ProjectOwner, two: ProjectOwner) -> None:
        await one.check()
        incus.instances[NAME] = {}
        copy = await asyncio.to_thread((tmp_path / "one" / FILE).read_text)
        assert (await two.take_over()).epoch == 2
        with pytest.raises(EngineError, match="has sandboxes of another server"):
            await one.check()
        taken = await one.take_over()
        assert taken == ServerEpoch(incus.project["user.irons.server"], 3)
        await one.check()
        await asyncio.to_thread((tmp_path / "one" / FILE).write_text, copy)
        assert (
            await one.refusal() == "the Incus project irons is of epoch 3, and the state of this server of 1"
        )

    owners(tmp_path, work)


def test_a_project_that_is_not_of_irons_is_not_taken(tmp_path: Path) -> None:
    """A project of someone else's that has the name stays as it is."""

    async def work(incus: PretendedIncus, one: ProjectOwner, _two: ProjectOwner) -> None:
        incus.project = {}
        assert await one.refusal() == ""
        with pytest.raises(EngineError, match="Incus has no project irons of irons"):
            await one.take_over()
        assert incus.project == {}

    owners(tmp_path, work)


@pytest.mark.parametrize("damaged", ["", "[]", '{"server": "x"}'])
def test_a_damaged_record_of_who_this_is_takes_nothing(tmp_path: Path, damaged: str) -> None:
    """A server that cannot read who it is does not take the project by another id."""

    async def work(incus: PretendedIncus, one: ProjectOwner, _two: ProjectOwner) -> None:
        before: dict[str, Any] = dict(incus.project)
        with pytest.raises(EngineError, match="cannot be read"):
            await one.check()
        assert incus.project == before

    (tmp_path / "one").mkdir()
    (tmp_path / "one" / FILE).write_text(damaged)
    owners(tmp_path, work)
