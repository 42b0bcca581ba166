"""Snapshots on disk: which layers they share, who keeps a layer, what a copy of a running sandbox has, and what a kill leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.local.image_archives import SYSTEM, Place, make_place, unpacking
from tests.local.people import eventually

from irons_local.bundle.machine import Machine
from irons_local.engines.namespace import freezing
from irons_local.errors import EngineError
from irons_local.images.capture import Capture
from irons_local.images.inside import cloning
from irons_local.images.layers import DEEPEST, Layers
from irons_local.images.saving import NEXT, settle
from irons_local.images.snapshots import FILE, Snapshot
from irons_local.images.usage import by_layer
from irons_local.linux import disk_images, syscalls
from irons_local.linux.cgroup import Groups
from irons_local.linux.idmap import is_machines_root, outer_map
from irons_local.linux.namespaces import started
from irons_local.linux.processes import Process
from irons_local.progress import unheard

ONE = "sn_0000000000000001"


@pytest.fixture
def place() -> Iterator[Place]:
    """A place of its own."""
    with make_place() as made:
        yield made


def _write(home: Path, *names: str, text: str = "changed") -> None:
    for name in names:
        path = home / "upper" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    uid = outer_map().host_uid(1)
    for path in (home / "upper", *(home / "upper").rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)


def _work(place: Place, home: Path, snapshot: str = ONE, name: str = "then") -> tuple[Capture, Snapshot]:
    machine = Machine.read(home)
    image = place.images.by_id(machine.image)
    work = Capture(home, machine, image, place.images.layers, place.images.snapshots)
    return work, Snapshot(snapshot, name, machine.id, machine.image, image.name, redirects=machine.redirects)


def _stopped(
    place: Place, home: Path, snapshot: str = ONE, name: str = "then", *, empties: bool = False
) -> Snapshot:
    work, record = _work(place, home, snapshot, name)
    return asyncio.run(work.stopped(record, unheard, empties=empties))


def _running(place: Place, home: Path) -> Snapshot:
    @contextlib.asynccontextmanager
    async def frozen() -> AsyncIterator[None]:
        yield

    work, record = _work(place, home)
    return asyncio.run(work.running(record, unheard, frozen))


def _names(place: Place) -> list[str]:
    root = place.images.layers.root
    return sorted(path.name for path in root.iterdir()) if root.exists() else []


def _remove(place: Place, snapshot: str = ONE) -> None:
    asyncio.run(place.images.snapshots.remove(snapshot))
    asyncio.run(place.images.sweep())


def _tree(place: Place, snapshot: Snapshot) -> Path:
    return place.images.layers.tree(snapshot.layers[0])


@unpacking
def test_a_stopped_sandboxs_changes_are_shared(place: Place) -> None:
    """They become a layer that sandbox and snapshot name; a second snapshot without changes adds nothing."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    _write(home, "srv/new")
    number = (home / "upper/srv/new").stat().st_ino
    first = _stopped(place, home, empties=True)
    assert Machine.read(home).layers == first.layers
    assert (_tree(place, first) / "srv/new").stat().st_ino == number
    assert place.images.snapshots.read(ONE) == first
    second = _stopped(place, home, "sn_0000000000000002", "again")
    assert second.layers == first.layers
    _write(home, "srv/newer")
    third = _stopped(place, home, "sn_0000000000000003", "more", empties=True)
    assert third.layers[1:] == first.layers
    shutil.rmtree(home)
    _remove(place, "sn_0000000000000003")
    assert _names(place) == sorted(first.layers)
    _remove(place)
    assert _names(place) == sorted(first.layers)
    _remove(place, "sn_0000000000000002")
    assert _names(place) == []


