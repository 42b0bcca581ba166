"""A virtual machine saved as an image: what is recorded, what a kill leaves, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.local.image_archives import SYSTEM, Place, make_place, unpacking
from tests.local.vm_disks import (
    MARK,
    SIZE,
    append,
    guest_runs,
    running_qemu,
    settled,
    stopped_machine,
    told_well,
)
from tests.machine import Machine as MachineNeeds

from irons_local.bundle.machine import VIRTUAL_DISK, Machine
from irons_local.engines.vm import chain, qcow2, qemu, qmp
from irons_local.engines.vm.saved import exporting, saving
from irons_local.errors import EngineError
from irons_local.images import origins
from irons_local.images.record import Image
from irons_local.linux import namespaces


@pytest.fixture
def place() -> Iterator[Place]:
    """A place of its own."""
    with make_place() as made:
        yield made


def stopped(place: Place) -> tuple[Path, Image]:
    """A machine of an image that does not run and has written something, and the image."""
    image = place.imported(*SYSTEM)
    home, _ = stopped_machine(place.root)
    replace(Machine.read(home), image=image.id, image_name=image.name).write(home)
    return home, image


def save(place: Place, home: Path, name: str = "saved") -> Image:
    """Save a machine."""
    return asyncio.run(saving.save(place.images, home, name))


def written(place: Place, layers: tuple[str, ...]) -> list[bytes]:
    """What was written to each layer."""
    paths = [path / "disk" for path in place.images.layers.trees(layers)]
    return [path.read_bytes()[len(qcow2.empty(SIZE)) :] for path in paths]


@unpacking
def test_a_machine_becomes_an_image_without_a_copy(place: Place) -> None:
    """The image names its layers and the size of its disk; the machine goes on over them, and a second image adds none."""
    home, image = stopped(place)
    saved = save(place, home)
    machine = Machine.read(home)
    assert (saved.kind, saved.disk, saved.base) == ("disk", SIZE, image.id)
    assert saved.layers == machine.layers
    assert written(place, saved.layers) == [MARK]
    assert chain.is_empty(home, machine)
    assert save(place, home, "again").layers == saved.layers
    append(home / VIRTUAL_DISK, b"more")
    assert written(place, save(place, home, "later").layers) == [b"more", MARK]
    assert [(each.name, each.kind) for each in place.images.listed()] == [
        *(("later", "disk"), ("again", "disk"), ("saved", "disk"), ("little", "files"))
    ]
    # One that knows no disks must not take it for files.
    assert json.loads((saved.home / "image.json").read_text())["version"] == 3
    assert place.images.find("saved") == saved


@unpacking
def test_the_layers_of_an_image_stay_for_as_long_as_it_does(place: Place) -> None:
    """Neither the machine nor the image below it takes them along; with the image they go."""
    home, image = stopped(place)
    saved = save(place, home)
    for path in home.iterdir():
        path.unlink()
    home.rmdir()
    asyncio.run(place.images.remove(image.name))
    asyncio.run(place.images.recover())
    origin = asyncio.run(origins.of_disk(place.images, saved))
    assert origin is not None
    assert (origin.image, origin.layers, origin.disk) == (image.id, saved.layers, SIZE)
    assert written(place, origin.layers) == [MARK]
    asyncio.run(place.images.remove("saved"))
    assert not place.images.layers.listed()
    assert place.left() == []


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from irons_local.engines.vm.saved import exporting, saving
from irons_local.images.catalog import Images
root, left = Path(sys.argv[1]), int(sys.argv[2])
def audited(event, arguments):
    global left
    # Every step that changes what is on the disk is one of these.
    writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event in ("os.rename", "os.mkdir", "os.remove", "os.link") or writing:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
images = Images(root / "images", root / "sandboxes")
sys.addaudithook(audited)
asyncio.run(saving.save(images, root / "sandboxes" / "sb_0000000000000001", "saved"))
left = 1 << 30
"""


@unpacking
@pytest.mark.timeout(600)
def test_a_kill_at_any_step_leaves_whole_things(place: Place) -> None:
    """Whichever step a kill comes before, there is a whole image or none, what was written is there once, and it can be saved again."""
    image = place.imported(*SYSTEM)
    for step in range(100):
        home, layers = stopped_machine(place.root)
        replace(Machine.read(home), image=image.id).write(home)
        words = [sys.executable, "-c", _KILLED, str(place.root), str(step)]
        ended = subprocess.run(words, check=False, timeout=120).returncode
        settled(home, layers)
        asyncio.run(place.images.recover())
        machine = Machine.read(home)
        disks = [home / VIRTUAL_DISK, *chain.files(machine, layers)]
        assert [path.read_bytes()[len(qcow2.empty(SIZE)) :] for path in disks] in ([MARK], [b"", MARK])
        saved = place.images.find("saved")
        assert saved is None or written(place, saved.layers) == [MARK]
        assert written(place, save(place, home, "after").layers) == [MARK]
        names = ["after", *(["saved"] if saved else [])]
        assert sorted(place.left()) == sorted(each.id for each in (*place.images.listed(),))
        for path in home.iterdir():
            path.unlink()
        home.rmdir()
        for name in names:
            asyncio.run(place.images.remove(name))
        assert not layers.listed()
        if ended == 0:
            assert step > 8
            return
        assert ended == -signal.SIGKILL
    pytest.fail("it did not end")


