"""A stopped sandbox saved as a layer: what becomes of its files, who keeps a layer, and what a kill leaves."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.local.image_archives import SYSTEM, Place, entry, ids, make_place, unpacking
from tests.machine import Machine as MachineNeeds

from irons_local.bundle.machine import Machine
from irons_local.engines.protocol import Spec
from irons_local.errors import EngineError
from irons_local.images import layers as layer_store
from irons_local.images.layers import Layer
from irons_local.images.saving import NEXT, settle
from irons_local.limits import Limits
from irons_local.linux import syscalls
from irons_local.linux.idmap import is_machines_root, outer_map
from irons_local.linux.remove_tree import remove_tree

CAPABILITY = b"\x01\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"


@pytest.fixture
def place() -> Iterator[Place]:
    """A place of its own."""
    with make_place() as made:
        yield made


def _owned(tree: Path) -> None:
    """Give what a test wrote to the sandbox's root."""
    uid = outer_map().host_uid(1)
    for path in (tree, *tree.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)


def _write(home: Path, *names: str, text: str = "changed") -> None:
    for name in names:
        path = home / "upper" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    _owned(home / "upper")


def _described(tree: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Every path below a directory, with what a save has to leave as it is."""
    found = [(str(path.relative_to(tree)), path.lstat()) for path in sorted(tree.rglob("*"))]
    return [
        (name, (at.st_ino, at.st_mode, at.st_nlink, at.st_uid, at.st_size, at.st_mtime_ns))
        for name, at in found
    ]


def _written_out(directory: Path) -> None:
    """Have a file system take the blocks of what was written to it."""
    descriptor = os.open(directory, os.O_RDONLY)
    syscalls.syncfs(descriptor)
    os.close(descriptor)


def _save(place: Place, home: Path, name: str = "saved") -> list[Layer]:
    """Save a sandbox; gives the layers of the image, topmost first."""
    image = asyncio.run(place.images.save(home.name, name))
    by_id = {layer.id: layer for layer in place.images.layers.listed()}
    return [by_id[each] for each in image.layers]


def _names(place: Place) -> list[str]:
    root = place.images.layers.root
    return sorted(path.name for path in root.iterdir()) if root.exists() else []


def _files(place: Place, home: Path) -> set[str]:
    """Every file of a stopped sandbox, in whichever directory of it."""
    trees = [
        home / "upper",
        home / NEXT,
        *(place.images.layers.tree(each) for each in Machine.read(home).layers),
    ]
    return {str(path.relative_to(tree)) for tree in trees for path in tree.rglob("*") if path.is_file()}


@unpacking
def test_changes_become_a_layer_and_stay_the_sandboxs(place: Place) -> None:
    """The sandbox names the layer below fresh changes, the image names it below a mask, and nothing is copied."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    _write(home, "srv/new")
    number = (home / "upper/srv/new").stat().st_ino
    (home / "upper").chmod(0o711)
    mask, changes = _save(place, home)
    assert (mask.kind, changes.kind) == ("mask", "changes")
    assert Machine.read(home).layers == (changes.id,)
    assert (place.images.layers.tree(changes.id) / "srv/new").stat().st_ino == number
    assert list((home / "upper").iterdir()) == []
    assert stat.S_IMODE((home / "upper").stat().st_mode) == 0o711
    assert not (home / NEXT).exists()
    again = _save(place, home, "again")
    assert [layer.kind for layer in again] == ["mask", "changes"]
    assert again[1] == changes
    _write(home, "srv/newer")
    assert len(_save(place, home, "third")) == 3
    assert Machine.read(home).layers[1:] == (changes.id,)


@unpacking
@pytest.mark.parametrize("redirects", [False, True], ids=["user", "machine's root"])
def test_an_image_of_layers_is_exported_whole(place: Place, *, redirects: bool) -> None:
    """Whiteouts, opaque directories, hard links, capabilities, holes, modes and owners come out as one archive, keys do not."""
    base = place.imported(
        *SYSTEM,
        entry("srv/"),
        entry("srv/old", b"1"),
        entry("opt/"),
        entry("opt/below", b"1"),
        entry("etc/ssh/"),
    )
    if redirects and not is_machines_root():
        pytest.skip("not here: the tests run in a user namespace, or without a capability")
    home = place.sandbox_on(base)
    replace(Machine.read(home), redirects=redirects).write(home)
    secrets = (
        "root/.ssh/authorized_keys",
        "srv/deep/.ssh/authorized_keys2",
        "etc/ssh/ssh_host_rsa_key",
        "etc/hostname",
        "etc/machine-id",
        "sys/secret",
        "run/secret",
    )
    _write(home, "srv/first", "opt/new", "usr/bin/ping", *secrets)
    upper = home / "upper"
    (upper / "srv/second").hardlink_to(upper / "srv/first")
    os.mknod(upper / "srv/old", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    os.setxattr(upper / "opt", syscalls.OPAQUE_OF_ROOT if redirects else syscalls.OPAQUE, b"y")
    os.setxattr(upper / "usr/bin/ping", "security.capability", CAPABILITY)
    with (upper / "srv/sparse").open("wb") as file:
        file.truncate(1 << 40)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(upper / "srv/socket"))
    _owned(upper)
    os.setxattr(upper / "usr/bin/ping", "security.capability", CAPABILITY)
    (upper / "srv/first").chmod(0o4750)
    number = outer_map().host_uid(8)
    os.chown(upper / "opt/new", number, number)
    mask, _ = _save(place, home)
    kept = {str(path.relative_to(upper.parent)) for path in upper.parent.rglob("secret")}
    assert kept == set()
    assert not (place.images.layers.tree(mask.id).parent / "work").exists()
    rootfs = place.again("saved").rootfs
    with tarfile.open(place.root / "again.tar") as archive:
        names = set(archive.getnames())
    assert not [name for name in names if "secret" in name or "authorized" in name or "ssh_host" in name]
    assert not names & {"etc/hostname", "etc/machine-id", "srv/old", "opt/below", "srv/socket"}
    assert (rootfs / "srv/first").stat().st_ino == (rootfs / "srv/second").stat().st_ino
    assert stat.S_IMODE((rootfs / "srv/first").stat().st_mode) == 0o4750
    assert ids(rootfs / "opt/new") == (7, 7)
    assert (rootfs / "srv/sparse").stat().st_size == 1 << 40
    assert os.listxattr(rootfs / "usr/bin/ping") == ["security.capability"]


@unpacking
def test_a_layer_lives_as_long_as_something_names_it(place: Place) -> None:
    """The mask goes with the image, the changes with the sandbox, and a base that lost its name with the last image on it."""
    base = place.imported(*SYSTEM)
    home = place.sandbox_on(base)
    _write(home, "srv/new")
    mask, changes = _save(place, home)
    with pytest.raises(EngineError, match="in use by box"):
        asyncio.run(place.images.remove("little"))
    shutil.rmtree(home)
    asyncio.run(place.images.remove("little"))
    assert place.images.find("little") is None
    assert (base.rootfs / "etc/passwd").exists()
    assert _names(place) == sorted((mask.id, changes.id))
    copy = place.sandbox_on(place.images.named("saved"), "copy", 2)
    _write(copy, "srv/newer")
    assert [layer.kind for layer in _save(place, copy, "other")] == ["mask", "changes", "mask", "changes"]
    shutil.rmtree(copy)
    asyncio.run(place.images.remove("saved"))
    assert changes.id in _names(place)
    asyncio.run(place.images.remove("other"))
    assert (place.left(), _names(place)) == ([], [])


@unpacking
def test_what_cannot_be_an_image_changes_nothing(place: Place) -> None:
    """With accounts of a gigabyte, or with no room, the sandbox stays as it is and nothing is left of the attempt."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    before, images = Machine.read(home), place.left()
    upper = home / "upper"
    (upper / "etc").mkdir(parents=True)
    with (upper / "etc/passwd").open("wb") as file:
        file.truncate(1 << 30)
    _owned(upper)
    with pytest.raises(EngineError, match="etc/passwd is larger"):
        asyncio.run(place.images.save(home.name, "saved"))
    assert (Machine.read(home), place.left(), _names(place)) == (before, images, [])
    assert (upper / "etc/passwd").stat().st_size == 1 << 30


@unpacking
@pytest.mark.parametrize("event", ["os.mkdir", "open", "os.rename"])
def test_a_full_disk_changes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    """Wherever room ends while the records are written, the sandbox keeps its files and there is no image."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    _write(home, "srv/new")
    images = place.left()
    whole = Layer.write, Machine.write
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*_: object) -> None:
        raise full

    if event == "os.mkdir":
        monkeypatch.setattr("irons_local.images.saving.prepare", refuse)
    elif event == "open":
        monkeypatch.setattr(Layer, "write", refuse)
    else:
        monkeypatch.setattr(Machine, "write", refuse)
    with pytest.raises(EngineError, match="the disk is full"):
        asyncio.run(place.images.save(home.name, "saved"))
    asyncio.run(place.images.recover())
    assert (place.left(), _names(place)) == (images, [])
    assert "srv/new" in _files(place, home)
    Layer.write, Machine.write = whole  # type: ignore[method-assign]


