"""Copying a sandbox's changes in two passes: what changes while the first one runs is what the second one finds."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from irons_local.emptying import empty
from irons_local.errors import EngineError
from irons_local.images.inside import cloning, pairs
from irons_local.linux import syscalls

DEPTH = 1500


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with files of several kinds, on a file system that is taken for one that notices all writes."""
    monkeypatch.setattr(cloning._Clone, "_tells_time", lambda _: True)
    # This file system keeps nanoseconds, and no one sets the clock.
    monkeypatch.setattr(cloning, "unchanged_before", lambda now: now)
    top = tmp_path / "source"
    (top / "kept/deep").mkdir(parents=True)
    (top / "kept/deep/file").write_bytes(b"kept" * 1000)
    (top / "kept/link").hardlink_to(top / "kept/deep/file")
    (top / "kept/leads").symlink_to("deep/file")
    (top / "written").write_bytes(b"before")
    (top / "one").mkdir()
    (top / "one/file").write_bytes(b"one!")
    (top / "two").mkdir()
    (top / "two/file").write_bytes(b"two!")
    (top / "gone/inner").mkdir(parents=True)
    (top / "gone/inner/file").write_bytes(b"gone")
    os.mkfifo(top / "pipe")
    # Older than the first pass, by any clock.
    until = (top / "pipe").stat().st_ctime_ns
    while time.clock_gettime_ns(cloning._CLOCK_REALTIME_COARSE) <= until:
        pass
    return top


def _cloned(source: Path, between: Callable[[], None] = lambda: None, copies: str = "the snapshot") -> Path:
    """Copy in two passes, with `between` between them."""
    target = source.with_name("target")
    target.mkdir()
    read, write = os.pipe()

    def say(line: str, _: float | None) -> None:
        if line == cloning.READY:
            between()
            os.write(write, b"g")

    with contextlib.ExitStack() as stack:
        for descriptor in (read, write):
            stack.callback(os.close, descriptor)
        given = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target)]
        for descriptor in given:
            stack.callback(os.close, descriptor)
        cloning.clone({"source": given[0], "target": given[1], "copies": copies, "go": read}, say)
    return target


def _told(top: Path) -> dict[str, object]:
    """What a tree consists of; files by content and the names that they share."""
    found: dict[str, object] = {}
    shared: dict[int, str] = {}
    for path in sorted(top.rglob("*")):
        name, at = str(path.relative_to(top)), path.lstat()
        same = shared.setdefault(at.st_ino, name)
        what: object = None
        if stat.S_ISREG(at.st_mode):
            what = path.read_bytes()
        elif stat.S_ISLNK(at.st_mode):
            what = str(path.readlink())
        found[name] = (at.st_mode, at.st_mtime_ns, same, what)
    return found


def test_what_does_not_change_is_copied_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second pass opens no file: all are as they were."""
    opened: list[str] = []
    copied = cloning._Clone._copied

    def counting(self: cloning._Clone, name: str, *more: object) -> None:
        opened.append(name)
        copied(self, name, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(cloning._Clone, "_copied", counting)
    target = _cloned(source)
    assert _told(target) == _told(source)
    assert len(opened) == len(_told(source)) - len(
        {"kept", "kept/deep", "one", "two", "gone", "gone/inner", "kept/link"}
    )


def test_whole_seconds_are_enough() -> None:
    """A change in the second of the first pass counts as one that came later, and so does one just before."""
    second = 10**9
    assert cloning.unchanged_before(10 * second + second // 2) == 10 * second
    assert cloning.unchanged_before(10 * second + 5_000_000) == 9 * second


def test_the_first_pass_ends_in_time(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its time is over, the second one copies all that it did not."""
    monkeypatch.setattr(cloning, "FIRST_WITHIN", -1.0)
    target = _cloned(source)
    assert _told(target) == _told(source)


def test_a_default_for_access_leaves_nothing_on_a_copy(source: Path) -> None:
    """A file that comes after its directory has no access list but its own."""
    entry = struct.Struct("<HHI")
    none, name = 0xFFFFFFFF, "system.posix_acl_default"
    given = [(1, 7, none), (2, 6, 1234), (4, 5, none), (16, 7, none), (32, 5, none)]
    try:
        os.setxattr(
            source / "one", name, struct.pack("<I", 2) + b"".join(entry.pack(*each) for each in given)
        )
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")

    def change() -> None:
        (source / "one/file").unlink()
        (source / "one/file").write_bytes(b"new")
        os.removexattr(source / "one/file", "system.posix_acl_access")

    target = _cloned(source, change)
    assert os.listxattr(target / "one") == [name]
    assert os.listxattr(target / "one/file") == []


