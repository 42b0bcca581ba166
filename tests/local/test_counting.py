"""Counting the files of a layer."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from irons.context import Context
from irons.host import PluginHost
from irons.settings.settings import load
from irons.terminal.streams import Streams
from irons_local.emptying import empty
from irons_local.errors import EngineError
from irons_local.images.catalog import Image
from irons_local.images.inside import counting
from irons_local.images.layers import Layers
from irons_plugins.local.backend import paths_of
from irons_plugins.local.image_handlers import list_images

pytestmark = pytest.mark.process

DEPTH = 1500


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[int]:
    """A directory that is removed however deep it is."""
    made = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield made
        empty(made)
    finally:
        os.close(made)


def write(directory: int, name: str, data: bytes) -> None:
    """Write a file into a directory."""
    file = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=directory)
    os.write(file, data)
    os.close(file)


def test_directories_may_be_deeper_than_a_path(tree: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the stack nor descriptors run out, and what lies next to the deep directory is counted too, a link once."""
    monkeypatch.setattr(os, "nice", lambda _: 0)
    here = os.dup(tree)
    for _ in range(DEPTH):
        for name in ("long" * 20, "beside"):
            os.mkdir(name, dir_fd=here)
        there = os.open("long" * 20, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = there
    write(here, "deep", b"x" * 4096)
    os.close(here)
    write(tree, "first", b"x" * 4096)
    os.link("first", "second", src_dir_fd=tree, dst_dir_fd=tree)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        assert sys.getrecursionlimit() < DEPTH
        found = counting.count({"tree": tree}, lambda _line, _done: None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found["size"] == 2 * 4096
    assert found["used"] >= 2 * 4096


def test_images_are_listed_whose_sizes_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer whose files cannot be counted takes no other image out of the list."""

    async def refuse(_: Layers) -> bool:
        raise EngineError("failed", "no")

    monkeypatch.setattr(Layers, "count", refuse)
    env = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "IRONS_API_URL": "local"}
    told = io.StringIO()
    context = Context(load({}, env), PluginHost(), Streams(stderr=told, env=env))
    paths = paths_of(context.settings)
    layer = Layers(paths.layers).begin("changes")
    found = {"os": "any", "size": 1, "sshd": "", "tini": ""}
    for name, layers in (("plain", ()), ("saved", (layer.id,))):
        image = replace(Image.of(paths.images, name, "imported from x", dict(found)), layers=layers)
        image.home.mkdir(parents=True)
        image.write(image.home)
    with contextlib.closing(context):
        assert {row.name: row.size for row in list_images(context)} == {"plain": 1, "saved": None}
    assert told.getvalue() == "irons: the sizes of some images are not known: no\n"


def test_a_seal_is_that_of_the_files(tree: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A copy that keeps times, also in whole seconds alone, has the same one; a byte, a mode, a name, a link or a file that is gone makes another."""
    monkeypatch.setattr(os, "nice", lambda _: 0)
    top = tmp_path / "tree"
    (top / "in/deep").mkdir(parents=True)
    (top / "in/deep/file").write_bytes(b"a" * 100)
    (top / "in/link").symlink_to("deep")
    # A layer is sealed seconds after its last change.
    for path in (top, *top.rglob("*")):
        os.utime(path, ns=(0, 1_000_000_000_999_999_999), follow_symlinks=False)

    def seal(of: Path) -> str | None:
        directory = os.open(of, os.O_RDONLY | os.O_DIRECTORY)
        try:
            found: str | None = counting.seals({"it": directory}, lambda _line, _done: None)["it"]
            return found
        finally:
            os.close(directory)

    whole = seal(top)
    copy = tmp_path / "copy"
    shutil.copytree(top, copy, symlinks=True)
    assert seal(copy) == whole
    for path in (copy, *copy.rglob("*")):
        os.utime(path, (0, 1_000_000_000), follow_symlinks=False)
    assert seal(copy) == whole
    with (copy / "in/deep/file").open("r+b") as file:
        file.write(b"b")
    assert seal(copy) != whole
    seen = {whole, seal(copy)}
    (copy / "in/deep/file").chmod(0o4755)
    seen.add(seal(copy))
    (copy / "in/deep/file").rename(copy / "in/file")
    seen.add(seal(copy))
    (copy / "in/file").unlink()
    seen.add(seal(copy))
    (copy / "in/link").unlink()
    (copy / "in/link").symlink_to("file")
    seen.add(seal(copy))
    assert len(seen) == 6
    with Path(os.devnull).open("rb") as none:
        assert counting.seals({"it": none.fileno()}, lambda _line, _done: None) == {"it": None}
