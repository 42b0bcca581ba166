"""The vm engine for real: the conformance suite, each check in machines of its own, as root; `make test-vm` alone runs it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.engine_cells import OwnCells
from tests.machine import Machine as MachineNeeds

from irons_local.engines import conformance
from irons_local.engines.conformance import CHECKS, Bench
from irons_local.engines.protocol import Kit
from irons_local.engines.vm.engine import VmEngine
from irons_local.images.catalog import MACHINE, Images

LEFT_OUT = {
    "what_was_enabled_starts": "systemd starts services of a guest, and the host sees nothing of how they end",
    "processes_are_limited": "the number of processes is the guest's own affair",
}
"""Checks of the suite that do not hold for a machine with a kernel of its own, each with the reason."""

pytestmark = [
    pytest.mark.vm,
    pytest.mark.process,
    pytest.mark.skipif(not os.environ.get("IRONS_TEST_VM"), reason="only make test-vm runs it"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """An image for virtual machines, given or built, in a place of its own."""
    place = tmp_path_factory.mktemp("vm-engine")
    found = Images(place / "images", place / "sandboxes")
    ready = os.environ.get("IRONS_TEST_VM_IMAGE")
    asyncio.run(found.import_(Path(ready), MACHINE) if ready else found.build(MACHINE, machine=True))
    yield found
    asyncio.run(found.remove(MACHINE))
    assert not list((place / "sandboxes").glob("sb_*"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [name for name in CHECKS if name not in LEFT_OUT])
def test_a_virtual_machine_conforms(
    name: str, images: Images, tmp_path: Path, machine: MachineNeeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What every engine promises holds for machines, emulated ones included."""
    machine.require("root", "qemu-system-x86_64", "mke2fs", "crun")
    # An emulated guest on a busy machine takes its time for everything.
    monkeypatch.setattr(conformance, "_COMMAND_WITHIN", 600.0)
    place = images.layers.root.parent
    cells = OwnCells()
    kit = Kit(cells, place / "images", place / "sandboxes")

    async def check() -> None:
        async with Bench(lambda: VmEngine(kit), tmp_path) as bench:
            await CHECKS[name](bench)

    asyncio.run(check())
    assert not cells.held
