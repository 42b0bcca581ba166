"""The engine `incus` with a cluster: where a sandbox goes, whose cells it gets, and members whose agents are away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.local.pretended_incus import PretendedIncus
from tests.local.test_incus_away import NAME, SANDBOX, Bench, PretendCells, bench

from irons_local.engines.incus.client import Incus
from irons_local.engines.incus.engine import IncusContainers
from irons_local.engines.incus.offer import IncusEngine
from irons_local.engines.incus.places import MemberCells
from irons_local.engines.incus.present import PresentRun
from irons_local.engines.incus.reach.ways import SocketWay
from irons_local.engines.protocol import Cells, Kit
from irons_local.errors import CellError, EngineError

__all__ = ["bench"]


class PretendMembers:
    """Members whose agents are connected, and their cells.

    Attributes:
        there: the cells of each.
        away: those that are not connected.
    """

    def __init__(self, **there: PretendCells) -> None:
        self.there = there
        self.away: set[str] = set()

    def cells_of(self, member: str) -> Cells:
        if member not in self.connected():
            raise CellError(f"member {member} is not connected")
        return self.there[member]

    def connected(self) -> frozenset[str]:
        return frozenset(self.there) - self.away


def chosen(
    path: Path, states: dict[str, str], wanted: str, connected: tuple[str, ...] = (), **instances: str
) -> str:
    """The member that a new instance is to go to, where each instance there is has this location."""

    async def asked() -> str:
        incus = PretendedIncus(path / "s")
        incus.members = states
        incus.instances = {name: {"location": where} for name, where in instances.items()}
        client = Incus(SocketWay(incus.path), "irons")
        members = PretendMembers(**{name: PretendCells(1) for name in connected})
        try:
            async with incus.open():
                return await MemberCells(client, PretendCells(1), members).choose(wanted)
        finally:
            await client.close()

    return asyncio.run(asked())


ALL = {"n1": "Online", "n2": "Online", "n3": "Online"}


@pytest.mark.parametrize(
    ("states", "wanted", "connected", "instances", "answer"),
    [
        ({}, "", (), {}, ""),
        (ALL, "", (), {}, "n1"),
        (ALL, "", ("n2", "n3"), {}, ""),
        (ALL, "", ("n2",), {"a": "n1"}, "n2"),
        (ALL, "", ("n2",), {"a": "n1", "b": "n2", "c": "n2"}, "n1"),
        ({**ALL, "n3": "Offline"}, "", ("n2",), {}, ""),
        (ALL, "n1", (), {}, "n1"),
        (ALL, "n3", ("n3",), {}, "n3"),
    ],
)
def test_a_sandbox_goes_where_it_can_have_a_cell(
    tmp_path: Path,
    states: dict[str, str],
    wanted: str,
    connected: tuple[str, ...],
    instances: dict[str, str],
    answer: str,
) -> None:
    """Incus chooses where every member that is online has cells; else irons does, among those, the one with the fewest instances."""
    assert chosen(tmp_path, states, wanted, connected, **instances) == answer


@pytest.mark.parametrize(
    ("states", "wanted", "says"),
    [
        ({}, "n2", "there is no member n2: Incus is not a cluster"),
        (ALL, "n9", "the cluster has no member n9"),
        (ALL, "n2", "no agent on n2: irons member is not running there"),
        ({**ALL, "n2": "Offline"}, "n2", "member n2 is offline"),
        ({**ALL, "n2": "Evacuated"}, "n2", "member n2 is evacuated"),
    ],
)
def test_a_member_that_cannot_have_it_is_refused(
    tmp_path: Path, states: dict[str, str], wanted: str, says: str
) -> None:
    """A member that is not there, not online or without an agent is refused, with one line."""
    with pytest.raises(EngineError) as caught:
        chosen(tmp_path, states, wanted)
    assert caught.value.message == says


def clustered(bench: Bench, where: str) -> PretendMembers:
    """Have the bench's Incus be a cluster, with the sandbox on a member, and an agent on n2."""
    bench.incus.members = dict(ALL)
    bench.incus.instances[NAME]["location"] = where
    members = PretendMembers(n2=PretendCells(bench.cells.holder))
    kit = Kit(bench.cells, bench.sandboxes.parent / "images", bench.sandboxes, members=members)
    bench.engine = IncusContainers(kit, SocketWay(bench.incus.path))
    return members


def at(bench: Bench, work: Callable[[], Awaitable[Any]]) -> None:
    """Do something while the bench's Incus answers."""

    async def whole() -> None:
        async with bench.incus.open():
            await work()

    bench.run(whole())


def test_nothing_starts_on_a_member_without_an_agent(bench: Bench) -> None:
    """Where the instance is on a member that has no agent, the start fails, and Incus is not asked to start it."""
    bench.has(runs=False)
    clustered(bench, "n3")

    async def work() -> None:
        with pytest.raises(EngineError, match="member n3 is not connected"):
            await bench.engine.start(SANDBOX)
        assert not bench.cells.held
        assert not [each for each in bench.incus.asked if each.startswith("PUT instances")]

    at(bench, work)


