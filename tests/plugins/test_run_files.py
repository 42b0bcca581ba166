"""Files that `run` sends and fetches: what is chosen, and an archive from inside as an attacker would write it."""

from __future__ import annotations

import errno
import io
import os
import pwd
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irons.errors import UsageError
from irons_plugins.run.choosing import Chosen, chosen
from irons_plugins.run.packing import pack
from irons_plugins.run.placing import Placed, Placer, PlacingError, stays_inside
from irons_plugins.run.tar_reader import ArchiveEnd, Data, EntryKind, Event, TarEntry, TarError, TarReader

MOST = 1 << 24


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """Write a tar."""
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w", format=form) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return into.getvalue()


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    """One member of it."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info, data


def events(data: bytes, step: int = 1 << 16) -> list[Event]:
    """Read a whole archive, `step` bytes at a time."""
    reader, found = TarReader(), []
    for at in range(0, len(data), step):
        found += reader.feed(data[at : at + step])
    reader.finish()
    return found


def place(
    data: bytes, target: Path, below: tuple[str, ...] = ("out",), most: int = MOST, step: int = 1 << 16
) -> Placed:
    """Put an archive below a directory."""
    with closing(Placer(target, below, most)) as placer:
        for event in events(data, step):
            placer.take(event)
        return placer.placed


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A directory next to another that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def untouched(target: Path) -> bool:
    """Whether nothing but the target has changed."""
    outside = target.parent / "outside"
    return (
        sorted(path.name for path in target.parent.iterdir()) == ["outside", "target"]
        and [path.name for path in outside.iterdir()] == ["kept"]
        and (outside / "kept").read_text() == "kept"
        and (outside / "kept").stat().st_nlink == 1
    )


# What is read


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("step", [1, 513, 1 << 20])
def test_archives_of_any_format_are_read(form: int, step: int) -> None:
    """Files, directories and links come as they were written, however the bytes are cut."""
    long = "d/" * 40 + "x" * 60 if form == tarfile.USTAR_FORMAT else "d/" * 90 + "x" * 200
    data = archive(
        member("out/", kind=tarfile.DIRTYPE),
        member("out/a", b"a" * 1000, mode=0o755),
        member(f"out/{long}", b"b"),
        member("out/l", kind=tarfile.SYMTYPE, link="a"),
        member("out/h", kind=tarfile.LNKTYPE, link="out/a"),
        member("out/f", kind=tarfile.FIFOTYPE),
        form=form,
    )
    found = events(data, step)
    entries = [event for event in found if isinstance(event, TarEntry)]
    assert [entry.kind for entry in entries] == [
        EntryKind.DIRECTORY, EntryKind.FILE, EntryKind.FILE, EntryKind.SYMLINK, EntryKind.HARDLINK, EntryKind.OTHER,
    ]  # fmt: skip
    assert entries[1].mode == 0o755
    assert entries[2].name == f"out/{long}".encode()
    assert (entries[3].link, entries[4].link) == (b"a", b"out/a")
    assert b"".join(event.data for event in found if isinstance(event, Data)) == b"a" * 1000 + b"b"
    assert found[-1] == ArchiveEnd()


@pytest.mark.process
def test_sparse_files_of_gnu_tar_keep_their_holes(target: Path) -> None:
    """A sparse file, and a plain archive of one, take the blocks of their data alone."""
    source = target.parent / "outside" / "sparse"
    with source.open("wb") as file:
        for at in range(0, 40 << 20, 1 << 20):
            file.seek(at)
            file.write(b"data")
        file.truncate(1 << 33)
    for name, words in (("gnu", ["-S"]), ("plain", [])):
        if name == "plain":
            os.truncate(source, 64 << 20)
        data = subprocess.run(
            ["tar", "-c", *words, "--format=gnu", "-C", source.parent, "--transform", f"s,^,out-{name}/,", "sparse"],
            capture_output=True, check=True,
        ).stdout  # fmt: skip
        placed = place(data, target, (f"out-{name}",), most=1 << 27)
        made = target / f"out-{name}" / "sparse"
        assert made.stat().st_size == source.stat().st_size
        assert made.stat().st_blocks * 512 < 4 << 20
        assert placed.files == 1
        with made.open("rb") as file:
            file.seek(39 << 20)
            assert file.read(6) == b"data\0\0"
    source.unlink()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x1f\x8b" + bytes(600),
        b"tar: not found\n" * 100,
        archive(member("out/a", b"x" * 2000))[:1500],
    ],
)
def test_what_is_not_a_whole_archive_is_refused(data: bytes) -> None:
    """Another format, a message, and an end in the middle are no archive."""
    with pytest.raises(TarError):
        events(data)


def test_headers_cannot_use_up_memory() -> None:
    """A header that announces gigabytes of name, or of pax records, is refused before any of it is kept."""
    for kind in (b"L", b"K", b"x", b"g"):
        info = tarfile.TarInfo("out/a")
        info.type, info.size = kind, 1 << 33
        with pytest.raises(TarError, match="bytes"):
            TarReader().feed(info.tobuf(tarfile.GNU_FORMAT))


def _header(kind: bytes, data: bytes = b"", name: str = "out/a") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    return info.tobuf(tarfile.GNU_FORMAT) + data.ljust(-(-len(data) // 512) * 512, b"\0")


@pytest.mark.parametrize(
    ("piece", "why"),
    [
        (_header(b"g", b"508 comment=" + b"x" * 495 + b"\n") * 64, "headers"),
        (_header(b"L", b"n" * 8000) * 16, "headers"),
        (bytes(1 << 16), "after its end"),
        (_header(b"V", b"x" * 512), "not a file"),
        (_header(b"3", b"x" * 512), "not a file"),
    ],
    ids=["pax", "names", "end", "label", "device"],
)
def test_an_archive_without_end_is_refused(piece: bytes, why: str) -> None:
    """What is neither an entry nor the data of a file cannot go on for ever."""
    reader = TarReader()

    def read() -> None:
        for _ in range((64 << 20) // len(piece)):
            reader.feed(piece)

    with pytest.raises(TarError, match=why):
        read()


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(st.data())
def test_any_bytes_are_an_archive_or_refused(data: st.DataObject) -> None:
    """However an archive is damaged, it is read or refused by `TarError`, the same in one piece and byte by byte."""
    whole = bytearray(
        archive(
            member("out/a", b"a" * 700),
            member("out/" + "n" * 150, b"b"),
            member("out/l", kind=tarfile.SYMTYPE, link="k" * 120),
            form=data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])),
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 5000)) % len(whole)
        whole[at] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            _right(whole, at // 512 * 512)
    outcomes = []
    for step in (1 << 20, 1):
        try:
            found = events(bytes(whole), step)
            outcomes.append([event for event in found if not isinstance(event, Data)])
        except TarError:
            outcomes.append([])
    assert outcomes[0] == outcomes[1]


def _right(whole: bytearray, at: int) -> None:
    """Make the checksum of a header block right again, so that the damage is looked at."""
    block = whole[at : at + 512]
    block[148:156] = b" " * 8
    whole[at + 148 : at + 156] = b"%06o\0 " % sum(block)


# What is written


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside/kept", b"evil")],
        [member("/tmp/evil", b"evil")],
        [member("out/../../outside/kept", b"evil")],
        [member("other", b"evil")],
        [member("out2/a", b"evil")],
        [member("out/x", kind=tarfile.SYMTYPE, link="."), member("out/x/y", b"evil")],
        [member("out", b"file"), member("out/x", b"evil")],
        [member("out/h", kind=tarfile.LNKTYPE, link="../outside/kept")],
        [member("out/h", kind=tarfile.LNKTYPE, link="other")],
        [member("out/" + "d/" * 300 + "x", b"deep")],
        [member("out/" + "n" * 256, b"long")],
    ],
    ids=lambda members: f"{members[-1][0].name[:30]} {members[-1][0].linkname}",
)
def test_what_leads_out_is_refused(target: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Nothing outside the target, and nothing in it that was not asked for, is written; no half file stays."""
    with pytest.raises((PlacingError, OSError)):
        place(archive(*members), target)
    assert untouched(target)
    assert not [path for path in target.rglob("*") if path.name.startswith(".irons-")]


