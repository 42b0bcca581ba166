"""Disks that name a file of the host: what a guest's root writes is data, and what a program that broke out writes is refused."""

from __future__ import annotations

import asyncio
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.hostile_disks import BOOT_BLOCK, HOSTILE, over
from tests.local.image_archives import make_place, unpacking
from tests.local.vm_disks import (
    begun,
    guest_does,
    guest_runs,
    opened,
    running_qemu,
    settled,
    stopped_machine,
    told_well,
)
from tests.machine import Machine as MachineNeeds

from irons_local.bundle.machine import VIRTUAL_DISK, Machine
from irons_local.engines.vm import chain, qcow2, qemu, qmp, switching
from irons_local.errors import EngineError

SECRET = b"a secret of the host "

Disk = Callable[[str], bytes]
each_kind = pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time until QEMU answers."""
    monkeypatch.setattr(qmp, "ANSWERED_WITHIN", 300.0)
    monkeypatch.setattr(switching, "SWITCHED_WITHIN", 300.0)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that anyone may read, and no guest may get."""
    made = tmp_path / "secret"
    made.write_bytes((SECRET * 4096)[: 64 << 10])
    return made


@each_kind
def test_a_disk_that_names_more_is_refused(hostile: Disk, secret: Path, tmp_path: Path) -> None:
    """In the machine's own disk and in a layer of it: before anything is started, with the file and what is wrong."""
    home, layers = stopped_machine(tmp_path)

    def refused(disk: Path) -> None:
        chain.check(home, Machine.read(home), layers)
        with disk.open("r+b") as file:
            before = file.read(BOOT_BLOCK)
            file.seek(0)
            file.write(hostile(str(secret)))
        with pytest.raises(EngineError, match="is refused: it") as caught:
            chain.check(home, Machine.read(home), layers)
        assert str(disk) in caught.value.message
        with disk.open("r+b") as file:
            file.write(before)

    refused(home / VIRTUAL_DISK)
    begun(home, layers)
    settled(home, layers)
    refused(chain.files(Machine.read(home), layers)[0])


def test_a_disk_that_is_marked_by_qemu_is_not_refused() -> None:
    """QEMU says in the header of a disk that it was not closed, or is damaged; other features are foreign, and so is another format."""
    whole = bytearray(qcow2.empty(1 << 30))
    for features, refused in ((1, False), (2, False), (8, True), (16, True), (1 << 40, True)):
        whole[72:80] = features.to_bytes(8, "big")
        assert bool(qcow2.foreign(bytes(whole))) is refused
    assert qcow2.foreign(b"") == "it has no header"
    assert qcow2.foreign(b"raw" * 100) == "it is not in the format qcow2, version 3"


@pytest.mark.process
@each_kind
def test_what_a_guest_writes_is_data(
    hostile: Disk, secret: Path, tmp_path: Path, machine: MachineNeeds
) -> None:
    """Such a disk on the guest's own disk, and on its image's, is opened by no QEMU: not now, after a snapshot, nor in a copy."""
    machine.require(qemu.PROGRAM)
    home, layers = stopped_machine(tmp_path, b"")
    base, written = tmp_path / "base", tmp_path / "written"
    written.write_bytes(hostile(str(secret)))
    base.write_bytes(hostile(str(secret)).ljust(32 << 20, b"\0"))

    async def write() -> None:
        await guest_runs(home, f"read -v 0 {BOOT_BLOCK}", f"write -s {written} 0 {BOOT_BLOCK}", "flush")
        begun(home, layers)
        await chain.settle(home, layers, lambda disk, layer: switching.switch(home / "qmp", disk, layer))
        await guest_runs(home, f"read -v 0 {BOOT_BLOCK}", f"write -s {written} 0 {BOOT_BLOCK}", "flush")

    with running_qemu(home, base) as process:
        asyncio.run(write())
        found = opened(process)
    check_data(process, 2)
    assert str(base) in found
    assert str(secret) not in found
    chain.check(home, Machine.read(home), layers)
    begun(home, layers)
    settled(home, layers)
    with running_qemu(home, base, chain.files(Machine.read(home), layers)) as process:
        asyncio.run(guest_runs(home, f"read -v 0 {BOOT_BLOCK}"))
        found = opened(process)
    check_data(process, 1)
    assert {str(path) for path in chain.files(Machine.read(home), layers)} <= found
    assert str(secret) not in found


def check_data(process: subprocess.Popen[bytes], reads: int) -> None:
    """Check that what a QEMU read is the disk that was written, and nothing of what that names."""
    assert process.stdout is not None
    with process.stdout as said:
        told = said.read().decode()
    assert told.count(f"read {BOOT_BLOCK}/{BOOT_BLOCK} bytes") == reads
    assert told.count("QFI") == reads
    assert "secret of the" not in told


@pytest.mark.process
def test_a_disk_that_names_a_file_does_not_get_it(
    secret: Path, tmp_path: Path, machine: MachineNeeds
) -> None:
    """Where such a disk were started from all the same, QEMU reads it over its base, and not over the file that it names."""
    machine.require(qemu.PROGRAM)
    home, _ = stopped_machine(tmp_path, b"")
    base = tmp_path / "base"
    base.write_bytes(b"b" * (32 << 20))
    name = str(secret).encode()
    with (home / VIRTUAL_DISK).open("r+b") as disk:
        # Offset and length of the name of a backing file, which is behind the header.
        disk.seek(8)
        disk.write(struct.pack(">QI", 2048, len(name)))
        disk.seek(2048)
        disk.write(name)
    with running_qemu(home, base) as process:
        asyncio.run(guest_does(home, "b", "read"))
        found = opened(process)
    told_well(process, 1)
    assert str(base) in found
    assert str(secret) not in found


@pytest.mark.process
@pytest.mark.parametrize("hostile", [over, HOSTILE["with data in a file"]])
def test_such_a_disk_would_show_the_file(
    hostile: Disk, secret: Path, tmp_path: Path, machine: MachineNeeds
) -> None:
    """A QEMU that is told to open one gets what it names: the disks of these tests are what they are meant to be."""
    machine.require(qemu.PROGRAM)
    home, _ = stopped_machine(tmp_path, b"")
    base, disk = tmp_path / "base", tmp_path / "hostile"
    base.write_bytes(bytes(32 << 20))
    disk.write_bytes(hostile(str(secret)))
    more = [
        "-blockdev",
        f"node-name=trusting,driver=qcow2,read-only=on,file.driver=file,file.filename={disk}",
        *("-device", "virtio-blk-pci,id=trusting,drive=trusting"),
    ]
    with running_qemu(home, base, more=more) as process:
        asyncio.run(guest_runs(home, "read 0 512", device="/machine/peripheral/trusting/virtio-backend"))
        found = opened(process)
    told_well(process, 1)
    assert str(secret) in found


@unpacking
@each_kind
def test_a_disk_is_not_imported(hostile: Disk, secret: Path) -> None:
    """An image is made of an archive alone: a disk is refused in one line, and nothing is read of what it names."""
    with make_place() as place:
        disk = place.root / "disk.qcow2"
        for content in (
            hostile(str(secret)),
            hostile(str(secret)).ljust(1 << 20, b"\0"),
            qcow2.empty(1 << 30),
        ):
            disk.write_bytes(content)
            refusal = place.refused(place.images.import_(disk, "little"))
            assert (refusal.code, "a disk of a virtual machine" in refusal.message) == ("image", True)
