"""The vm engine with a stand-in for QEMU: what a restart takes up, and in which order a restore replaces a disk."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from tests.hostile_disks import over

from irons_local import disk_room
from irons_local.bundle.machine import VIRTUAL_DISK, Machine
from irons_local.disk_room import Room
from irons_local.engines.protocol import Cells, KeptFiles, Kit
from irons_local.engines.vm import chain, launch, qcow2, qemu, qmp, stalled, switching
from irons_local.engines.vm.engine import VmEngine
from irons_local.engines.vm.kvm import KvmProbe
from irons_local.errors import EngineError
from irons_local.images.catalog import Images
from irons_local.images.record import Image
from irons_local.images.snapshots import Snapshot
from irons_local.limits import Limits
from irons_local.linux.cgroup import Groups
from irons_local.linux.namespaces import started
from irons_local.spec import Spec

_T = TypeVar("_T")
_Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SIZE = 1 << 30
SANDBOX = "sb_0000000000000001"
FIRST, SECOND = "sn_0000000000000001", "sn_0000000000000002"


class _Cells:
    """A keeper that only remembers which cells were found again."""

    def __init__(self) -> None:
        self.adopted: list[str] = []

    async def adopt(self, cell: str, pid: int, started: int) -> None:
        self.adopted.append(cell)


class _Place:
    """An engine with one machine, of which something was written, and an image."""

    def __init__(self, root: Path) -> None:
        self.cells = _Cells()
        self.images = Images(root / "images", root / "sandboxes")
        kit = Kit(cast("Cells", self.cells), root / "images", root / "sandboxes")
        self.engine = VmEngine(kit, Groups("none", {}))
        self.engine._probe = KvmProbe(False, "not here")
        self.home = root / "sandboxes" / SANDBOX
        self.home.mkdir(parents=True)
        draft = root / "images" / ".new-1"
        draft.mkdir(parents=True)
        found = {"os": "Debian", "size": 1, "sshd": "/usr/sbin/sshd", "tini": ""}
        image = Image.put(draft, root / "images", "debian-vm", "built from packages", found)
        spec = Spec(SANDBOX, "box", "key", limits=Limits(disk=SIZE, memory=512 << 20, cpus=1))
        Machine.of(spec, image.id, image.name, "host key").write(self.home)
        chain.write_empty(self.home / VIRTUAL_DISK, SIZE)

    @property
    def machine(self) -> Machine:
        return Machine.read(self.home)

    def write(self, mark: bytes) -> None:
        """Write to the disk as a guest does."""
        with (self.home / VIRTUAL_DISK).open("ab") as disk:
            disk.write(mark)

    def written(self) -> list[bytes]:
        """What the disk and its layers have, topmost first."""
        disks = [self.home / VIRTUAL_DISK, *chain.files(self.machine, self.images.layers)]
        return [disk.read_bytes()[len(qcow2.empty(SIZE)) :] for disk in disks]

    async def facts(self) -> Mapping[str, str]:
        """What is known of the machine."""
        return (await self.engine.look(SANDBOX)).facts or {}

    def runs(self) -> None:
        """Say that this process is the machine's QEMU."""
        body = {"pid": os.getpid(), "started": started(os.getpid())}
        Machine.run_file(self.home).write_text(json.dumps(body), encoding="utf-8")


def _served(place: _Place, answer: _Answer, work: Callable[[], Awaitable[_T]]) -> _T:
    """What `work` gives while a QEMU answers its first connection."""

    async def run() -> _T:
        over = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await answer(reader, writer)
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
            over.set()

        with qmp.listening(place.home / launch.COMMANDS) as listener:
            server = await asyncio.start_unix_server(serve, sock=listener.dup())
            try:
                found = await work()
                async with asyncio.timeout(60):
                    await over.wait()
                return found
            finally:
                server.close()

    return asyncio.run(run())


async def _refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'{"QMP": {}}\n')
    while await reader.readline():
        writer.write(b'{"error": {"class": "GenericError", "desc": "no"}}\n')


async def _ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader, writer


@pytest.mark.parametrize("answer", [_refuses, _ends])
def test_a_machine_whose_qemu_refuses_is_taken_up(answer: _Answer, tmp_path: Path) -> None:
    """A snapshot that was interrupted stays unfinished, and the machine runs on: its cell is found, its id is among the running."""
    place = _Place(tmp_path)
    place.write(b"one")
    chain.begin(place.home, place.machine, place.images.layers)
    place.runs()

    assert _served(place, answer, place.engine.recover) == [SANDBOX]
    assert place.cells.adopted == [SANDBOX]
    # Once it has ended, the disk reads as it did.
    Machine.run_file(place.home).unlink()
    assert asyncio.run(place.engine.recover()) == []
    assert place.written() == [b"", b"one"]


