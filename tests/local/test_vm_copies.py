"""Snapshots of a machine's disk: what a kill leaves at each step, and a QEMU that goes on writing to another disk."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.local.vm_disks import (
    MARK,
    SIZE,
    append,
    begun,
    guest_does,
    running_qemu,
    settled,
    stopped_machine,
    told_well,
)
from tests.machine import Machine as MachineNeeds

from irons_local.bundle.machine import NEXT_DISK, VIRTUAL_DISK, Machine
from irons_local.engines.vm import chain, limits, qcow2, qemu, qmp, switching
from irons_local.errors import EngineError
from irons_local.limits import Limits


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time until QEMU answers."""
    monkeypatch.setattr(qmp, "ANSWERED_WITHIN", 300.0)
    monkeypatch.setattr(switching, "SWITCHED_WITHIN", 300.0)


def test_a_disk_becomes_a_layer_under_an_empty_one(tmp_path: Path) -> None:
    """What was written is in the layer, which the machine's record names; its disk is empty, and nothing else is left."""
    home, layers = stopped_machine(tmp_path)
    machine = begun(home, layers)
    settled(home, layers)
    (written,) = chain.files(machine, layers)
    assert written.read_bytes() == qcow2.empty(SIZE) + MARK
    assert chain.is_empty(home, machine)
    assert sorted(path.name for path in home.iterdir()) == [VIRTUAL_DISK, "machine.json"]
    assert [each.kind for each in layers.listed()] == ["disk"]


_KILLED = """
import asyncio, os, pathlib, signal, sys
from pathlib import Path
from irons_local.bundle.machine import Machine
from irons_local.engines.vm import chain
from irons_local.images.layers import Layers
home, layers, left = Path(sys.argv[1]), Layers(Path(sys.argv[2])), int(sys.argv[3])
def audited(event, arguments):
    global left
    # Every step that changes what is on the disk is one of these.
    writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event in ("os.rename", "os.mkdir", "os.remove", "os.link") or writing:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(audited)
chain.begin(home, Machine.read(home), layers)
asyncio.run(chain.settle(home, layers, None))
left = 1 << 30
"""


@pytest.mark.process
def test_a_kill_at_any_step_leaves_a_whole_machine(tmp_path: Path) -> None:
    """Whichever step a kill comes before, what was written is read once, over or under an empty disk, and the next snapshot works."""
    for step in range(100):
        home, layers = stopped_machine(tmp_path / str(step))
        words = [sys.executable, "-c", _KILLED, str(home), str(layers.root), str(step)]
        ended = subprocess.run(words, check=False, timeout=60).returncode
        assert Machine.is_virtual(home)
        settled(home, layers)
        machine = Machine.read(home)
        disks = [home / VIRTUAL_DISK, *chain.files(machine, layers)]
        assert [path.read_bytes()[len(qcow2.empty(SIZE)) :] for path in disks] in ([MARK], [b"", MARK])
        assert not (home / NEXT_DISK).exists()
        asyncio.run(layers.sweep(machine.layers))
        assert {each.id for each in layers.listed()} == set(machine.layers)
        append(home / VIRTUAL_DISK, b"more")
        machine = begun(home, layers)
        settled(home, layers)
        assert chain.files(machine, layers)[0].read_bytes().endswith(b"more")
        if ended == 0:
            assert step > 5
            return
        assert ended == -signal.SIGKILL
    pytest.fail("it did not end")


def test_a_layer_that_is_gone_is_not_made_of_what_came_after_it(tmp_path: Path) -> None:
    """Where someone removed the newest layer, the start is refused, and the machine's disk stays what it was."""
    home, layers = stopped_machine(tmp_path)
    machine = begun(home, layers)
    settled(home, layers)
    (written,) = chain.files(machine, layers)
    written.unlink()
    written.parent.rmdir()
    append(home / VIRTUAL_DISK, b"later")
    settled(home, layers)
    with pytest.raises(EngineError, match="is gone"):
        chain.files(machine, layers)
    assert (home / VIRTUAL_DISK).read_bytes().endswith(b"later")


def test_a_directory_that_a_power_loss_took_is_made_again(tmp_path: Path) -> None:
    """The machine's record names a layer whose directory never came to the disk: the disk becomes that layer all the same."""
    home, layers = stopped_machine(tmp_path)
    machine = begun(home, layers)
    shutil.rmtree(layers.home(machine.layers[0]))
    settled(home, layers)
    (written,) = chain.files(machine, layers)
    assert written.read_bytes() == qcow2.empty(SIZE) + MARK
    assert chain.is_empty(home, machine)


def test_a_disk_of_the_length_of_an_empty_one_may_be_written_to(tmp_path: Path) -> None:
    """Only one that is empty byte for byte counts as empty."""
    home, layers = stopped_machine(tmp_path, b"")
    assert chain.is_empty(home, Machine.read(home))
    with (home / VIRTUAL_DISK).open("r+b") as disk:
        disk.seek(-1, os.SEEK_END)
        disk.write(b"x")
    assert not chain.is_empty(home, Machine.read(home))
    assert not layers.listed()


def test_what_a_disk_takes_counts_its_layers(tmp_path: Path) -> None:
    """What was written before a snapshot is counted after it, and a layer that is gone is passed over."""
    home, layers = stopped_machine(tmp_path, os.urandom(1 << 20))
    machine = begun(home, layers)
    settled(home, layers)
    disks = [home / VIRTUAL_DISK, *chain.whole(machine, layers)]
    for disk in disks:
        # What it takes is known for certain once it is on the disk.
        with disk.open("rb") as file:
            os.fsync(file)
    used = str(sum(disk.stat().st_blocks * 512 for disk in disks))
    assert len(disks) == 2
    assert limits.disk_facts(disks) == {"disk_used": used}
    assert limits.disk_facts([*disks, tmp_path / "gone"]) == {"disk_used": used}


