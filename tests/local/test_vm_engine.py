"""The vm engine for real: the conformance suite and attacks, each in machines of its own, as root; `make test-vm` alone runs it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import vm_left_out
from tests.local.engine_attacks import ATTACKS
from tests.local.engine_cells import OwnCells
from tests.machine import Machine as MachineNeeds

from irons_local.engines import conformance
from irons_local.engines.conformance import CHECKS, Bench
from irons_local.engines.protocol import Kit
from irons_local.engines.vm.engine import VmEngine
from irons_local.images.catalog import MACHINE, Images

TRIED = {
    name: check
    for name, check in {**CHECKS, **ATTACKS}.items()
    if name not in {**vm_left_out.CHECKS, **vm_left_out.ATTACKS}
}

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
@pytest.mark.parametrize("name", TRIED)
def test_a_virtual_machine_conforms(
    name: str, images: Images, tmp_path: Path, machine: MachineNeeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What every engine promises holds for machines, emulated ones included, and what a guest's root tries against the host comes to nothing."""
    machine.require("root", "qemu-system-x86_64", "mke2fs", "crun")
    # An emulated guest on a busy machine takes its time for everything.
    monkeypatch.setattr(conformance, "_COMMAND_WITHIN", 3000.0)
    place = images.layers.root.parent
    cells = OwnCells()
    kit = Kit(cells, place / "images", place / "sandboxes")

    async def check() -> None:
        async with Bench(lambda: VmEngine(kit), tmp_path) as bench:
            await TRIED[name](bench)

    asyncio.run(check())
    assert not cells.held