@unpacking
def test_an_image_in_use_by_a_snapshot_stays(place: Place) -> None:
    """Its removal names the snapshot; a record that cannot be read keeps every layer."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    _write(home, "srv/new")
    made = _stopped(place, home, empties=True)
    shutil.rmtree(home)
    with pytest.raises(EngineError, match="in use by the snapshot then"):
        asyncio.run(place.images.remove("little"))
    record = place.images.snapshots.home(ONE) / FILE
    whole = record.read_text()
    record.write_text("{")
    asyncio.run(place.images.recover())
    assert _names(place) == sorted(made.layers)
    with pytest.raises(EngineError, match="is damaged"):
        place.images.snapshots.read(ONE)
    record.write_text(json.dumps({**json.loads(whole), "version": 2}))
    with pytest.raises(EngineError, match="a newer irons made the snapshot then"):
        place.images.snapshots.read(ONE)
    asyncio.run(place.images.recover())
    assert _names(place) == sorted(made.layers)
    _remove(place)
    asyncio.run(place.images.remove("little"))
    assert (place.left(), _names(place)) == ([], [])


@unpacking
@pytest.mark.parametrize("redirects", [False, True], ids=["user", "machine's root"])
def test_a_running_sandboxs_files_are_copied(place: Place, *, redirects: bool) -> None:
    """Holes, links, modes, whiteouts and what an overlay says of a directory are those of the original, which is left as it is."""
    if redirects and not is_machines_root():
        pytest.skip("not here: the tests run in a user namespace, or without a capability")
    home = place.sandbox_on(place.imported(*SYSTEM))
    replace(Machine.read(home), redirects=redirects).write(home)
    _write(home, "srv/deep/first", "opt/new", text="x" * 100_000)
    upper = home / "upper"
    (upper / "srv/second").hardlink_to(upper / "srv/deep/first")
    (upper / "srv/link").symlink_to("/etc/passwd")
    os.mknod(upper / "srv/old", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(upper / "opt", syscalls.OPAQUE_OF_ROOT if redirects else syscalls.OPAQUE, b"y")
    if redirects:
        os.setxattr(upper / "srv/deep", "trusted.overlay.redirect", b"/other")
    with (upper / "srv/sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"middle")
    _write(home)
    (upper / "srv/deep/first").chmod(0o4750)
    made = _running(place, home)
    tree = _tree(place, made)
    assert (tree / "srv/deep/first").read_text() == "x" * 100_000
    assert (tree / "srv/deep/first").stat().st_ino == (tree / "srv/second").stat().st_ino
    assert stat.S_IMODE((tree / "srv/second").stat().st_mode) == 0o4750
    assert (tree / "srv/link").readlink() == Path("/etc/passwd")
    old = (tree / "srv/old").lstat()
    assert (stat.S_ISCHR(old.st_mode), old.st_rdev) == (True, 0)
    sparse = (tree / "srv/sparse").stat()
    assert (sparse.st_size, sparse.st_blocks < 1000) == (1 << 40, True)
    with (tree / "srv/sparse").open("rb") as file:
        file.seek(1 << 39)
        assert file.read(8) == b"middle\0\0"
    assert os.getxattr(tree / "opt", syscalls.OPAQUE_OF_ROOT if redirects else syscalls.OPAQUE) == b"y"
    if redirects:
        assert os.getxattr(tree / "srv/deep", "trusted.overlay.redirect") == b"/other"
    assert Machine.read(home).layers == ()
    assert (upper / "opt/new").exists()
    _remove(place)
    assert _names(place) == []


def test_what_cannot_share_blocks_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the file system refuses to clone is copied where that is allowed, and else the refusal is the error."""
    for name in ("source", "shared", "copied"):
        (tmp_path / name).mkdir()
    (tmp_path / "source/file").write_bytes(b"x" * 70_000)

    def refuse(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(syscalls, "clone", refuse)
    # As btrfs does, which lists what only the machine's root can read.
    monkeypatch.setattr(os, "listxattr", lambda _: ["trusted.overlay.opaque"])
    source = os.open(tmp_path / "source", os.O_RDONLY)
    for name, more in (("shared", {}), ("copied", {"copies": "the snapshot"})):
        target = os.open(tmp_path / name, os.O_RDONLY)
        with contextlib.suppress(EngineError) if not more else contextlib.nullcontext():
            cloning.clone({"source": source, "target": target, **more}, unheard)
        os.close(target)
    os.close(source)
    assert (tmp_path / "copied/file").read_bytes() == b"x" * 70_000
    assert (tmp_path / "shared/file").read_bytes() == b""


@unpacking
def test_the_disk_is_told_by_layer(place: Place) -> None:
    """Each layer has its size and the names of those that use it; what cannot be read is passed over."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    _write(home, "srv/new", text="x" * 100_000)
    made = _stopped(place, home, empties=True)
    asyncio.run(place.images.layers.count())
    broken = place.root / "sandboxes/sb_00000000000000ff"
    broken.mkdir()
    (broken / "machine.json").write_text("[]")
    (found,) = by_layer(place.root / "images", place.root / "sandboxes")
    assert (found.id, found.users) == (made.layers[0], ("sandbox box", "snapshot then"))
    assert (found.used or 0) >= 100_000


@unpacking
def test_a_layer_that_changed_on_the_disk_is_refused(place: Place) -> None:
    """From when it is counted on, a file that is changed or gone is noticed; what is still being copied is not counted."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    _write(home, "srv/new", "srv/old")
    made = _running(place, home)
    filling = place.images.layers.begin("changes")
    (place.images.layers.filling(filling.id) / "srv").mkdir(parents=True)

    def check() -> None:
        asyncio.run(Layers(place.images.layers.root).check(made.layers))

    check()
    assert asyncio.run(place.images.layers.count()) is False
    assert {each.id: each.size for each in place.images.layers.listed()}[filling.id] is None
    check()
    path = _tree(place, made) / "srv/new"
    path.write_text("other")
    with pytest.raises(EngineError, match=f"files of the layer {made.layers[0]} .* were changed or removed"):
        check()
    path.write_text("changed")
    os.utime(path, ns=(0, 0))
    with pytest.raises(EngineError, match="were changed"):
        check()
    shutil.copystat(home / "upper/srv/new", path)
    check()
    path.unlink()
    with pytest.raises(EngineError, match="were changed"):
        check()


@unpacking
def test_keys_that_someone_added_inside_are_counted(place: Place) -> None:
    """Of root and of each home; the topmost layer's file counts, one that was removed does not, and no link is followed."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    key = "ssh-ed25519 AAAA one\n"
    _write(home, "root/.ssh/authorized_keys", "home/a/.ssh/authorized_keys", text=f"# none\n\n{key}")
    _write(home, "home/b/.ssh/authorized_keys", text=f"{key}{key}")
    (home / "upper/home/c").symlink_to("b")
    (home / "upper/home/d/.ssh").mkdir(parents=True)
    (home / "upper/home/d/.ssh/authorized_keys").symlink_to("../../b/.ssh/authorized_keys")
    assert _running(place, home).keys == 4
    assert _stopped(place, home, empties=True, snapshot="sn_0000000000000002").keys == 4
    _write(home, "home/b/.ssh/authorized_keys", text=key)
    (home / "upper/root/.ssh").mkdir(parents=True)
    os.mknod(home / "upper/root/.ssh/authorized_keys", stat.S_IFCHR, os.makedev(0, 0))
    made = _stopped(place, home, empties=True, snapshot="sn_0000000000000003")
    assert (made.keys, place.images.snapshots.read(made.id).keys) == (2, 2)


@unpacking
def test_what_cannot_be_captured_is_left_as_it_is(place: Place) -> None:
    """A disk of its own, too many layers, and a layer that is gone: one line each, and nothing has changed."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    _write(home, "srv/new")
    before = Machine.read(home)
    (home / disk_images.FILE).touch()
    with pytest.raises(EngineError, match=r"box has a disk of its own \(--disk\)"):
        _stopped(place, home)
    (home / disk_images.FILE).unlink()
    replace(before, layers=tuple(f"ly_{number:016x}" for number in range(DEEPEST))).write(home)
    with pytest.raises(EngineError, match="20 layers already"):
        _stopped(place, home)
    replace(before, layers=("ly_0000000000000000",)).write(home)
    with pytest.raises(EngineError, match="the layer ly_0000000000000000 is gone"):
        _running(place, home)
    before.write(home)
    assert (_names(place), list(place.images.snapshots.homes())) == ([], [])
    assert (home / "upper/srv/new").exists()


def _killed_at(step: int, place: Place, home: Path) -> bool:
    """Capture in a process that is killed before its `step`th change to the disk; false if it ended before."""
    child = os.fork()
    if child == 0:
        changes = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod"}
        left = step

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            if event in changes or writes:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            _stopped(place, home, empties=True)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@unpacking
def test_a_kill_at_any_step_leaves_all_or_nothing(place: Place) -> None:
    """Before each change to the disk a capture is killed: the sandbox has its files, and the snapshot is whole or not there."""
    base = place.imported(*SYSTEM)
    steps = 0
    while True:
        steps += 1
        home = place.sandbox_on(base)
        _write(home, "srv/new")
        killed = _killed_at(steps, place, home)
        asyncio.run(settle(home, place.images.layers))
        asyncio.run(place.images.recover())
        machine, there = Machine.read(home), list(place.images.snapshots.homes())
        trees = [home / "upper", *place.images.layers.trees(machine.layers)]
        assert [tree for tree in trees if (tree / "srv/new").exists()]
        assert not (home / NEXT).exists()
        if there:
            assert place.images.snapshots.read(ONE).layers == machine.layers
            assert (place.images.layers.tree(machine.layers[0]) / "srv/new").exists()
            _remove(place)
        assert _names(place) == sorted(machine.layers)
        assert not list(place.images.snapshots.home(ONE).parent.glob("*")) or not killed
        shutil.rmtree(home)
        asyncio.run(place.images.recover())
        assert _names(place) == []
        if not killed:
            break
    assert steps > 10


def test_a_control_group_is_frozen(tmp_path: Path) -> None:
    """The unified hierarchy's file is written, and its events say when it is done; the older hierarchy has none."""
    group = tmp_path / "irons" / "sb_1"
    group.mkdir(parents=True)
    groups = Groups("v2", {"memory": tmp_path / "irons"})
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert groups.freeze("sb_1", frozen=True)
    assert (group / "cgroup.freeze").read_text() == "1"
    assert not groups.is_frozen("sb_1")
    (group / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert groups.is_frozen("sb_1")
    assert not groups.freeze("sb_2", frozen=True)
    assert not Groups("v1", {"memory": tmp_path / "irons"}).freeze("sb_1", frozen=True)
    assert not Groups("none", {}).freeze("sb_1", frozen=True)


@pytest.mark.process
def test_what_a_dead_control_plane_froze_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file says that a sandbox may be frozen; what is stopped in it then goes on, and without the file nothing is touched."""
    with subprocess.Popen(["sleep", "600"]) as child:
        try:
            monkeypatch.setattr(freezing, "_members", lambda _: [child.pid])
            process = Process(child.pid, started(child.pid) or 0)
            child.send_signal(signal.SIGSTOP)
            eventually(lambda: freezing._state(child.pid) == "T")
            asyncio.run(freezing.thaw(Groups("none", {}), "sb_1", process, tmp_path))
            assert freezing._state(child.pid) == "T"
            (tmp_path / freezing.MARK).touch()
            asyncio.run(freezing.thaw(Groups("none", {}), "sb_1", process, tmp_path))
            eventually(lambda: freezing._state(child.pid) != "T")
            assert not (tmp_path / freezing.MARK).exists()
        finally:
            child.kill()


@pytest.mark.process
def test_a_sandbox_without_a_group_is_stopped_by_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process is stopped while the body runs and goes on after it; one that was stopped before stays stopped."""
    with subprocess.Popen(["sleep", "600"]) as child, subprocess.Popen(["sleep", "600"]) as other:
        try:
            monkeypatch.setattr(freezing, "_members", lambda _: [child.pid, other.pid])
            other.send_signal(signal.SIGSTOP)
            eventually(lambda: freezing._state(other.pid) == "T")
            process, pause = Process(child.pid, started(child.pid) or 0), freezing.Pause()

            async def work() -> None:
                async with freezing.frozen(Groups("none", {}), "sb_1", process, tmp_path, pause):
                    assert freezing._state(child.pid) == "T"
                    assert (tmp_path / freezing.MARK).exists()

            asyncio.run(work())
            eventually(lambda: freezing._state(child.pid) != "T")
            assert (freezing._state(other.pid), (tmp_path / freezing.MARK).exists()) == ("T", False)
            assert pause.seconds > 0
        finally:
            child.kill()
            other.kill()
