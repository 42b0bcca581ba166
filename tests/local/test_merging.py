"""Merging the layers of a sandbox: it reads the same before and after, whatever was done to its files and whenever it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from tests.local.image_archives import SYSTEM, Place, entry, make_place, unpacking

from irons_local.bundle.machine import Machine
from irons_local.engines.homes import Homes
from irons_local.engines.merges import Chains, Merges
from irons_local.engines.namespace.engine import NamespaceEngine
from irons_local.engines.protocol import Cells, Kit
from irons_local.images import merging
from irons_local.images.capture import Capture
from irons_local.images.layers import DEEPEST
from irons_local.images.record import Image
from irons_local.images.saving import settle
from irons_local.images.snapshots import Snapshot
from irons_local.linux import syscalls
from irons_local.linux.cgroup import Groups
from irons_local.linux.idmap import is_machines_root, outer_map
from irons_local.progress import unheard

FILES = [
    *SYSTEM,
    *(entry(f"{top}/{inner}/file", b"of the image") for top in "ab" for inner in "ax"),
    *(entry(f"{top}/{inner}/{last}/file", b"deep") for top in "ab" for inner in "ax" for last in "ax"),
]
View = dict[str, tuple[int, str]]


@pytest.fixture
def place() -> Iterator[Place]:
    """A place of its own."""
    with make_place() as made:
        yield made


def _view(top: Path) -> View:
    """What is below a directory: mode and content by path."""
    found: View = {}
    for path in sorted(top.rglob("*")):
        mode = path.lstat().st_mode
        text = str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else ""
        found[str(path.relative_to(top))] = (mode, text)
    return found


class Files:
    """A sandbox's files as the kernel shows them, and a directory in which the same was done, which is what they must be.

    Args:
        place: where images and layers are.
        image: the sandbox's.
        redirects: how they are mounted.
    """

    def __init__(self, place: Place, image: Image, *, redirects: bool) -> None:
        self.place = place
        self.image = image
        self.options = syscalls.OVERLAY_OF_ROOT if redirects else syscalls.OVERLAY
        self.shown = place.root / "shown"
        self.shown.mkdir()

    @contextlib.contextmanager
    def mounted(self, layers: Sequence[str], home: Path | None) -> Iterator[Path]:
        """The files of a sandbox, or, without one, of layers."""
        lower = [*self.place.images.layers.trees(layers), *self.place.images.lower(self.image)]
        more = ""
        if home is not None:
            more = f",upperdir={home / 'upper'},workdir={home / 'work'}"
        else:
            # A single lower directory cannot be mounted.
            empty = self.place.root / "empty"
            empty.mkdir(exist_ok=True)
            lower.insert(0, empty)
        names = ":".join(str(path) for path in lower)
        words = ["mount", "-t", "overlay", "-o", f"lowerdir={names}{more},{self.options}"]
        subprocess.run([*words, "overlay", self.shown], check=True)
        try:
            yield self.shown
        finally:
            subprocess.run(["umount", self.shown], check=True)

    def view(self, layers: Sequence[str], home: Path | None = None) -> View:
        """What a sandbox or layers have."""
        with self.mounted(layers, home) as top:
            return _view(top)

    def change(self, home: Path, model: Path, draw: random.Random) -> None:
        """Do some things to a sandbox's files, and the same to the model."""
        with self.mounted(Machine.read(home).layers, home) as top:
            for _ in range(draw.randrange(2, 12)):
                seed = draw.random()
                failed = _changed(top, random.Random(seed))
                # Such an overlay renames no directory of a lower layer.
                if failed != errno.EXDEV:
                    assert _changed(model, random.Random(seed)) == failed
        self.own(home)

    def own(self, home: Path) -> None:
        """Let what a sandbox changed belong to its root."""
        uid = outer_map().host_uid(1)
        for path in (home / "upper", *(home / "upper").rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)