def test_there_are_only_so_many_layers(tmp_path: Path) -> None:
    """One more than the most is refused with what to do, and nothing is made."""
    home, layers = stopped_machine(tmp_path)
    machine = replace(Machine.read(home), layers=tuple(f"ly_{n:016x}" for n in range(chain.DEEPEST)))
    with pytest.raises(EngineError, match="one more is too many"):
        chain.begin(home, machine, layers)
    assert not layers.listed()
    assert not (home / NEXT_DISK).exists()
    assert len(chain.begin(home, machine, layers, most=None).layers) == chain.DEEPEST + 1


def test_a_copy_has_at_least_the_disk_of_the_original() -> None:
    """It has the same size unless it is given more; less is refused with both sizes."""
    assert limits.disk_of(Limits(), 100 << 20, SIZE) == SIZE
    assert limits.disk_of(Limits(disk=2 * SIZE), 100 << 20, SIZE) == 2 * SIZE
    with pytest.raises(EngineError, match="cannot shrink"):
        limits.disk_of(Limits(disk=SIZE // 2), 100 << 20, SIZE)


@pytest.mark.process
def test_a_qemu_that_runs_goes_on_on_another_disk(tmp_path: Path, machine: MachineNeeds) -> None:
    """Two snapshots in one run: what is written afterwards is on the newest disk alone, the older ones never change again."""
    machine.require(qemu.PROGRAM)
    home, layers = stopped_machine(tmp_path, b"")
    base = tmp_path / "base"
    base.write_bytes(bytes(32 << 20))

    async def switch(disk: Path, layer: str) -> float:
        return await switching.switch(home / "qmp", disk, layer)

    async def run() -> None:
        for letter in "abc":
            await guest_does(home, letter, "write")
            before = {path: path.read_bytes() for path in chain.files(Machine.read(home), layers)}
            begun(home, layers)
            paused = await chain.settle(home, layers, switch)
            assert paused > 0
            # Asked again, as after a kill in between, nothing happens.
            assert await switch(home / VIRTUAL_DISK, Machine.read(home).layers[0]) == 0
            assert {path: path.read_bytes() for path in before} == before
        await guest_does(home, "d", "write")
        for letter in "abcd":
            await guest_does(home, letter, "read")

    with running_qemu(home, base) as process:
        asyncio.run(run())
    told_well(process, 4)
    machine_now = Machine.read(home)
    chain.check(home, machine_now, layers)
    disks = [home / VIRTUAL_DISK, *chain.files(machine_now, layers)]
    for disk, letter in zip(disks, "dcba", strict=True):
        content = disk.read_bytes()
        assert letter.encode() * 512 in content
        assert not any(other.encode() * 512 in content for other in set("abcd") - {letter})


@pytest.mark.process
def test_who_reads_a_base_cannot_keep_others_from_it(tmp_path: Path, machine: MachineNeeds) -> None:
    """A lock on a file that never changes, as a QEMU may hold that someone broke out into, does not stop another QEMU."""
    machine.require(qemu.PROGRAM)
    home, _ = stopped_machine(tmp_path, b"")
    base = tmp_path / "base"
    base.write_bytes(bytes(32 << 20))
    with base.open("rb") as held:
        # All bytes that QEMU's locks are of: struct flock with a type, whence, start, length and process.
        whole = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 200, 0)
        fcntl.fcntl(held, fcntl.F_OFD_SETLK, whole)
        with running_qemu(home, base) as process:
            asyncio.run(guest_does(home, "a", "write"))
        told_well(process, 0)


def test_a_qemu_that_does_not_answer_well_makes_no_snapshot(tmp_path: Path) -> None:
    """A socket that answers nonsense is refused in one line, and the layer is not whole, so that no snapshot can name it."""
    home, layers = stopped_machine(tmp_path)
    machine = begun(home, layers)

    async def run() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'{"QMP": {}}\n')
            while await reader.readline():
                writer.write(b'{"return": [{"inserted": {"node-name": 7}}, 3, null]}\n')
            writer.close()

        with qmp.listening(home / "qmp") as listener:
            server = await asyncio.start_unix_server(answer, sock=listener.dup())
            with pytest.raises(qmp.QmpError, match="which disk"):
                await chain.settle(
                    home, layers, lambda disk, layer: switching.switch(home / "qmp", disk, layer)
                )
            server.close()

    asyncio.run(run())
    assert not layers.tree(machine.layers[0]).exists()
    # Once QEMU has ended, the two disks read as they did.
    settled(home, layers)
    assert [path.read_bytes()[len(qcow2.empty(SIZE)) :] for path in chain.files(machine, layers)] == [MARK]


def test_a_descriptor_travels_with_its_command(tmp_path: Path) -> None:
    """What QEMU gets with a command is the file itself."""
    got: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        made, _ = listener.accept()
        with made:
            made.sendall(b'{"QMP": {}}\n')
            made.recv(4096)
            made.sendall(b'{"return": {}}\n')
            _, files, _, _ = socket.recv_fds(made, 4096, 4)
            got.extend(os.read(each, 100) for each in files)
            for each in files:
                os.close(each)
            made.sendall(b'{"return": {"fdset-id": 1}}\n')

    async def run() -> None:
        with qmp.listening(tmp_path / "qmp") as listener:
            serving = asyncio.create_task(asyncio.to_thread(serve, listener))
            async with qmp.connected(tmp_path / "qmp") as monitor:
                read, write = os.pipe()
                os.write(write, b"through")
                await monitor.execute("add-fd", handed=read)
                os.close(read)
                os.close(write)
            await serving

    asyncio.run(run())
    assert got == [b"through"]
