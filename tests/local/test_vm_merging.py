"""Merging the layers of a machine's disk: the guest reads the same before and after, whatever it wrote and whenever something is killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from tests.local.image_archives import unpacking
from tests.local.vm_disks import SIZE, guest_runs, opened, running_qemu, stopped_machine
from tests.machine import Machine as MachineNeeds

from irons_local.bundle.machine import VIRTUAL_DISK, Machine
from irons_local.engines.protocol import Cells, Kit
from irons_local.engines.vm import chain, qcow2, qemu, qmp, switching
from irons_local.engines.vm.engine import VmEngine
from irons_local.engines.vm.merge import filling, swap
from irons_local.errors import EngineError
from irons_local.images import merging
from irons_local.images.layers import Layers
from irons_local.linux.cgroup import Groups
from irons_local.linux.namespaces import started

PART = 16 << 10
"""Bytes of a part that a guest writes: some of them share a cluster of the disk."""

PLACES = [*range(0, 24 * PART, PART), *range(600 << 20, (600 << 20) + 8 * PART, PART), SIZE - PART]
pytestmark = [pytest.mark.process, pytest.mark.slow, unpacking]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch, machine: MachineNeeds) -> None:
    """A busy machine takes its time until QEMU answers."""
    machine.require(qemu.PROGRAM)
    for module, name in ((qmp, "ANSWERED_WITHIN"), (switching, "SWITCHED_WITHIN"), (swap, "SWAPPED_WITHIN")):
        monkeypatch.setattr(module, name, 300.0)


class Guest:
    """A machine, a QEMU without a guest that has its disk, and what must be on that.

    Args:
        root: a directory for all of it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home, self.layers = stopped_machine(root, b"")
        self.base = root / "base"
        self.base.write_bytes(bytes([7]) * (32 << 20))
        self.told = ""
        self.wanted = {place: 7 if place < 32 << 20 else 0 for place in PLACES}

    def engine(self) -> VmEngine:
        """The engine, as of a control plane that has just been started."""
        kit = Kit(cast("Cells", object()), self.root / "images", self.root / "sandboxes")
        return VmEngine(kit, Groups("none", {}))

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run QEMU with the chain that the record names, so that the engine finds it; it is killed at the end."""
        asyncio.run(chain.settle(self.home, self.layers, None))
        chain.check(self.home, self.machine, self.layers)
        files = chain.files(self.machine, self.layers)
        with running_qemu(self.home, self.base, files) as process:
            run = {"pid": process.pid, "started": started(process.pid)}
            Machine.run_file(self.home).write_text(json.dumps(run))
            yield process
        assert process.stdout is not None
        with process.stdout as told:
            self.told = told.read().decode()
        Machine.forget_runs(self.home)

    @property
    def machine(self) -> Machine:
        """Its record."""
        return Machine.read(self.home)

    async def change(self, draw: random.Random) -> None:
        """Write, clear and discard some parts."""
        lines = []
        for place in draw.sample(PLACES, 6):
            what = draw.choice(("write", "write", "write -z", "write -z -u"))
            letter = draw.randrange(1, 256) if what == "write" else 0
            self.wanted[place] = letter
            pattern = f" -P {letter}" if letter else ""
            lines.append(f"{what}{pattern} {place} {PART}")
        await guest_runs(self.home, *lines, "flush")

    async def check(self) -> None:
        """Have QEMU read all parts; what is not as it must be is printed on its standard output."""
        await guest_runs(
            self.home, *(f"read -P {letter} {place} {PART}" for place, letter in self.wanted.items())
        )


def _right(guest: Guest, checks: int) -> None:
    """Check that what was read in the last run was right, so many times."""
    assert "failed" not in guest.told
    assert guest.told.count(f"read {PART}/{PART} bytes") == checks * len(PLACES)


async def _background() -> None:
    """Come back when all that goes on in the background is done."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others)


