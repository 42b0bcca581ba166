"""The namespace engine's process is killed at any moment: what is left can be started, or removed without a trace."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.engine_cells import OwnCells

from irons_local.bundle.machine import Machine
from irons_local.engines.namespace.engine import NamespaceEngine
from irons_local.engines.protocol import Kit, Spec
from irons_local.errors import CellError
from irons_local.images.catalog import Images
from irons_local.linux.namespaces import started

SANDBOX = "sb_00000000000dead0"
VICTIM = """
import asyncio, sys
from pathlib import Path
from irons_local.engines.protocol import Kit, Spec
from irons_local.engines.namespace.engine import NamespaceEngine
from tests.local.engine_cells import OwnCells
async def main():
    root = Path(sys.argv[1])
    engine = NamespaceEngine(Kit(OwnCells(), root / "images", root / "sandboxes"))
    print("begun", flush=True)
    for step in sys.argv[3:]:
        if step == "create":
            await engine.create(Spec(sys.argv[2], "victim", Path(root / "id.pub").read_text()))
        else:
            await getattr(engine, step)(sys.argv[2])
        print(step, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def home(place_for_all: Path, archive: Path) -> Iterator[Path]:
    """Somewhere with an image and a key."""
    made = place_for_all / "killed"
    made.mkdir(mode=0o700)
    asyncio.run(Images(made / "images", made / "sandboxes").import_(archive, "debian"))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(made / "id")], check=True)
    yield made
    if (made / "sandboxes" / SANDBOX).exists():
        # The run was interrupted.
        engine = NamespaceEngine(Kit(OwnCells(), made / "images", made / "sandboxes"))
        asyncio.run(engine.destroy(SANDBOX))
    shutil.rmtree(made)


def _kill_amid(home: Path, delay: float, *steps: str) -> None:
    """Have another process take some steps, and kill it a while after the last but one is done."""
    root = Path(__file__).parent.parent.parent
    env = {**os.environ, "PYTHONPATH": str(root)}
    words = [sys.executable, "-c", VICTIM, str(home), SANDBOX, *steps]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        for _ in steps:
            assert process.stdout.readline()
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
    _settle(home)


def _settle(home: Path) -> None:
    """Wait until what the killed process had started by itself is done."""

    async def settled() -> None:
        async with Machine.held(home / "sandboxes" / SANDBOX, 60.0):
            pass

    if (home / "sandboxes" / SANDBOX).exists():
        asyncio.run(settled())


def _groups() -> list[str]:
    return [str(path) for path in Path("/sys/fs/cgroup").rglob(SANDBOX)]


@pytest.mark.e2e
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3])
@pytest.mark.parametrize(
    "steps", [("create",), ("create", "start"), ("create", "start", "stop"), ("create", "start", "destroy")]
)
def test_after_a_kill_all_can_go_on_or_go(home: Path, steps: tuple[str, ...], delay: float) -> None:
    """Killed in the middle of a step, a new engine finds a state that is true, starts it, and leaves nothing of it."""
    _kill_amid(home, delay, *steps)

    async def go_on() -> None:
        cells = OwnCells()
        engine = NamespaceEngine(Kit(cells, home / "images", home / "sandboxes"))
        running = await engine.recover()
        look = await engine.look(SANDBOX)
        # One that was asked to end when the engine died ends at any moment.
        assert look.state != "running" or SANDBOX in running
        assert SANDBOX not in running or look.state == "running" or steps[-1] in ("stop", "destroy")
        if look.state == "absent":
            await engine.create(Spec(SANDBOX, "victim", (home / "id.pub").read_text()))
        await engine.start(SANDBOX)
        process = Machine.running(home / "sandboxes" / SANDBOX)
        assert process is not None
        await engine.destroy(SANDBOX)
        assert cells.held == {}
        assert started(process.pid) != process.started

    asyncio.run(go_on())
    assert list((home / "sandboxes").iterdir()) == []
    assert _groups() == []


class _Exiting(OwnCells):
    """Cells whose process is about to end when its cell is looked for: it has no namespaces any more."""

    async def adopt(self, cell: str, pid: int, started: int) -> None:
        os.kill(pid, signal.SIGKILL)
        raise CellError("the process is gone")


@pytest.mark.e2e
def test_a_process_that_ends_during_recovery_does_not_run(home: Path) -> None:
    """A new engine does not count a sandbox whose process 1 ends while its cell is being found again."""

    async def work() -> None:
        first = NamespaceEngine(Kit(OwnCells(), home / "images", home / "sandboxes"))
        await first.create(Spec(SANDBOX, "victim", (home / "id.pub").read_text()))
        await first.start(SANDBOX)
        second = NamespaceEngine(Kit(_Exiting(), home / "images", home / "sandboxes"))
        assert await second.recover() == []
        assert (await second.look(SANDBOX)).state == "stopped"
        await second.destroy(SANDBOX)

    asyncio.run(work())
    assert _groups() == []