def _killed_at(step: int, place: Place, sandbox: str) -> bool:
    """Save in a process that is killed before its `step`th change to the disk; false if it ended before."""
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
            asyncio.run(place.images.save(sandbox, "saved"))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@unpacking
def test_a_kill_at_any_step_leaves_all_or_nothing(place: Place) -> None:
    """Before each of its changes to the disk a save is killed: the sandbox has all its files, and the image is whole or not there."""
    base = place.imported(*SYSTEM)
    steps = 0
    while True:
        steps += 1
        home = place.sandbox_on(base)
        _write(home, "srv/new")
        killed = _killed_at(steps, place, home.name)
        asyncio.run(settle(home, place.images.layers))
        asyncio.run(place.images.recover())
        machine, image = Machine.read(home), place.images.find("saved")
        assert _files(place, home) == {"srv/new"}
        assert (home / "upper").is_dir()
        assert not (home / NEXT).exists()
        assert all(place.images.layers.tree(each).is_dir() for each in machine.layers)
        if image is not None:
            assert image.layers[1:] == machine.layers
            asyncio.run(place.images.remove("saved"))
        assert _names(place) == sorted(machine.layers)
        assert place.left() == [base.id]
        shutil.rmtree(home)
        asyncio.run(place.images.recover())
        assert _names(place) == []
        if not killed:
            break
    assert steps > 15