def _changed(top: Path, draw: random.Random) -> int:
    """Change something below a directory; gives the number of the error, or 0."""
    paths = [top / draw.choice("ab") / draw.choice("ax") for _ in range(2)]
    paths = [path / draw.choice(("a", "x", "file")) if draw.random() < 0.7 else path for path in paths]
    path, other = paths
    what = draw.choice(("write", "write", "remove", "replace", "replace", "rename", "symlink", "chmod"))
    text = f"{draw.random()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if what in ("remove", "replace") and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif what in ("remove", "replace"):
            path.unlink(missing_ok=True)
        if what == "replace":
            path.mkdir()
            (path / draw.choice(("a", "x", "file"))).mkdir()
        elif what == "write":
            path.write_text(text)
        elif what == "rename":
            path.rename(other)
        elif what == "symlink":
            path.symlink_to(text)
        elif what == "chmod" and not path.is_symlink():
            path.chmod(draw.choice((0o700, 0o755, 0o750)))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _snapshot(place: Place, home: Path, number: int) -> Snapshot:
    """A snapshot of a stopped sandbox, as the engine makes it."""
    machine = Machine.read(home)
    image = place.images.by_id(machine.image)
    work = Capture(home, machine, image, place.images.layers, place.images.snapshots)
    record = Snapshot(
        f"sn_{number:016x}",
        f"then-{number}",
        machine.id,
        machine.image,
        image.name,
        redirects=machine.redirects,
    )
    return asyncio.run(work.stopped(record, unheard, empties=True))


def _fill(machine: Machine) -> merging.Fill:
    async def fill(trees: Sequence[Path], target: Path) -> None:
        await merging.stack_files(trees, target, redirects=machine.redirects)

    return fill


async def _merge(place: Place) -> None:
    """Merge the layers of all sandboxes as the engine does before a snapshot, as if they had as many as they may."""

    async def put(home: Path, made: merging.Merged) -> bool:
        await settle(home, place.images.layers)
        return merging.adopt(place.images.layers, home, made)

    chains = Chains("changes", 2, lambda machine: len(machine.layers), lambda _: True, _fill, put)
    homes = Homes(place.root / "sandboxes")
    merges = Merges(place.images, homes, defaultdict(asyncio.Lock), chains)
    for home in homes.entries():
        await merges.make_room(home)


def _killed_at(step: int, place: Place) -> bool:
    """Merge in a process that is killed before its `step`th change to the disk; false if it ended before."""
    child = os.fork()
    if child == 0:
        changes = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.link"}
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
            asyncio.run(_merge(place))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _names(place: Place) -> set[str]:
    root = place.images.layers.root
    return {path.name for path in root.iterdir()} if root.exists() else set()


