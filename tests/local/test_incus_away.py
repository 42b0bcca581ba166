"""The engine `incus` with an Incus that is away, silent, or fails in the middle of something."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.local.control.lab import KEY, ForwardLoop, run, until
from tests.local.pretended_incus import PretendedIncus, described

from irons_local.bundle.machine import INSTANCE, Machine
from irons_local.cell.layout import Namespaces, Veth, outer_name
from irons_local.engines.incus import engine as module
from irons_local.engines.incus import instance
from irons_local.engines.incus.engine import IncusContainers
from irons_local.engines.incus.offer import IncusEngine
from irons_local.engines.incus.present import PresentRun
from irons_local.engines.incus.project import Pool
from irons_local.engines.incus.reach.ways import SocketWay
from irons_local.engines.protocol import Kit, Spec
from irons_local.errors import CellError, EngineError
from irons_local.limits import Limits
from irons_local.linux import namespaces
from irons_local.linux.remove_tree import remove_tree

SANDBOX, OTHER = "sb_0123456789abcdef", "sb_fedcba9876543210"
NAME = instance.name_of(SANDBOX)


class PretendCells:
    """The keeper: cells are names, and what holds one is a process of the test's.

    Attributes:
        held: the cells there are.
        lost: no cell can be found again.
    """

    def __init__(self, holder: int) -> None:
        self.holder = holder
        self.held: set[str] = set()
        self.lost = False

    def veth(self, cell: str) -> Veth:
        """The veth of a cell."""
        return Veth(outer_name(cell), self.holder, namespaces.started(self.holder) or 0)

    async def make(self, cell: str) -> None:
        raise NotImplementedError

    async def make_with_veth(self, cell: str) -> Veth:
        self.held.add(cell)
        return self.veth(cell)

    async def namespaces(self, cell: str) -> Namespaces:
        raise NotImplementedError

    async def connect(self, cell: str, address: str, port: int, *, within: float) -> socket.socket:
        raise NotImplementedError

    async def adopt(self, cell: str, pid: int, started: int) -> None:
        if self.lost or (pid, started) != self.veth(cell)[1:]:
            raise CellError("its process is gone")
        self.held.add(cell)

    async def drop(self, cell: str) -> None:
        self.held.discard(cell)


class Bench:
    """An engine, what is around it, and sandboxes of it."""

    def __init__(self, directory: Path, holder: int) -> None:
        self.sandboxes = directory / "sandboxes"
        self.sandboxes.mkdir()
        self.incus = PretendedIncus(directory / "s")
        self.cells = PretendCells(holder)
        self.engine = IncusContainers(
            Kit(self.cells, directory / "images", self.sandboxes), SocketWay(self.incus.path)
        )

    def run(self, work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Run a test's coroutine, and close the engine's connections."""

        async def whole() -> None:
            try:
                await work
            finally:
                await self.engine.close()

        run(whole(), loop)

    def home(self, sandbox: str = SANDBOX) -> Path:
        """The directory of a sandbox."""
        return self.sandboxes / sandbox

    def has(self, sandbox: str = SANDBOX, *, runs: bool, noted: bool | None = None) -> None:
        """Have a sandbox, with its instance at Incus; `noted` says whether its run is recorded, as where it runs."""
        machine = Machine(sandbox, "box", "img_1", "debian", "ssh-ed25519 AAAA", Limits())
        home = self.home(sandbox)
        home.mkdir()
        (home / INSTANCE).write_text(instance.name_of(sandbox))
        machine.write(home)
        made = instance.creation(machine, "f", Pool("default", bounds=True))
        self.incus.instances[made["name"]] = described(made, "Running" if runs else "Stopped")
        if runs if noted is None else noted:
            PresentRun(self.cells.veth(sandbox), services=True).write(home)

    def status(self, name: str = NAME) -> str:
        """How an instance is."""
        return str(self.incus.instances[name]["status"])


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench whose cells are held by a process that ends with the cell's veth."""
    holder = subprocess.Popen(["sleep", "infinity"])

    def remove_left(veth: Veth) -> None:
        assert veth.pid == holder.pid
        holder.kill()
        holder.wait()

    monkeypatch.setattr(module, "remove_left", remove_left)
    monkeypatch.setattr(module, "remove_lost", lambda _name: None)
    try:
        yield Bench(tmp_path, holder.pid)
    finally:
        holder.kill()
        holder.wait()