def test_a_cell_is_made_on_the_member_of_the_instance(bench: Bench) -> None:
    """The member that has the instance makes its cell, and drops it when the start fails; this machine makes none."""
    bench.has(runs=False)
    members = clustered(bench, "n2")
    made: list[str] = []
    there = members.there["n2"]
    make = there.make_with_veth

    async def noted(cell: str) -> Any:
        made.append(cell)
        assert not bench.cells.held
        return await make(cell)

    there.make_with_veth = noted  # type: ignore[method-assign]

    async def work() -> None:
        # There is no image to take its settings from.
        with pytest.raises(EngineError):
            await bench.engine.start(SANDBOX)
        assert made == [SANDBOX]
        assert not there.held
        assert PresentRun.read(bench.home()) is None

    at(bench, work)


def test_a_member_that_is_away_keeps_what_runs(bench: Bench) -> None:
    """A sandbox of a member whose agent is away is taken up; stopped, its cell stays recorded, and no other member starts it."""
    bench.has(runs=True)
    members = clustered(bench, "n2")
    members.away.add("n2")
    PresentRun(bench.cells.veth(SANDBOX), services=True, member="n2").write(bench.home())

    async def work() -> None:
        assert await bench.engine.recover() == [SANDBOX]
        assert bench.engine.member_of(SANDBOX) == "n2"
        assert not bench.cells.held
        await bench.engine.stop(SANDBOX, grace=0)
        assert bench.status() == "Stopped"
        bench.incus.instances[NAME]["location"] = "n1"
        with pytest.raises(EngineError, match="its last cell is still on n2"):
            await bench.engine.start(SANDBOX)
        assert not bench.cells.held
        members.away.clear()
        await bench.engine.stop(SANDBOX, grace=0)
        assert PresentRun.read(bench.home()) is None

    at(bench, work)


def test_a_cell_on_another_member_than_the_instance_is_none(bench: Bench) -> None:
    """What runs on another member than its cell is recorded for is stopped when it is taken up."""
    bench.has(runs=True)
    members = clustered(bench, "n1")
    PresentRun(bench.cells.veth(SANDBOX), services=True, member="n2").write(bench.home())

    async def work() -> None:
        assert await bench.engine.recover() == []
        assert bench.status() == "Stopped"
        assert not members.there["n2"].held

    at(bench, work)


def test_a_run_keeps_the_member_it_is_on(tmp_path: Path) -> None:
    """What is recorded of a run says which machine it is on, and one recorded before there were members is of this one."""
    bench_run = PresentRun(PretendCells(1).veth(SANDBOX), services=True, member="n2", location="n2")
    bench_run.write(tmp_path)
    assert PresentRun.read(tmp_path) == bench_run
    recorded = (tmp_path / "run.json").read_text().replace(', "member": "n2", "location": "n2"', "")
    (tmp_path / "run.json").write_text(recorded)
    assert PresentRun.read(tmp_path) == bench_run._replace(member="", location="")


@pytest.mark.parametrize(("where", "goes_on"), [("n1", True), ("n3", False)])
def test_this_machines_own_goes_on_while_its_incus_is_away(bench: Bench, where: str, goes_on: bool) -> None:
    """Another member answers, and no one says which one this machine is: what is where it was started goes on, and else it is stopped."""
    bench.has(runs=True)
    members = clustered(bench, where)
    kit = Kit(bench.cells, bench.sandboxes.parent / "images", bench.sandboxes, members=members)
    nobody = SocketWay(bench.sandboxes.parent / "nobody")
    bench.engine = IncusContainers(kit, SocketWay(bench.incus.path), nobody)
    PresentRun(bench.cells.veth(SANDBOX), services=True, location="n1").write(bench.home())

    async def work() -> None:
        assert await bench.engine.recover() == ([SANDBOX] if goes_on else [])
        assert bench.status() == ("Running" if goes_on else "Stopped")
        assert bench.cells.held == ({SANDBOX} if goes_on else set())

    at(bench, work)


def test_a_cluster_that_cannot_be_read_is_no_other_incus(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what was joined is damaged each call says so; none goes to the Incus that was used before."""
    bench.has(runs=False)
    settings = bench.sandboxes.parent / "config.toml"
    settings.write_text(f'[local]\nincus_socket = "{bench.incus.path}"\n')
    monkeypatch.setenv("IRONS_CONFIG", str(settings))
    joined = bench.sandboxes.parent / "incus/cluster.json"
    engine = IncusEngine(Kit(bench.cells, bench.sandboxes.parent / "images", bench.sandboxes))

    async def work() -> None:
        assert (await engine.look(SANDBOX)).state == "stopped"
        joined.parent.mkdir()
        joined.write_text("{")
        asked = len(bench.incus.asked)
        for _ in range(2):
            with pytest.raises(EngineError, match=r"cluster\.json cannot be read"):
                await engine.look(SANDBOX)
        assert len(bench.incus.asked) == asked
        joined.unlink()
        assert (await engine.look(SANDBOX)).state == "stopped"
        await engine.close()

    at(bench, work)