@unpacking
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("IRONS_TEST_SEEDS", "1"))))
@pytest.mark.parametrize("redirects", [False, True], ids=["user", "machine's root"])
def test_files_stay_what_they_were(place: Place, seed: int, *, redirects: bool) -> None:
    """Files written, removed and renamed between snapshots, copies, merges and kills are those of a plain directory with the same done to it."""
    if redirects and not is_machines_root():
        pytest.skip("not here: the tests run in a user namespace, or without a capability")
    draw = random.Random(seed)
    image = place.imported(*FILES)
    files = Files(place, image, redirects=redirects)
    homes: dict[Path, Path] = {}
    kept: dict[str, tuple[Snapshot, View, Path]] = {}

    def laid(number: int, layers: tuple[str, ...], origin: Path) -> None:
        home = place.sandbox_on(image, f"box-{number}", number)
        replace(Machine.read(home), layers=layers, redirects=redirects).write(home)
        homes[home] = place.root / f"model-{number}"
        shutil.copytree(origin, homes[home], symlinks=True)

    laid(1, (), place.images.lower(image)[-1])
    for number in range(2, 30):
        home = draw.choice(list(homes))
        what = draw.choices(("snapshot", "remove", "fork", "merge", "kill"), (6, 4, 1, 2, 1))[0]
        if what == "snapshot" and len(Machine.read(home).layers) < DEEPEST:
            files.change(home, homes[home], draw)
            made = _snapshot(place, home, number)
            copy = place.root / f"kept-{number}"
            shutil.copytree(homes[home], copy, symlinks=True)
            kept[made.id] = (made, _view(copy), copy)
        elif what == "remove" and kept:
            for gone in draw.sample(list(kept), len(kept) // 2 + 1):
                del kept[gone]
                asyncio.run(place.images.snapshots.remove(gone))
            asyncio.run(place.images.sweep())
        elif what == "fork" and kept and len(homes) < 3:
            origin, _, copy = draw.choice(list(kept.values()))
            laid(number, origin.layers, copy)
        elif what == "merge":
            asyncio.run(_merge(place))
        elif what == "kill":
            _killed_at(draw.randrange(1, 25), place)
        for each, model in homes.items():
            assert files.view(Machine.read(each).layers, each) == _view(model)
        for snapshot, view, _ in kept.values():
            assert files.view(snapshot.layers) == view
    asyncio.run(place.images.recover())
    named = {layer for home in homes for layer in Machine.read(home).layers}
    assert _names(place) == named.union(*(made.layers for made, _, _ in kept.values()))


def _with_layers(place: Place, image: Image, count: int) -> Path:
    """A sandbox with layers that nothing else names; each adds a file, and replaces one."""
    home = place.sandbox_on(image)
    layers: tuple[str, ...] = ()
    for number in range(count):
        layer = place.images.layers.begin("changes")
        filling = place.images.layers.filling(layer.id)
        _write(filling, number)
        place.images.layers.filled(layer.id)
        layers = (layer.id, *layers)
    replace(Machine.read(home), layers=layers).write(home)
    return home


def _write(top: Path, number: int) -> None:
    uid = outer_map().host_uid(1)
    for name in (f"srv/{number}", "etc/same"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}")
    for path in (top, *top.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)


def _seen(place: Place, home: Path) -> list[str]:
    """The names that a sandbox's layers have in `srv`, and the content of the file that all of them have."""
    trees = place.images.layers.trees(Machine.read(home).layers)
    names = sorted(path.name for tree in trees for path in (tree / "srv").iterdir())
    return [*names, (trees[0] / "etc/same").read_text()]


@unpacking
@pytest.mark.slow
def test_a_kill_at_any_step_leaves_the_old_layers_or_the_merged_one(place: Place) -> None:
    """Before each change to the disk a merge is killed: the sandbox has its files, and nothing else is left after the next start."""
    image = place.imported(*SYSTEM)
    steps = 0
    while True:
        steps += 1
        home = _with_layers(place, image, 3)
        killed = _killed_at(steps, place)
        asyncio.run(place.images.recover())
        layers = Machine.read(home).layers
        assert len(layers) in (1, 3)
        assert _seen(place, home) == ["0", "1", "2", "2"]
        assert _names(place) == set(layers)
        shutil.rmtree(home)
        asyncio.run(place.images.recover())
        assert _names(place) == set()
        if not killed:
            assert len(layers) == 1
            break
    assert steps > 5


@unpacking
def test_layers_that_something_else_names_stay(place: Place) -> None:
    """Only neighbours that the sandbox alone names are merged, also where a snapshot or a copy came while they were read."""
    image = place.imported(*SYSTEM)
    home = _with_layers(place, image, 4)
    layers = Machine.read(home).layers

    async def run() -> None:
        others = place.images.named_but_for(home.name)
        assert others is not None
        assert merging.longest_run(layers, others) == layers
        fill = _fill(Machine.read(home))
        async with merging.merged(place.images.layers, layers[:3], "changes", fill) as made:
            assert made is not None
            # A sweep leaves what is being made, and one sandbox more may name what it is made of.
            await place.images.sweep()
            replace(Machine.read(home), id="sb_2").write(place.sandbox_on(image, "copy", 2))
            async with place.images.keeping():
                assert merging.adopt(place.images.layers, home, made)
                assert not merging.adopt(place.images.layers, home, made)
        await place.images.sweep()

    asyncio.run(run())
    now = Machine.read(home).layers
    assert (len(now), now[1]) == (2, layers[3])
    assert _names(place) == {*now, *layers}
    assert _seen(place, home) == ["0", "1", "2", "3", "3"]
    others = place.images.named_but_for(home.name)
    assert others is not None
    assert merging.longest_run(now, others) == now[:1]
    (place.root / "sandboxes/sb_0000000000000002/machine.json").write_text("{")
    assert place.images.named_but_for(home.name) is None


@unpacking
@pytest.mark.slow
def test_snapshots_that_are_removed_leave_no_long_chain(place: Place) -> None:
    """More snapshots than there may be layers, each removed again: none is refused, and what is left has few layers and all files."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    rounds = DEEPEST + 5

    async def run() -> None:
        engine = NamespaceEngine(
            Kit(cast("Cells", object()), place.root / "images", place.root / "sandboxes"),
            Groups("none", {}),
        )
        for number in range(rounds):
            _write(home / "upper", number)
            snapshot = f"sn_{number:016x}"
            await engine.capture(home.name, snapshot, "then")
            await engine.discard(snapshot)
        # What goes on in the background.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)
        assert len(Machine.read(home).layers) < DEEPEST // 2

    asyncio.run(run())
    asyncio.run(place.images.recover())
    trees = [home / "upper", *place.images.layers.trees(Machine.read(home).layers)]
    found = {path.name for tree in trees if (tree / "srv").exists() for path in (tree / "srv").iterdir()}
    assert found == {str(number) for number in range(rounds)}
    assert _names(place) == set(Machine.read(home).layers)


@unpacking
@pytest.mark.slow
def test_a_merge_before_a_snapshot_keeps_no_one_from_the_images(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep, which waits for who uses the images, goes through while layers are merged, and leaves what they are made of."""
    home = _with_layers(place, place.imported(*SYSTEM), DEEPEST)
    make = merging.stack_files

    async def stack_files(trees: Sequence[Path], target: Path, *, redirects: bool) -> None:
        async with asyncio.timeout(60):
            await place.images.sweep()
        await make(trees, target, redirects=redirects)

    monkeypatch.setattr(merging, "stack_files", stack_files)
    engine = NamespaceEngine(
        Kit(cast("Cells", object()), place.root / "images", place.root / "sandboxes"), Groups("none", {})
    )
    asyncio.run(engine.capture(home.name, "sn_0000000000000001", "then"))
    assert len(Machine.read(home).layers) == 1
    names = sorted(str(number) for number in range(DEEPEST))
    assert _seen(place, home) == [*names, f"{DEEPEST - 1}"]


def _renamed(top: Path, number: int) -> None:
    """Rename directories that were renamed before, and some in them, in one of four steps."""
    steps = (
        (("a/x", "b/new"), ("a/a/x", "a/a/moved")),
        (("b/new", "a/back"), ("a/a", "a/back/inner"), ("b", "c")),
        (("a/back/inner/moved", "c/moved"), ("a", "d"), ("c/a", "a")),
        (("d/back", "c/last"), ("c/last/inner/a", "d/a"), ("c/moved", "c/last/y"), ("a", "d/b")),
    )
    for old, new in steps[number]:
        (top / old).rename(top / new)
        (top / new / f"in-{number}").write_text(old)


@unpacking
@pytest.mark.slow
def test_directories_that_were_renamed_in_each_layer_are_merged(place: Place) -> None:
    """One layer is left, which finds below what each directory was called there."""
    if not is_machines_root():
        pytest.skip("not here: the tests run in a user namespace, or without a capability")
    image = place.imported(*FILES)
    home, model = place.sandbox_on(image), place.root / "model"
    replace(Machine.read(home), redirects=True).write(home)
    shutil.copytree(place.images.lower(image)[-1], model, symlinks=True)
    files = Files(place, image, redirects=True)
    for number in range(4):
        with files.mounted(Machine.read(home).layers, home) as top:
            _renamed(top, number)
        _renamed(model, number)
        files.own(home)
        made = _snapshot(place, home, number)
        asyncio.run(place.images.snapshots.remove(made.id))
    asyncio.run(_merge(place))
    (left,) = Machine.read(home).layers
    assert files.view([left], home) == _view(model)
    mark = os.getxattr(place.images.layers.tree(left) / "c/last/inner", "trusted.overlay.redirect")
    assert mark == b"/a/a"