def test_an_incus_that_is_away_leaves_what_ran(bench: Bench) -> None:
    """A sandbox that ran is taken up by what was recorded, and one that did not is not; no Incus is needed for it."""

    async def work() -> None:
        bench.has(runs=True)
        bench.has(OTHER, runs=False)
        assert await bench.engine.recover() == [SANDBOX]
        assert bench.cells.held == {SANDBOX}

    bench.run(work())


def test_what_lost_its_cell_is_not_taken_up(bench: Bench) -> None:
    """Where the process that holds its cell is gone, as after a restart of the machine, it does not run."""

    async def work() -> None:
        bench.has(runs=True)
        bench.cells.lost = True
        assert await bench.engine.recover() == []
        assert PresentRun.read(bench.home()) is None

    bench.run(work())


def test_what_was_taken_up_is_checked_when_incus_is_back(bench: Bench) -> None:
    """One that ended while Incus was away ends the wait for it; one that was given more is stopped."""

    async def work() -> None:
        bench.has(runs=True)
        bench.has(OTHER, runs=True)
        assert await bench.engine.recover() == [SANDBOX, OTHER]
        waits = [asyncio.create_task(bench.engine.wait(each)) for each in (SANDBOX, OTHER)]
        bench.incus.instances[NAME]["status"] = "Stopped"
        other = instance.name_of(OTHER)
        more = bench.incus.instances[other]["expanded_devices"]
        bench.incus.instances[other]["expanded_devices"] = {**more, "web": {"type": "proxy"}}
        async with bench.incus.open():
            await waits[0]

            async def stopped() -> bool:
                return bench.status(other) == "Stopped"

            await until(stopped)
            assert OTHER not in bench.cells.held
            assert "device web (proxy)" in (await bench.engine.look(OTHER)).reason
            waits[1].cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    bench.run(work())


def test_a_silent_incus_is_not_waited_for(bench: Bench) -> None:
    """One that accepts and never answers holds up all its sandboxes together for seconds, and drafts hold up nothing."""
    loop = ForwardLoop()

    async def work() -> None:
        bench.has(runs=True)
        bench.has(OTHER, runs=False)
        draft = bench.sandboxes / ".new-sb_0000000000000000-0000"
        draft.mkdir()
        (draft / INSTANCE).touch()
        bench.incus.silent = True
        async with bench.incus.open():
            recovering = asyncio.create_task(bench.engine.recover())

            async def asked() -> bool:
                return len(bench.incus.asked) == 3

            await until(asked)
            # Incus has 300 s for each answer.
            loop.skip(20)
            assert await recovering == [SANDBOX]

            async def taken_up() -> bool:
                return bench.cells.held == {SANDBOX}

            await until(taken_up)
            assert draft.is_dir()

    bench.run(work(), loop)


def test_a_draft_is_removed_in_the_background(bench: Bench) -> None:
    """What a create left that was interrupted goes with its instance, and `recover` does not wait for that."""

    async def work() -> None:
        bench.has(runs=False)
        draft = bench.home().rename(bench.sandboxes / f".new-{SANDBOX}-0000")
        async with bench.incus.open():
            assert await bench.engine.recover() == []

            async def gone() -> bool:
                return not draft.exists()

            await until(gone)
            assert not bench.incus.instances

    bench.run(work())