def test_a_restore_replaces_a_disk_once_it_is_kept(tmp_path: Path) -> None:
    """While the snapshot of what it was is recorded, the machine has its own disk, and keeps it where that fails."""
    place = _Place(tmp_path)
    place.write(b"one")
    asyncio.run(place.engine.capture(SANDBOX, FIRST, "first"))
    first = place.machine.layers
    place.write(b"two")
    kept: list[tuple[KeptFiles, list[bytes], Snapshot]] = []

    async def full(files: KeptFiles) -> None:
        del files
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        asyncio.run(place.engine.restore(SANDBOX, FIRST, SECOND, "before", full))
    assert place.written() == [b"", b"two", b"one"]
    asyncio.run(place.engine.discard(SECOND))
    assert place.written() == [b"", b"two", b"one"]

    async def made(files: KeptFiles) -> None:
        kept.append((files, place.written(), place.images.snapshots.read(SECOND)))

    asyncio.run(place.engine.restore(SANDBOX, FIRST, SECOND, "before", made))
    ((files, then, record),) = kept
    assert (files, then) == (KeptFiles(0.0, ""), [b"", b"two", b"one"])
    assert record.layers[1:] == first == place.machine.layers
    assert place.written() == [b"", b"one"]


def test_a_restore_of_a_machine_with_all_its_layers_works(tmp_path: Path) -> None:
    """A restore replaces its layers, so one more layer for what it has now does not count; a snapshot is refused before it, and works after it."""
    place = _Place(tmp_path)
    for number in range(chain.DEEPEST):
        place.write(b"%d" % number)
        asyncio.run(place.engine.capture(SANDBOX, f"sn_{number:016x}", f"at-{number}"))
    place.write(b"last")
    with pytest.raises(EngineError, match="one more is too many") as caught:
        asyncio.run(place.engine.capture(SANDBOX, "sn_00000000000000ff", "more"))
    assert "irons restore" in caught.value.hint
    kept: list[KeptFiles] = []

    async def made(files: KeptFiles) -> None:
        kept.append(files)

    asyncio.run(place.engine.restore(SANDBOX, FIRST, "sn_00000000000000ff", "before", made))
    assert place.written() == [b"", b"1", b"0"]
    record = place.images.snapshots.read("sn_00000000000000ff")
    assert record.layers[0] == kept[0].layer
    assert len(record.layers) == chain.DEEPEST + 1
    place.write(b"goes on")
    asyncio.run(place.engine.capture(SANDBOX, "sn_00000000000000fe", "again"))
    assert place.written() == [b"", b"goes on", b"1", b"0"]


def test_a_merge_before_a_snapshot_keeps_no_one_from_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep, which waits for who uses the images, goes through while layers are merged, and leaves what they are made of."""
    place = _Place(tmp_path)
    for number in range(chain.DEEPEST):
        place.write(b"%d" % number)
        asyncio.run(place.engine.capture(SANDBOX, f"sn_{number:016x}", f"at-{number}"))
    for number in range(chain.DEEPEST):
        asyncio.run(place.images.snapshots.remove(f"sn_{number:016x}"))
    place.write(b"last")

    async def call(_: str, __: str, request: Mapping[str, Any], **___: object) -> dict[str, Any]:
        async with asyncio.timeout(60):
            await place.images.sweep()
        os.write(request["target"], os.pread(request["disks"][0], 1 << 30, 0))
        return {}

    monkeypatch.setattr("irons_local.engines.vm.merge.filling.call", call)
    asyncio.run(place.engine.capture(SANDBOX, "sn_00000000000000ff", "more"))
    assert place.written() == [b"", b"last", b"15"]


def test_a_snapshot_that_does_not_fit_leaves_the_machine_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk it is refused with what is full, no layer is made, and with room again it works."""
    place = _Place(tmp_path)
    place.write(b"one")
    with monkeypatch.context() as patched:
        patched.setattr(disk_room, "RESERVE", 1 << 62)
        patched.setattr(disk_room, "_PART", 1)
        with pytest.raises(EngineError, match="the disk is full: the snapshot does not fit") as caught:
            asyncio.run(place.engine.capture(SANDBOX, FIRST, "first"))
        assert caught.value.code == "limit"
    assert place.written() == [b"one"]
    assert not place.images.layers.listed()
    assert not list(place.images.snapshots.homes())
    asyncio.run(place.engine.capture(SANDBOX, FIRST, "first"))
    assert place.written() == [b"", b"one"]