@unpacking
def test_what_cannot_be_done_with_a_disk_is_said(place: Place) -> None:
    """A machine that runs is not saved; no file of a saved one is read, so that it is neither a namespace sandbox nor an archive."""
    home, _ = stopped(place)
    saved = save(place, home)
    with pytest.raises(EngineError, match="the disk of a virtual machine"):
        place.images.lower(saved)
    with pytest.raises(EngineError, match="the disk of a virtual machine"):
        asyncio.run(place.images.export("saved", place.root / "out.tar"))
    assert not list(place.root.glob("*out*"))
    pid = os.getpid()
    run = {"pid": pid, "started": namespaces.started(pid)}
    Machine.run_file(home).write_text(json.dumps(run))
    with pytest.raises(EngineError, match="runs"):
        save(place, home, "running")
    assert place.images.find("running") is None


@unpacking
def test_a_layer_that_is_gone_is_said(place: Place) -> None:
    """A machine is not made of an image one of whose layers someone removed."""
    home, _ = stopped(place)
    saved = save(place, home)
    (tree,) = place.images.layers.trees(saved.layers)
    (tree / "disk").unlink()
    tree.rmdir()
    with pytest.raises(EngineError, match="the image saved is damaged: the layer"):
        asyncio.run(origins.of_disk(place.images, saved))


BASE = bytes([7]) * (1 << 20)


def exported(place: Place, image: Image) -> Path:
    """The file that an image is exported to, over a disk of its base that begins with some bytes."""
    home = place.images.by_id(image.base).home / "vm"
    home.mkdir(exist_ok=True)
    (home / "disk").write_bytes(BASE)
    (home / "boot.json").write_text(json.dumps({"size": len(BASE)}))
    path = place.root / "out.raw"
    asyncio.run(exporting.export(place.images, image, path))
    return path


@unpacking
@pytest.mark.slow
def test_a_disk_is_exported_as_its_guest_has_it(
    place: Place, machine: MachineNeeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has what each layer and the image below wrote last, zeros where the guest gave up what it had, and holes elsewhere."""
    machine.require(qemu.PROGRAM)
    monkeypatch.setattr(qmp, "ANSWERED_WITHIN", 300.0)
    home, _ = stopped(place)
    chain.write_empty(home / VIRTUAL_DISK, SIZE)
    base = place.root / "base"
    base.write_bytes(BASE)
    wrote = (
        ("write -P 1 0 64K", "write -P 2 128K 64K", f"write -P 3 {SIZE - 512} 512", "write -P 4 700M 64K"),
        ("write -P 5 4K 4K", "write -z 128K 64K", "write -P 6 600M 1M"),
    )
    for number, lines in enumerate(wrote):
        layers = chain.files(Machine.read(home), place.images.layers)
        with running_qemu(home, base, layers) as process:
            asyncio.run(guest_runs(home, *lines, "flush"))
        told_well(process, 0)
        save(place, home, f"saved-{number}")
    saved = place.images.named("saved-1")
    path = exported(place, saved)
    found = path.stat()
    assert found.st_size == SIZE
    assert found.st_blocks * 512 < 8 << 20
    wanted = {
        0: 1,
        4 << 10: 5,
        8 << 10: 1,
        64 << 10: 7,
        128 << 10: 0,
        192 << 10: 7,
        (1 << 20) - 1: 7,
        1 << 20: 0,
    }
    wanted |= {
        600 << 20: 6,
        (601 << 20) - 1: 6,
        601 << 20: 0,
        700 << 20: 4,
        SIZE - 513: 0,
        SIZE - 512: 3,
        SIZE - 1: 3,
    }
    with path.open("rb") as file:
        assert {at: os.pread(file.fileno(), 1, at)[0] for at in wanted} == wanted
    assert exported(place, saved).stat().st_size == SIZE
    assert not list(place.root.glob(".out*"))


@unpacking
def test_a_disk_that_shows_one_piece_everywhere_is_not_written_out(place: Place) -> None:
    """Who broke out of a guest's QEMU can map its whole disk to one piece of the file: what is exported is no larger than what was stored."""
    home, _ = stopped(place)
    disk = bytearray(qcow2.empty(SIZE))
    table = len(disk)
    told = qcow2.read_header(bytes(disk[: qcow2.HEAD]))
    for number in range(told.entries):
        disk[told.tables_at + 8 * number : told.tables_at + 8 * number + 8] = struct.pack(
            ">Q", table | 1 << 63
        )
    piece = table + qcow2.CLUSTER
    disk += struct.pack(">Q", piece | 1 << 63) * (qcow2.CLUSTER // 8) + b"x" * qcow2.CLUSTER
    (home / VIRTUAL_DISK).write_bytes(disk)
    saved = save(place, home)
    (place.root / "out.raw").write_text("what was there")
    with pytest.raises(EngineError, match="a disk is refused: it has more in it than it takes"):
        exported(place, saved)
    assert (place.root / "out.raw").read_text() == "what was there"
    assert not list(place.root.glob(".out*"))