def test_a_machine_that_runs_never_has_too_many_layers(tmp_path: Path) -> None:
    """More snapshots than there may be layers, each removed again: none is refused, the guest reads all, and QEMU keeps no old file."""
    guest, draw = Guest(tmp_path), random.Random(1)

    async def run() -> None:
        engine = guest.engine()
        for number in range(2 * chain.DEEPEST + 6):
            await guest.change(draw)
            snapshot = f"sn_{number:016x}"
            await engine.capture(guest.home.name, snapshot, "then")
            await engine.discard(snapshot)
        await _background()
        await guest.check()
        async with qmp.connected(guest.home / "qmp") as monitor:
            # It closes what it was given to keep only while the guest runs, and when a conversation ends.
            await monitor.execute("cont")
        async with qmp.connected(guest.home / "qmp") as monitor:
            await monitor.execute("stop")

    with guest.running() as process:
        asyncio.run(run())
        assert len(guest.machine.layers) < chain.DEEPEST // 2
        assert not [path for path in opened(process) if path.startswith(str(tmp_path)) and "deleted" in path]
        assert {each.id for each in guest.layers.listed()} == set(guest.machine.layers)
    _right(guest, 1)
    with guest.running():
        asyncio.run(guest.check())
    _right(guest, 1)


_MERGE = """
import asyncio, os, signal, sys
from contextlib import AsyncExitStack
from pathlib import Path
from irons_local.bundle.machine import Machine
from irons_local.engines.vm.merge import filling
from irons_local.images import merging
from irons_local.images.layers import Layers
home, layers, left = Path(sys.argv[1]), Layers(Path(sys.argv[2])), int(sys.argv[3])
def audited(event, arguments):
    global left
    writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod") or writing:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
async def merge():
    machine = Machine.read(home)
    fill = filling.flattening(machine)
    async with merging.merged(layers, machine.layers, "disk", fill) as made:
        merging.adopt(layers, home, made)
sys.addaudithook(audited)
asyncio.run(merge())
left = 1 << 30
"""


def _merged(guest: Guest, step: int) -> int:
    """Merge all layers of a machine that does not run in a process that is killed at a step; gives how it ended."""
    words = [sys.executable, "-c", _MERGE, str(guest.home), str(guest.layers.root), str(step)]
    return subprocess.run(words, check=False, timeout=300).returncode