def test_what_was_written_is_on_the_disk_before_qemu_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A QEMU that switches has it flushed already, and may take longer for it than for an answer."""
    place = _Place(tmp_path)
    place.write(b"one")
    place.runs()
    did: list[str] = []
    flush = os.fdatasync

    def flushed(descriptor: int) -> None:
        did.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        flush(descriptor)

    answers = {
        "query-block": [{"inserted": {"node-name": qemu.ROOT}}],
        "add-fd": {"fdset-id": 1},
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"QMP": {}}\n')
        while line := await reader.readline():
            name = json.loads(line)["execute"]
            did.append(name)
            writer.write(json.dumps({"return": answers.get(name, {})}).encode() + b"\n")

    monkeypatch.setattr(os, "fdatasync", flushed)
    monkeypatch.setattr(qmp, "ANSWERED_WITHIN", 0.0)
    monkeypatch.setattr(switching, "SWITCHED_WITHIN", 300.0)
    kept = _served(place, answer, lambda: place.engine.capture(SANDBOX, FIRST, "first"))
    assert kept.layer == place.machine.layers[0]
    assert did[:2] == [VIRTUAL_DISK, "qmp_capabilities"]
    assert did[-1] == "blockdev-snapshot"


def test_one_with_a_disk_that_names_a_file_is_not_started(tmp_path: Path) -> None:
    """It is refused before a cell is made; a restore of an older snapshot helps."""
    place = _Place(tmp_path)
    asyncio.run(place.engine.capture(SANDBOX, FIRST, "first"))
    with (place.home / VIRTUAL_DISK).open("r+b") as disk:
        disk.write(over("/etc/hostname"))
    with pytest.raises(EngineError, match="it names a file to be read over") as caught:
        asyncio.run(place.engine.start(SANDBOX))
    assert "restore an older snapshot" in caught.value.hint

    async def made(files: KeptFiles) -> None:
        del files

    asyncio.run(place.engine.restore(SANDBOX, FIRST, SECOND, "before", made))
    chain.check(place.home, place.machine, place.images.layers)


def test_one_that_runs_is_not_restored(tmp_path: Path) -> None:
    """It is refused before anything is kept."""
    place = _Place(tmp_path)
    asyncio.run(place.engine.capture(SANDBOX, FIRST, "first"))
    place.runs()

    async def made(files: KeptFiles) -> None:
        pytest.fail(f"it kept {files}")

    with pytest.raises(EngineError, match="runs"):
        asyncio.run(place.engine.restore(SANDBOX, FIRST, SECOND, "before", made))
    assert place.machine == replace(place.machine, layers=())


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("told", ["by an event", "before"])
def test_a_guest_goes_on_once_there_is_room(
    told: str, *, late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was stopped since the disk is full says so in its status, and QEMU is told to go on when there is room; also where a restart missed the event.

    QEMU is asked again where it does not answer at first.
    """
    place = _Place(tmp_path)
    place.runs()
    room, full, continued = False, asyncio.Event(), asyncio.Event()
    silent = {"commands", "events"} if late else set[str]()

    def is_late(name: str, writer: asyncio.StreamWriter) -> bool:
        if name not in silent:
            return False
        silent.remove(name)
        writer.close()
        return True

    def take(self: Room, size: int) -> None:
        del self, size
        if not room:
            full.set()
            raise EngineError("limit", "the disk is full")

    async def commands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if is_late("commands", writer):
            return
        writer.write(b'{"QMP": {}}\n')
        while line := await reader.readline():
            asked = json.loads(line)["execute"]
            known = (
                {"status": "io-error" if told == "before" else "running"} if asked == "query-status" else {}
            )
            writer.write(json.dumps({"return": known}).encode() + b"\n")
            if asked == "cont":
                assert room
                continued.set()
        writer.close()

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if is_late("events", writer):
            return
        writer.write(b'{"QMP": {}}\n')
        await reader.readline()
        writer.write(b'{"return": {}}\n')
        for wrong in ({"nospace": False, "action": "stop"}, {"nospace": True, "action": "report"}):
            writer.write(json.dumps({"event": "BLOCK_IO_ERROR", "data": wrong}).encode() + b"\n")
        if told != "before":
            writer.write(b'{"event": "BLOCK_IO_ERROR", "data": {"nospace": true, "action": "stop"}}\n')
        await reader.readline()
        writer.close()

    async def run() -> None:
        nonlocal room
        with (
            qmp.listening(place.home / launch.COMMANDS) as first,
            qmp.listening(place.home / launch.EVENTS) as second,
        ):
            servers = [
                await asyncio.start_unix_server(commands, sock=first.dup()),
                await asyncio.start_unix_server(events, sock=second.dup()),
            ]
            waiting = asyncio.create_task(place.engine.wait(SANDBOX))
            try:
                async with asyncio.timeout(60):
                    await full.wait()
                    assert "once 272 MiB are free" in (await place.facts())["disk_note"]
                    assert not continued.is_set()
                    room = True
                    await continued.wait()
                    assert "disk_note" not in await place.facts()
            finally:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                for server in servers:
                    server.close()

    monkeypatch.setattr(Room, "take", take)
    monkeypatch.setattr(stalled, "LOOK_EVERY", 0.01)
    asyncio.run(run())