@unpacking
def test_sizes_are_counted_after_the_save(place: Place) -> None:
    """A save says nothing of sizes; counted, a hard link counts once and a hole not at all."""
    base = place.imported(*SYSTEM)
    home = place.sandbox_on(base)
    upper = home / "upper"
    _write(home, "srv/first", text="x" * 10_000)
    (upper / "srv/second").hardlink_to(upper / "srv/first")
    with (upper / "srv/sparse").open("wb") as file:
        file.truncate(1 << 40)
    changes = _save(place, home)[1]
    image = place.images.named("saved")
    assert (changes.size, place.images.size(image), place.images.size(base)) == (None, None, base.size)
    before = place.images.layers.changed()
    assert asyncio.run(place.images.layers.count())
    assert place.images.layers.changed() == before
    counted = {layer.id: layer for layer in place.images.layers.listed()}[changes.id]
    assert counted.size == 10_000
    assert counted.used is not None
    assert counted.used >= counted.size
    assert (place.images.size(image) or 0) >= base.size + 10_000
    unfinished = place.images.layers.begin("changes")
    assert not asyncio.run(place.images.layers.count())
    asyncio.run(place.images.layers.remove(unfinished.id))


@unpacking
def test_two_sandboxes_are_saved_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves of different sandboxes do not wait for one another, and one sandbox is saved once at a time."""
    # A second one waits for a moment, which may be enough for the first.
    monkeypatch.setattr("irons_local.images.catalog._BUSY_WITHIN", 0.0)
    base = place.imported(*SYSTEM)
    homes = [place.sandbox_on(base, name, number) for number, name in enumerate(("one", "two"), 1)]
    for home in homes:
        _write(home, f"srv/{home.name}")

    async def both() -> list[object]:
        saves = [place.images.save(home.name, f"of-{home.name[-1]}") for home in (*homes, homes[0])]
        return await asyncio.gather(*saves, return_exceptions=True)

    *made, refused = asyncio.run(both())
    assert isinstance(refused, EngineError)
    assert refused.code == "state"
    assert [image.name for image in place.images.listed()] == ["of-2", "of-1", "little"] or made
    assert {image.name for image in place.images.listed()} == {"of-1", "of-2", "little"}


@unpacking
def test_too_many_layers_are_copied_into_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain has an end: beyond it an image is a copy that stands alone, and the sandbox stays as it is."""
    monkeypatch.setattr("irons_local.images.saving.DEEPEST", 2)
    home = place.sandbox_on(place.imported(*SYSTEM))
    _write(home, "srv/new")
    assert len(_save(place, home)) == 2
    _write(home, "srv/newer")
    assert _save(place, home, "whole") == []
    assert (home / "upper/srv/newer").exists()
    assert (place.images.named("whole").rootfs / "srv/new").read_text() == "changed"