def test_the_instance_of_a_whole_sandbox_outlives_a_draft_of_it(bench: Bench) -> None:
    """A directory that is left beside a whole sandbox goes, and nothing of the sandbox does."""

    async def work() -> None:
        bench.has(runs=False)
        draft = bench.sandboxes / f".new-{SANDBOX}-0000"
        draft.mkdir()
        (draft / INSTANCE).touch()
        async with bench.incus.open():
            await bench.engine.recover()

            async def gone() -> bool:
                return not draft.exists()

            await until(gone)
            assert NAME in bench.incus.instances

    bench.run(work())


def test_one_without_its_mark_is_broken_and_stays(bench: Bench) -> None:
    """One whose mark someone removed is not taken up, not touched at Incus, and cut off; `look` says why."""

    async def work() -> None:
        bench.has(runs=True)
        found = bench.incus.instances[NAME]
        found["config"] = {key: value for key, value in found["config"].items() if key != instance.MARK}
        async with bench.incus.open():
            assert await bench.engine.recover() == []
            look = await bench.engine.look(SANDBOX)
            assert (look.state, "is not of irons" in look.reason) == ("broken", True)
            assert bench.status() == "Running"
            assert PresentRun.read(bench.home()) is None

    bench.run(work())


def test_a_start_after_a_stop_that_failed_gives_a_cell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that runs on without a cell, since Incus was away when it was to stop, is ended and started with one."""

    async def boot(engine: IncusContainers, home: Path, found: object, ran: PresentRun) -> None:
        assert bench.status() == "Stopped"
        await engine._incus.change("PUT", f"instances/{NAME}/state", {"action": "start"})

    monkeypatch.setattr(IncusContainers, "_boot", boot)

    async def work() -> None:
        bench.has(runs=True)
        with pytest.raises(EngineError, match="does not answer"):
            await bench.engine.stop(SANDBOX)
        assert PresentRun.read(bench.home()) is None
        async with bench.incus.open():
            await bench.engine.start(SANDBOX)
            assert bench.status() == "Running"
            assert bench.cells.held == {SANDBOX}
            assert PresentRun.read(bench.home()) is not None

    bench.run(work())


def test_one_that_runs_without_a_cell_is_ended(bench: Bench) -> None:
    """Whoever waits for its end ends one that has no cell."""

    async def work() -> None:
        bench.has(runs=True, noted=False)
        async with bench.incus.open():
            waiting = asyncio.create_task(bench.engine.wait(SANDBOX))

            async def stopped() -> bool:
                return bench.status() == "Stopped"

            await until(stopped)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    bench.run(work())


@pytest.fixture
def creates(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[object]]:
    """Create the sandbox from an image that Incus has."""
    image = SimpleNamespace(id="img_1", name="debian", user="", username="root", sshd="/usr/sbin/sshd")

    async def stored(*_: object) -> object:
        return image

    async def sent(*_: object) -> str:
        return "f"

    monkeypatch.setattr("irons_local.engines.incus.engine.Images.ensure", stored)
    monkeypatch.setattr("irons_local.engines.incus.images.ensure", sent)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return lambda: bench.engine.create(Spec(SANDBOX, "box", KEY))


def drafts(bench: Bench) -> list[str]:
    """What is half made."""
    return [home.name for home in bench.sandboxes.iterdir() if home.name.startswith(".new-")]


@pytest.mark.process
def test_a_create_that_fails_half_way_leaves_no_instance(
    bench: Bench, creates: Callable[[], Awaitable[object]]
) -> None:
    """An instance that Incus made, and then failed, is deleted with the draft."""

    async def work() -> None:
        bench.incus.breaking = True
        async with bench.incus.open():
            with pytest.raises(EngineError, match="database is locked"):
                await creates()
            assert not bench.incus.instances
            assert not drafts(bench)

    bench.run(work())


@pytest.mark.process
def test_an_instance_that_cannot_be_deleted_is_found_again(
    bench: Bench, creates: Callable[[], Awaitable[object]]
) -> None:
    """Where the deletion fails, too, the draft names the instance, and the next `recover` removes both."""

    async def work() -> None:
        bench.incus.breaking = True
        bench.incus.failing.add(f"DELETE instances/{NAME}")
        async with bench.incus.open():
            with pytest.raises(EngineError, match="database is locked"):
                await creates()
            assert NAME in bench.incus.instances
            assert len(drafts(bench)) == 1
            bench.incus.failing.clear()
            assert await bench.engine.recover() == []

            async def gone() -> bool:
                return not drafts(bench)

            await until(gone)
            assert not bench.incus.instances

    bench.run(work())


def test_a_destroy_without_incus_says_what_can_be_done(bench: Bench) -> None:
    """It is refused with one line that names the instance, and the way where Incus is gone for good; nothing is removed."""

    async def work() -> None:
        bench.has(runs=False)
        with pytest.raises(EngineError) as caught:
            await bench.engine.destroy(SANDBOX)
        assert f"its instance {NAME} cannot be removed: Incus does not answer at" in caught.value.message
        assert "irons local uninstall --purge" in caught.value.hint
        assert bench.home().is_dir()

    bench.run(work())


@pytest.mark.parametrize("runs", [True, False], ids=["running", "stopped"])
def test_a_sandbox_can_be_abandoned_where_incus_is_gone(bench: Bench, runs: bool) -> None:
    """Its network and its files go, and the instance that may be left is named."""

    async def work() -> None:
        bench.has(runs=runs)
        assert await bench.engine.abandon(SANDBOX) == NAME
        assert not bench.home().exists()
        assert namespaces.started(bench.cells.holder) is None or not runs
        assert await bench.engine.abandon(OTHER) == ""

    bench.run(work())


@pytest.mark.parametrize("silent", [True, False])
def test_a_sandbox_of_an_incus_that_is_there_is_not_abandoned(bench: Bench, silent: bool) -> None:
    """Whatever listens at the socket may have the instance, also where it does not answer."""
    loop = ForwardLoop()

    async def work() -> None:
        bench.has(runs=False)
        bench.incus.silent = silent
        async with bench.incus.open():
            abandoning = asyncio.create_task(bench.engine.abandon(SANDBOX))

            async def asked() -> bool:
                return bool(bench.incus.asked)

            await until(asked)
            loop.skip(1000)
            with pytest.raises(EngineError):
                await abandoning
        assert bench.home().is_dir()

    bench.run(work(), loop)


def test_a_stop_without_incus_keeps_the_boot_log(bench: Bench) -> None:
    """What was kept of the boot steps is not replaced by nothing; a run that printed nothing has an empty log."""

    async def work() -> None:
        for there, kept in ((False, b"before\n"), (True, b"")):
            bench.has(runs=True)
            (bench.home() / "boot.log").write_text("before\n")
            async with contextlib.AsyncExitStack() as stack:
                if there:
                    await stack.enter_async_context(bench.incus.open())
                with contextlib.suppress(EngineError):
                    await bench.engine.stop(SANDBOX)
            assert await bench.engine.boot_output(SANDBOX) == kept
            await remove_tree(bench.home())

    bench.run(work())


@pytest.mark.process
def test_where_incus_listens_is_closed_to_sandboxes(
    bench: Bench, creates: Callable[[], Awaitable[object]]
) -> None:
    """A create finds out where each member answers on the network, and that is known while Incus is away."""

    async def work() -> None:
        bench.incus.members = {"n1": "Online", "n2": "Offline"}
        bench.incus.addresses = ["10.9.9.9:8443", "[fd00::9]:8444", "n1.example:8443"]
        async with bench.incus.open():
            await creates()
        engine = IncusEngine(Kit(bench.cells, bench.sandboxes.parent / "images", bench.sandboxes))
        assert set(engine.listening()) == {
            ("10.9.9.9", 8443),
            ("fd00::9", 8444),
            ("192.0.2.1", 8443),
            ("192.0.2.2", 8443),
        }

    bench.run(work())