@pytest.mark.parametrize("seed", range(int(os.environ.get("IRONS_TEST_SEEDS", "1"))))
def test_the_guest_reads_what_it_wrote(tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int) -> None:
    """Over writes, snapshots, removals, merges, power losses and kills in a merge; the copies that a snapshot keeps are as they were."""
    guest, draw = Guest(tmp_path), random.Random(seed)
    kept: dict[str, dict[int, int]] = {}

    async def run(turn: int) -> None:
        engine = guest.engine()
        for number in range(8):
            full = len(guest.machine.layers) >= chain.DEEPEST
            what = "remove" if full else draw.choices(("snapshot", "remove", "check"), (6, 3, 1))[0]
            await guest.change(draw)
            if what == "snapshot":
                made = f"sn_{100 * turn + number:016x}"
                await engine.capture(guest.home.name, made, "then")
                kept[made] = dict(guest.wanted)
            elif what == "remove" and kept:
                for gone in draw.sample(list(kept), len(kept) // 2 + 1):
                    del kept[gone]
                    await engine.discard(gone)
            else:
                await guest.check()
        await _background()
        await guest.check()

    for turn in range(3):
        with guest.running():
            asyncio.run(run(turn))
        assert "failed" not in guest.told
        if len(guest.machine.layers) > 1:
            assert _merged(guest, draw.randrange(0, 12)) in (0, -signal.SIGKILL)
        asyncio.run(guest.engine()._images.recover())
    assert not [record.message for record in caplog.records if "not merged" in record.message]
    with guest.running():
        asyncio.run(guest.check())
    _right(guest, 1)
    now = guest.machine
    for snapshot, wanted in list(kept.items())[:2]:
        record = guest.engine()._images.snapshots.read(snapshot)
        chain.write_empty(guest.home / VIRTUAL_DISK, SIZE)
        replace(now, layers=record.layers).write(guest.home)
        guest.wanted = wanted
        with guest.running():
            asyncio.run(guest.check())
        _right(guest, 1)


def test_a_kill_at_any_step_leaves_the_old_layers_or_the_merged_one(tmp_path: Path) -> None:
    """Whichever step a kill comes before, the guest reads all, and what is not named is gone after the next sweep."""
    guest, draw = Guest(tmp_path), random.Random(2)
    with guest.running():
        for _ in range(3):
            asyncio.run(guest.change(draw))
            asyncio.run(guest.engine().capture(guest.home.name, f"sn_{draw.randrange(1 << 32):016x}", "then"))
    whole = guest.machine
    for step in range(100):
        whole.write(guest.home)
        ended = _merged(guest, step)
        named = guest.machine.layers
        assert ended in (0, -signal.SIGKILL)
        assert len(named) == 1 or (ended and named == whole.layers)
        asyncio.run(guest.layers.sweep({*named, *whole.layers}))
        assert {path.name for path in guest.layers.root.iterdir()} == {*named, *whole.layers}
        if len(named) == 1:
            with guest.running():
                asyncio.run(guest.check())
            _right(guest, 1)
        if not ended:
            assert step > 4
            return
    pytest.fail("it did not end")


def _disk(layers: Layers, size: int, *parts: tuple[int, bytes], mark: int = 0) -> str:
    """A layer with a disk that has some clusters, as QEMU lays them."""
    layer = layers.begin("disk")
    filling_at = layers.filling(layer.id)
    filling_at.mkdir()
    content = bytearray(qcow2.empty(size))
    told = qcow2.read_header(bytes(content[: qcow2.HEAD]))
    table = len(content)
    struct.pack_into(">Q", content, told.tables_at, table | 1 << 63)
    content += bytes(qcow2.CLUSTER)
    for cluster, data in parts:
        struct.pack_into(">Q", content, table + 8 * cluster, len(content) | 1 << 63 | mark)
        content += data.ljust(qcow2.CLUSTER, b"\0")
    chain.file_of(filling_at).write_bytes(bytes(content))
    layers.filled(layer.id)
    return layer.id


def _flat(guest: Guest, run: tuple[str, ...]) -> bytes:
    """The disk that is made of several."""

    async def merge() -> bytes:
        async with merging.merged(guest.layers, run, "disk", filling.flattening(guest.machine)) as made:
            assert made is not None
            return chain.file_of(made.home / "tree").read_bytes()

    return asyncio.run(merge())


def test_disks_that_are_not_of_irons_are_not_merged(tmp_path: Path) -> None:
    """Another size than the machine's, a compressed cluster, a table at no place for one, a file of data: one line, and nothing is left."""
    guest = Guest(tmp_path)
    sound = _disk(guest.layers, SIZE, (0, b"sound"))
    for damaged, why in (
        (_disk(guest.layers, 4 * SIZE), "it says that it has"),
        (_disk(guest.layers, SIZE, (1, b"x"), mark=1 << 62), "unknown mark"),
        (_disk(guest.layers, SIZE, (1, b"x"), mark=1 << 9), "unknown mark"),
    ):
        with pytest.raises(EngineError, match=f"a disk is refused: .*{why}"):
            _flat(guest, (sound, damaged))
    other = _disk(guest.layers, SIZE, (0, b"x"))
    path = chain.file_of(guest.layers.tree(other))
    content = bytearray(path.read_bytes())
    struct.pack_into(">Q", content, 72, 4)
    path.write_bytes(content)
    with pytest.raises(EngineError, match="names a file that has its data"):
        _flat(guest, (sound, other))
    assert not [path for path in guest.layers.root.iterdir() if path.name.startswith(".")]


def test_the_last_cluster_may_be_part_of_one(tmp_path: Path) -> None:
    """A disk that ends in the middle of a cluster keeps what a lower layer has there; behind the end of a smaller one are zeros."""
    guest = Guest(tmp_path)
    odd = 10 * qcow2.CLUSTER + 512
    flat = _flat(guest, (_disk(guest.layers, odd, (0, b"top")), _disk(guest.layers, odd, (10, b"end"))))
    assert (flat.count(b"top"), flat.count(b"end")) == (1, 1)
    small, large = 4 * qcow2.CLUSTER, 8 * qcow2.CLUSTER
    run = tuple(
        _disk(guest.layers, size, (7, name)) for size, name in ((large, b""), (small, b""), (large, b"low"))
    )
    assert b"low" not in _flat(guest, run)
    with pytest.raises(EngineError, match="differ by parts of clusters"):
        _flat(guest, (_disk(guest.layers, large), _disk(guest.layers, small + 512)))


def test_a_qemu_with_another_chain_is_left_alone(tmp_path: Path) -> None:
    """Where the record names another number of layers than QEMU reads, as after a kill, or QEMU speaks nonsense, nothing changes."""
    guest, draw = Guest(tmp_path), random.Random(3)

    async def run() -> None:
        await guest.change(draw)
        for number in range(2):
            await guest.engine().capture(guest.home.name, f"sn_{number:016x}", "then")
        disk = chain.files(guest.machine, guest.layers)[0]
        commands = guest.home / "qmp"
        assert not await swap.swap(commands, disk, "ly_x", 3, 0, 2)
        with pytest.raises(OSError, match="No such file"):
            await swap.swap(commands, disk.with_name("absent"), "ly_x", 2, 0, 2)
        # A file that is not a disk is refused by QEMU, which then has what it had.
        wrong = tmp_path / "wrong"
        wrong.write_bytes(b"x" * 70000)
        with pytest.raises(qmp.QmpError):
            await swap.swap(commands, wrong, "ly_x", 2, 0, 2)
        await guest.check()

    with guest.running():
        asyncio.run(run())
    _right(guest, 1)


@pytest.mark.parametrize(
    "said",
    [
        {"query-block": 7},
        {"query-block": [7, None, {"inserted": {"node-name": "root", "file": "json:" + "[" * 9000}}]},
        {
            "query-block": [{"inserted": {"node-name": "root", "file": "json:{}"}}],
            "query-named-block-nodes": "x",
        },
    ],
)
def test_nonsense_of_qemu_ends_a_merge_in_one_line(tmp_path: Path, said: dict[str, object]) -> None:
    """Whatever a QEMU that someone broke out into says of its disks, the machine's record keeps the layers that it has."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"QMP": {}}\n')
        while line := await reader.readline():
            told = said.get(json.loads(line)["execute"], {"fdset-id": 1})
            writer.write(json.dumps({"return": told}).encode() + b"\n")
        writer.close()

    async def run() -> None:
        with qmp.listening(tmp_path / "qmp") as listener:
            server = await asyncio.start_unix_server(answer, sock=listener.dup())
            with pytest.raises(qmp.QmpError, match="which disks"):
                await swap.swap(tmp_path / "qmp", tmp_path / "disk", "ly_x", 2, 0, 2)
            server.close()

    asyncio.run(run())


def test_what_qemu_was_given_may_be_called_anything(tmp_path: Path) -> None:
    """A QEMU that gives its files names of thousands of digits ends nothing but its own merge."""
    long = "/dev/fdset/" + "9" * 5000
    base = {"driver": "raw", "file": {"filename": "base"}}
    names = {long: "a", "two": "b", "base": "c"}
    chained = {"file": {"filename": "two"}, "backing": {"file": {"filename": long}, "backing": base}}
    nodes = [
        {"file": path, "drv": drv, "node-name": name}
        for path, name in names.items()
        for drv in ("file", "raw")
    ]
    replies = {
        "query-block": [{"inserted": {"node-name": "root", "file": f"json:{json.dumps(chained)}"}}],
        "query-named-block-nodes": nodes,
    }
    (tmp_path / "disk").touch()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"QMP": {}}\n')
        while line := await reader.readline():
            told = replies.get(json.loads(line)["execute"], {"fdset-id": 1})
            writer.write(json.dumps({"return": told}).encode() + b"\n")
        writer.close()

    async def run() -> bool:
        with qmp.listening(tmp_path / "qmp") as listener:
            server = await asyncio.start_unix_server(answer, sock=listener.dup())
            try:
                return await swap.swap(tmp_path / "qmp", tmp_path / "disk", "ly_x", 1, 0, 1)
            finally:
                server.close()

    assert asyncio.run(run())