def test_links_here_are_not_followed(target: Path) -> None:
    """A link that is here already is replaced by a file, and is not a directory for others."""
    (target / "out").mkdir()
    (target / "out" / "a").symlink_to("../../outside/kept")
    (target / "out" / "d").symlink_to("../../outside")
    place(archive(member("out/a", b"new")), target)
    assert (target / "out" / "a").read_text() == "new"
    assert not (target / "out" / "a").is_symlink()
    with pytest.raises(PlacingError, match="not a directory"):
        place(archive(member("out/d/kept", b"evil")), target)
    assert untouched(target)
    (target / "out").rename(target / "was")
    (target / "out").symlink_to("../outside")
    with pytest.raises(PlacingError, match="not a directory"):
        place(archive(member("out/kept", b"evil")), target)
    assert untouched(target)


def test_a_hard_link_here_is_not_written_through(target: Path) -> None:
    """A file that has a name elsewhere too gets new data under this name alone."""
    (target / "out").mkdir()
    os.link(target.parent / "outside" / "kept", target / "out" / "a")
    place(archive(member("out/a", b"new")), target)
    assert (target / "out" / "a").read_text() == "new"
    assert untouched(target)


def test_what_is_no_file_is_left_out_and_counted(target: Path) -> None:
    """Devices, pipes, a repository's own files and links that lead out are not made."""
    placed = place(
        archive(
            member("out/fifo", kind=tarfile.FIFOTYPE),
            member("out/disk", kind=tarfile.BLKTYPE),
            member("out/.git/hooks/pre-commit", b"evil", mode=0o755),
            member("out/sub/.GIT/config", b"evil"),
            member("out/abs", kind=tarfile.SYMTYPE, link="/etc/passwd"),
            member("out/up", kind=tarfile.SYMTYPE, link="../../outside"),
            member("out/git", kind=tarfile.SYMTYPE, link=".git/config"),
            member("out/h", kind=tarfile.LNKTYPE, link="out/fifo"),
            member("out/good", kind=tarfile.SYMTYPE, link="sub/x"),
            member("out/sub/x", b"#!/bin/sh\n", mode=0o6755),
            member("out/hard", kind=tarfile.LNKTYPE, link="out/sub/x"),
        ),
        target,
    )
    assert placed.left_out == {
        "devices, pipes and sockets": 2,
        "of .git": 2,
        "links that lead out": 3,
        "links to what was left out": 1,
    }
    assert placed.files == 3
    assert stat.S_IMODE((target / "out/sub/x").stat().st_mode) == 0o755
    assert (target / "out/good").read_text() == "#!/bin/sh\n"
    assert (target / "out/hard").samefile(target / "out/sub/x")
    assert untouched(target)