def test_records_of_before_and_of_a_newer_irons(tmp_path: Path) -> None:
    """What an irons without layers wrote is read as it was; what a newer one wrote is refused with a sentence that names the reason."""
    home = tmp_path / "sb_0000000000000001"
    home.mkdir()
    old = {"id": home.name, "name": "box", "image": "img_1", "image_name": "debian", "host_key": "key"}
    limits = {"cpus": None, "memory": None, "disk": None, "processes": 4096}
    (home / "machine.json").write_text(json.dumps({**old, "limits": limits}))
    machine = Machine.of(Spec(home.name, "box", "", limits=Limits()), "img_1", "debian", "key")
    assert Machine.read(home) == machine
    machine.write(home)
    assert json.loads((home / "machine.json").read_text()).keys() == {*old, "limits"}
    layered = replace(machine, layers=("ly_1",))
    layered.write(home)
    assert Machine.read(home) == layered
    body = json.loads((home / "machine.json").read_text())
    (home / "machine.json").write_text(json.dumps({**body, "further": 1}))
    assert Machine.read(home) == layered
    (home / "machine.json").write_text(json.dumps({**body, "version": body["version"] + 1, "further": 1}))
    with pytest.raises(EngineError, match="a newer irons made or changed"):
        Machine.read(home)


@unpacking
def test_a_record_of_a_newer_irons_keeps_what_it_names(place: Place) -> None:
    """Its layers, and those of a damaged sandbox, are not swept; a newer image is refused by its name."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    _write(home, "srv/new")
    before = _save(place, home)
    path = place.images.named("saved").home / "image.json"
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, "version": 99, "further": 1}))
    with pytest.raises(EngineError, match="a newer irons made the image saved"):
        asyncio.run(place.images.ensure("saved"))
    asyncio.run(place.images.recover())
    assert _names(place) == sorted(layer.id for layer in before)
    path.write_text(json.dumps(body))
    record = home / "machine.json"
    whole = record.read_text()
    record.write_text("{")
    asyncio.run(place.images.remove("saved"))
    assert _names(place) == sorted(layer.id for layer in before)
    record.write_text(whole)
    asyncio.run(place.images.recover())
    assert _names(place) == [before[1].id]


@unpacking
def test_a_layer_that_is_gone_is_said(place: Place) -> None:
    """A start or an export names the layer that is missing; a sweep takes nothing else for it."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    _write(home, "srv/new")
    changes = _save(place, home)[1]
    shutil.rmtree(place.images.layers.home(changes.id))
    with pytest.raises(EngineError, match=f"the layer {changes.id} is gone"):
        asyncio.run(place.images.export("saved", place.root / "out.tar"))
    asyncio.run(place.images.recover())
    assert (home / "upper").is_dir()
    assert layer_store.Layer.read(place.images.layers.home(changes.id)) is None


@pytest.fixture
def sharing_place(machine: MachineNeeds) -> Iterator[Place]:
    """A place on a file system whose files can share blocks."""
    machine.require("root", "user-namespaces", "mkfs.btrfs", "mount", optional=True)
    with make_place() as room:
        disk, mounted = room.root / "disk", room.root / "mounted"
        mounted.mkdir()
        with disk.open("wb") as file:
            file.truncate(256 << 20)
        subprocess.run(["mkfs.btrfs", "-q", disk], check=True, capture_output=True)
        try:
            done = subprocess.run(
                ["mount", "-o", "loop", disk, mounted], check=False, capture_output=True, text=True
            )
            if done.returncode:
                machine.miss(f"a disk image cannot be mounted: {done.stderr.strip()}", optional=True)
            yield Place(mounted)
        finally:
            # Also where an interruption came before the end of `mount`; the loop device goes with the mount.
            if mounted.is_mount():
                subprocess.run(["umount", mounted], check=True)


@pytest.mark.process
def test_a_tree_is_removed_where_a_listing_does_not_show_what_came_later(sharing_place: Place) -> None:
    """On btrfs a descriptor lists what was there when it was opened: what is moved up later is removed all the same."""
    top = sharing_place.root / "gone"
    for number in range(9):
        deep = top / f"a{number}" / "b" / "c"
        deep.mkdir(parents=True)
        (deep / "file").touch()
    asyncio.run(remove_tree(top))
    assert not top.exists()