def test_what_changes_between_the_passes_is_copied_again(source: Path) -> None:
    """Written, added, removed, exchanged, replaced by another kind, linked and moved: the copy is as the source at the end."""

    def change() -> None:
        at = (source / "written").stat()
        (source / "written").write_bytes(b"after!")
        os.utime(source / "written", ns=(at.st_atime_ns, at.st_mtime_ns))
        (source / "one").rename(source / "three")
        (source / "two").rename(source / "one")
        (source / "gone/inner/file").unlink()
        (source / "gone/inner").rmdir()
        (source / "gone/inner").write_bytes(b"a file now")
        (source / "pipe").unlink()
        (source / "pipe").mkdir(mode=0o711)
        (source / "pipe/new").hardlink_to(source / "kept/deep/file")
        (source / "kept/leads").unlink()
        (source / "kept/leads").symlink_to("elsewhere")
        (source / "kept/deep").chmod(0o701)
        os.setxattr(source / "kept", "user.new", b"1")
        os.removexattr(source / "kept", "user.old")

    os.setxattr(source / "kept", "user.old", b"1")
    target = _cloned(source, change)
    assert _told(target) == _told(source)
    assert (target / "one/file").read_bytes() == b"two!"
    assert os.listxattr(target / "kept") == ["user.new"]


def test_what_changes_while_the_first_pass_runs_does_not_stop_it(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that is moved away while it is copied, a file that becomes a pipe, and names that go."""
    changed: list[str] = []
    copied = cloning._Clone._copied

    def changing(self: cloning._Clone, name: str, *more: object) -> None:
        if not changed:
            changed.append(name)
            (source / "kept/deep").rename(source / "two/deep")
            (source / "written").unlink()
            os.mkfifo(source / "written")
            (source / "gone/inner/file").unlink()
        copied(self, name, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(cloning._Clone, "_copied", changing)
    target = _cloned(source)
    assert _told(target) == _told(source)


def test_a_clock_that_was_set_is_not_believed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is changed under a clock that was put back has an old time: all is copied again."""
    real = time.time
    moved: list[float] = [0.0]
    monkeypatch.setattr(time, "time", lambda: real() - moved[0])

    def change() -> None:
        moved[0] = 3600.0
        (source / "written").write_bytes(b"after!")

    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: 1 << 62)
    target = _cloned(source, change)
    assert _told(target) == _told(source)


def test_a_control_plane_that_ends_ends_the_copy(source: Path) -> None:
    """The descriptor through which it would say that the sandbox is frozen ends."""
    target = source.with_name("target")
    target.mkdir()
    read, write = os.pipe()
    os.close(write)
    given = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target)]
    try:
        with pytest.raises(EngineError, match="the control plane ended"):
            cloning.clone(
                {"source": given[0], "target": given[1], "copies": "x", "go": read}, lambda *_: None
            )
    finally:
        for descriptor in (read, *given):
            os.close(descriptor)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A directory that is deeper than the stack and the descriptors reach, and a place for its copy."""
    made = []
    for name in ("deep", "copy"):
        (tmp_path / name).mkdir()
        made.append(os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY))
    here = os.dup(made[0])
    for _ in range(DEPTH):
        os.mkdir("long" * 20, dir_fd=here)
        there = os.open("long" * 20, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = there
    os.close(os.open("bottom", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.setxattr(here, syscalls.OPAQUE, b"y")
    os.close(here)
    yield made[0], made[1]
    for descriptor in made:
        empty(descriptor)
        os.close(descriptor)


def test_directories_may_be_deeper_than_the_stack(deep: tuple[int, int]) -> None:
    """Neither the copy nor what the machine's root adds to it runs out of anything."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        assert sys.getrecursionlimit() < DEPTH
        cloning.clone({"source": deep[0], "target": deep[1], "copies": "x"}, lambda *_: None)
        pairs.copy_marks(*deep)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    here = os.dup(deep[1])
    for _ in range(DEPTH):
        there = os.open("long" * 20, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = there
    assert os.listdir(here) == ["bottom"]  # noqa: PTH208 (a descriptor)
    assert os.getxattr(here, syscalls.OPAQUE) == b"y"
    os.close(here)