def test_sizes_are_bounded(target: Path) -> None:
    """More data than may come, and more than a file may have, are refused; what was half written is gone."""
    with pytest.raises(PlacingError, match="more than 1,000 bytes"):
        place(archive(member("out/a", b"x" * 1001)), target, most=1000)
    info = tarfile.TarInfo("out/huge")
    info.size = 1 << 50
    (entry,) = TarReader().feed(info.tobuf(tarfile.GNU_FORMAT))
    with closing(Placer(target, ("out",), MOST)) as placer, pytest.raises(PlacingError, match="claims"):
        placer.take(entry)
    assert [path.name for path in target.rglob("*")] == ["out"]


def test_a_directory_is_not_replaced_by_a_file(target: Path) -> None:
    """A file in the place of a directory is an error, and the directory stays."""
    (target / "out" / "a").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        place(archive(member("out/a", b"x")), target)
    assert [path.name for path in (target / "out").iterdir()] == ["a"]


NAMES = st.sampled_from(["out", "a", "b", "..", ".", "", "/", ".git", "c\n", "\udcff"])
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150)
@given(members=st.lists(st.tuples(PATHS, KINDS, PATHS), min_size=1, max_size=8), rooted=st.booleans())
def test_whatever_comes_stays_below_the_target(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes, str]], rooted: bool
) -> None:
    """No archive changes anything outside, leaves a link that leads out, or a name that was not asked for."""
    base = tmp_path_factory.mktemp("any")
    (base / "outside").mkdir()
    (base / "outside" / "kept").write_text("kept")
    target = base / "target"
    target.mkdir()
    made = []
    for name, kind, link in members:
        info = tarfile.TarInfo(f"out/{name}" if rooted else name)
        info.type, info.linkname = kind, f"out/{link}" if kind == tarfile.LNKTYPE else link
        made.append((info, b"data" if kind == tarfile.REGTYPE else b""))
    with suppress(PlacingError, TarError, OSError, UnicodeError):
        place(archive(*made), target)
    assert untouched(target)
    assert {path.name for path in target.iterdir()} <= {"out"}
    real = (target / "out").resolve()
    for path in _below(target / "out"):
        assert not path.name.startswith(".irons-")
        assert path.name != ".git"
        if not _loops(path):
            assert path.resolve() == real or real in path.resolve().parents, (path, path.readlink())