@pytest.mark.process
def test_where_blocks_can_be_shared_a_sandbox_keeps_its_changes(sharing_place: Place) -> None:
    """The layer is a clone, with everything an overlay keeps; the sandbox is as if nothing had been."""
    place = sharing_place
    home = place.sandbox_on(
        place.imported(*SYSTEM, entry("srv/"), entry("srv/old", b"1"), entry("opt/"), entry("opt/below"))
    )
    _write(home, "srv/deep/first", "opt/new", "usr/bin/ping", "root/.ssh/authorized_keys")
    upper = home / "upper"
    (upper / "srv/second").hardlink_to(upper / "srv/deep/first")
    (upper / "srv/link").symlink_to("/etc/passwd")
    os.mkfifo(upper / "srv/pipe")
    os.mknod(upper / "srv/old", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    os.setxattr(upper / "opt", "user.overlay.opaque", b"y")
    (upper / "srv/large").write_bytes(os.urandom(32 << 20))
    _owned(upper)
    os.setxattr(upper / "usr/bin/ping", "security.capability", CAPABILITY)
    os.utime(upper / "opt/new", ns=(5, 7))
    before = _described(upper)
    _written_out(home)
    machine, free = Machine.read(home), os.statvfs(home).f_bfree
    _, changes = _save(place, home)
    _written_out(home)
    assert _described(upper) == before
    assert (Machine.read(home), (home / NEXT).exists()) == (machine, False)
    assert (free - os.statvfs(home).f_bfree) * os.statvfs(home).f_bsize < 16 << 20
    tree = place.images.layers.tree(changes.id)
    assert [(name, at[1:]) for name, at in _described(tree)] == [(name, at[1:]) for name, at in before]
    assert (tree / "srv/second").stat().st_ino == (tree / "srv/deep/first").stat().st_ino
    assert (tree / "opt/new").stat().st_mtime_ns == 7
    rootfs = place.again("saved").rootfs
    assert sorted(path.name for path in (rootfs / "srv").iterdir()) == [
        "deep",
        "large",
        "link",
        "pipe",
        "second",
    ]
    assert [path.name for path in (rootfs / "opt").iterdir()] == ["new"]
    assert os.listxattr(rootfs / "usr/bin/ping") == ["security.capability"]
    assert not (rootfs / "root/.ssh/authorized_keys").exists()


@pytest.mark.process
def test_an_overlay_of_roots_gets_no_blocks_that_are_kept_for_root(machine: MachineNeeds) -> None:
    """What writes to a sandbox's files fills a disk as an ordinary user would, though the machine's root mounted them."""
    machine.require("root", "mkfs.ext4", "mount", optional=True)
    with make_place() as room:
        disk, mounted = room.root / "disk", room.root / "mounted"
        mounted.mkdir()
        with disk.open("wb") as file:
            file.truncate(16 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "20", disk], check=True, capture_output=True)
        done = subprocess.run(
            ["mount", "-o", "loop", disk, mounted], check=False, capture_output=True, text=True
        )
        if done.returncode:
            machine.miss(f"a disk image cannot be mounted: {done.stderr.strip()}", optional=True)
        try:
            words = [sys.executable, "-c", _FILL, str(mounted), str(outer_map().host_uid(0))]
            subprocess.run(words, check=True)
            found = os.statvfs(mounted)
            assert found.f_bavail == 0
            assert found.f_bfree * found.f_frsize >= 2 << 20
        finally:
            subprocess.run(["umount", mounted], check=True)


_FILL = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from irons_local.linux import namespaces
from irons_local.engines.namespace import boot; from irons_local.linux import syscalls as kernel
place, uid = Path(sys.argv[1]), int(sys.argv[2])
for name in ("lower", "upper", "work"):
    (place / name).mkdir()
    os.chown(place / name, uid, uid)
(place / "upper").chmod(0o777)
namespaces.unshare(namespaces.NEWNS)
layers = SimpleNamespace(
    lower=[boot._directory(str(place / "lower"))],
    upper=boot._directory(str(place / "upper")),
    work=boot._directory(str(place / "work")),
)
boot._become_mounter(uid, uid)
boot._mount_overlay(layers, kernel.OVERLAY_OF_ROOT)
namespaces.capset()
os.umask(0)
descriptor = os.open(boot.ROOTFS / "full", os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(descriptor, bytes(4096))
except OSError:
    os.fsync(descriptor)
"""


@unpacking
def test_layers_of_the_machines_root_are_refused_elsewhere(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root of a container, who would read their marks otherwise, gets a line about it; an image without layers is for everyone."""
    if not is_machines_root():
        pytest.skip("not here: the tests run in a user namespace, or without a capability")
    base = place.imported(*SYSTEM)
    home = place.sandbox_on(base)
    replace(Machine.read(home), redirects=True).write(home)
    _write(home, "srv/new")
    _save(place, home)
    saved = place.images.named("saved")
    assert (place.images.redirects(base), place.images.redirects(saved)) == (True, True)
    monkeypatch.setattr("irons_local.images.catalog.is_machines_root", lambda: False)
    assert not place.images.redirects(base)
    with pytest.raises(EngineError, match="can only be read by the machine's root"):
        asyncio.run(place.images.export("saved", place.root / "out.tar"))