def _loops(path: Path) -> bool:
    """Whether a link leads to itself."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _below(path: Path) -> Iterator[Path]:
    for root, directories, files in os.walk(path):
        for name in (*directories, *files):
            yield Path(root) / name


def test_links_that_climb_behind_a_name_are_not_trusted() -> None:
    """`a/..` is the directory only where `a` is not a link, which no one can know beforehand."""
    assert stays_inside(b"../b", 1)
    assert stays_inside(b"a/b", 0)
    for link, depth in ((b"..", 0), (b"a/..", 5), (b"", 1), (b"/a", 3), (b"../../a", 1), (b".GIT/x", 2)):
        assert not stays_inside(link, depth)


# What is sent


def sent(chosen_files: Chosen) -> list[str]:
    """The names of what was chosen."""
    return [os.fsdecode(name) for name in chosen_files.names]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git work tree with files of every kind."""
    root = tmp_path / "home" / "project"
    root.mkdir(parents=True)
    git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    (root / ".gitignore").write_text("*.log\nsecret\n")
    (root / "tracked").write_text("1")
    (root / "removed").write_text("2")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    (root / "removed").unlink()
    (root / "fresh ü\n").write_text("333")
    (root / "build.log").write_text("ignored")
    (root / "secret").write_text("ignored")
    (root / "link").symlink_to("/etc/passwd")
    (root / "sub").mkdir()
    (root / "sub" / "x").write_text("4")
    os.mkfifo(root / "fifo")
    nested = root / "nested"
    nested.mkdir()
    subprocess.run(["git", "-C", str(nested), "init", "-q"], check=True)
    (nested / "inner").write_text("5")
    return root


def pick(directory: Path, *, everything: bool = False) -> Chosen:
    """Choose from a directory whose user's home is above the project."""
    home = directory.parent
    return chosen(str(directory), everything=everything, home=home, guarded=[home / ".ssh", home / ".state"])


@pytest.mark.process
def test_git_says_what_is_sent(project: Path) -> None:
    """What git tracks and is there, and what it would add, is sent; nothing that it ignores, and none of its own files."""
    found = pick(project)
    assert sent(found) == [".gitignore", "fresh ü\n", "link", "nested/inner", "sub/x", "tracked"]
    assert found.size == sum((project / name).lstat().st_size for name in sent(found) if name != "link")
    everything = sent(pick(project, everything=True))
    assert {"secret", "build.log", ".git/HEAD"} <= set(everything)
    assert "fifo" not in everything


@pytest.mark.process
def test_a_directory_without_git_is_sent_on_request(tmp_path: Path) -> None:
    """Where git knows nothing of a directory the error names the option that sends all of it."""
    plain = tmp_path / "home" / "plain"
    plain.mkdir(parents=True)
    (plain / "a").write_text("a")
    with pytest.raises(UsageError) as refused:
        pick(plain)
    assert "--with-all" in refused.value.hint
    assert sent(pick(plain, everything=True)) == ["a"]
    with pytest.raises(UsageError, match="not one"):
        pick(plain / "a")
    with pytest.raises(UsageError, match="No such file"):
        pick(plain / "b")


def test_homes_and_what_is_guarded_are_refused(tmp_path: Path) -> None:
    """`/`, a home, and all that contains or lies in `~/.ssh` or the state directory stay here, also by way of a link."""
    home = tmp_path / "home"
    for name in (".ssh/keys", ".state/irons/x", "project"):
        (home / name).mkdir(parents=True)
    (home / "way").symlink_to(home)
    (tmp_path / "moved").mkdir()
    guarded = [home / ".ssh", home / ".state" / "irons"]
    for name in ("/", str(home), str(home / "way"), str(tmp_path), str(home / ".ssh"), str(home / ".ssh/keys"),
                 str(home / ".state"), str(home / ".state/irons/x"), str(home / "project" / ".."), pwd.getpwuid(os.geteuid()).pw_dir):  # fmt: skip
        with pytest.raises(UsageError):
            chosen(name, everything=True, home=home, guarded=guarded)
    assert chosen(str(home / "project"), everything=True, home=home, guarded=guarded).names == ()


@pytest.mark.process
def test_what_is_sent_arrives(project: Path, target: Path) -> None:
    """The archive has files with their bytes and their x bit, links as links, and no one's ids."""
    (project / "tool").write_bytes(os.urandom(70_000))
    (project / "tool").chmod(0o700)
    into = io.BytesIO()
    found = pick(project)
    (project / "sub" / "x").unlink()
    pack(found, into)
    subprocess.run(["tar", "-xf", "-", "-C", target], input=into.getvalue(), check=True)
    assert (target / "tool").read_bytes() == (project / "tool").read_bytes()
    assert stat.S_IMODE((target / "tool").stat().st_mode) & 0o100
    assert (target / "link").readlink() == Path("/etc/passwd")
    assert (target / "fresh ü\n").read_text() == "333"
    assert not (target / "sub").exists()
    with tarfile.open(fileobj=io.BytesIO(into.getvalue())) as tar:
        assert {(info.uid, info.gid, info.uname, info.gname) for info in tar} == {(0, 0, "", "")}
