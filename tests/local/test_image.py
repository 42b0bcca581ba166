"""Images built, saved, exported and removed; nothing half made is ever used."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.image_archives import SYSTEM, Place, archive, entry, ids, make_place, tar_bytes, unpacking

from irons_local.bundle.machine import Machine
from irons_local.errors import EngineError
from irons_local.images.catalog import Image
from irons_local.images.saving import Saving
from irons_local.images.sources import debian
from irons_local.images.sources.complaints import Complaints
from irons_local.linux.idmap import outer_map
from irons_local.linux.namespaces import started


@pytest.fixture
def place() -> Iterator[Place]:
    """A place of its own."""
    with make_place() as made:
        yield made


async def _written(path: Path) -> None:
    """Come back when a file has something in it."""
    while not path.exists() or not path.read_text():  # noqa: ASYNC110, ASYNC240 (another process writes it)
        await asyncio.sleep(0.02)


async def _gone(pid: int) -> None:
    """Come back when a process has ended."""
    async with asyncio.timeout(60):
        while started(pid) is not None:  # noqa: ASYNC110 (it is not a child of this process)
            await asyncio.sleep(0.02)


@unpacking
def test_what_is_exported_can_be_imported(place: Place) -> None:
    """An export holds all of an image, with owners, modes, links and capabilities."""
    capability = b"\x01\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    headers = {"SCHILY.xattr.security.capability": capability.decode("latin-1")}
    place.imported(
        *SYSTEM,
        entry("srv/suid", b"x", mode=0o4755, uid=7, gid=8, mtime=1000),
        entry("srv/hard", type=tarfile.LNKTYPE, linkname="srv/suid"),
        entry("usr/bin/ping", b"x", mode=0o755, pax_headers=headers),
        entry("srv/pipe", type=tarfile.FIFOTYPE),
    )
    asyncio.run(place.images.export("little", place.root / "out.tar"))
    again = asyncio.run(place.images.import_(place.root / "out.tar", "again")).rootfs
    assert stat.S_IMODE((again / "srv/suid").stat().st_mode) == 0o4755
    assert (again / "srv/suid").stat().st_ino == (again / "srv/hard").stat().st_ino
    assert ids(again / "srv/suid") == (7, 8)
    assert stat.S_ISFIFO((again / "srv/pipe").stat().st_mode)
    assert os.listxattr(again / "usr/bin/ping") == ["security.capability"]
    assert sorted(each.name for each in place.root.glob(".out*")) == []


@unpacking
def test_a_stopped_sandbox_becomes_an_image_without_its_keys(place: Place) -> None:
    """What it changed and removed is in the image; host keys and authorized keys are not."""
    home = place.sandbox_on(place.imported(*SYSTEM, entry("srv/old", b"1"), entry("srv/kept", b"1")))
    upper = home / "upper"
    for directory in ("srv", "root/.ssh", "home/irons/.ssh", "etc/ssh"):
        (upper / directory).mkdir(parents=True)
    (upper / "srv/new").write_text("2")
    os.mknod(upper / "srv/old", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    for secret in (
        "root/.ssh/authorized_keys",
        "home/irons/.ssh/authorized_keys",
        "etc/ssh/ssh_host_ed25519_key",
    ):
        (upper / secret).write_text("secret")
    uid = outer_map().host_uid(1)
    for path in (upper, *upper.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)
    image = asyncio.run(place.images.save(home.name, "saved"))
    rootfs = place.again("saved").rootfs
    assert sorted(each.name for each in (rootfs / "srv").iterdir()) == ["kept", "new"]
    assert [each for each in rootfs.rglob("*") if "authorized" in each.name or "ssh_host" in each.name] == []
    assert image.source == "saved from box"


@unpacking
@pytest.mark.parametrize("copied", [False, True], ids=["as a layer", "copied"])
def test_holes_cost_nothing_when_they_are_saved_and_exported(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, copied: bool
) -> None:
    """A sparse file of 4 TiB that a sandbox made takes its blocks, in the image and in the archive of that."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    (home / "upper/srv").mkdir()
    with (home / "upper/srv/big").open("wb") as file:
        file.write(b"begin")
        file.truncate(4 << 40)
    if copied:
        monkeypatch.setattr(Saving, "is_possible", lambda _: False)
    saved = asyncio.run(place.images.save(home.name, "saved"))
    (found,) = [
        path.stat() for path in place.root.rglob("images/*/rootfs/srv/big" if copied else "tree/srv/big")
    ]
    assert found.st_size == 4 << 40
    assert found.st_blocks * 512 + saved.size < 1 << 20
    asyncio.run(place.images.export("saved", place.root / "out.tar"))
    assert (place.root / "out.tar").stat().st_size < 1 << 20
    again = asyncio.run(place.images.import_(place.root / "out.tar", "again"))
    with (again.rootfs / "srv/big").open("rb") as file:
        assert file.read(6) == b"begin\0"
    assert (again.rootfs / "srv/big").stat().st_blocks * 512 < 1 << 20


@unpacking
def test_a_running_sandbox_is_not_saved(place: Place) -> None:
    """It must be stopped first, and what isn't there can't be saved."""
    home = place.sandbox_on(place.imported(*SYSTEM))
    before = place.left()
    note = {"pid": os.getpid(), "started": started(os.getpid())}
    Machine.run_file(home).write_text(json.dumps(note))
    for sandbox, code in ((home.name, "state"), ("sb_none", "absent")):
        with pytest.raises(EngineError) as caught:
            asyncio.run(place.images.save(sandbox, "saved"))
        assert caught.value.code == code
    assert place.left() == before


@unpacking
def test_an_image_in_use_stays(place: Place) -> None:
    """Neither is it removed, nor lost when its name is used again; once no one needs it, it goes."""
    old = place.imported(*SYSTEM)
    home = place.sandbox_on(old)
    with pytest.raises(EngineError, match="box"):
        asyncio.run(place.images.remove("little"))
    new = place.imported(*SYSTEM)
    asyncio.run(place.images.recover())
    assert place.images.by_id(old.id) == old
    assert place.images.find("little") == new
    shutil.rmtree(home)
    asyncio.run(place.images.recover())
    assert place.left() == [new.id]
    asyncio.run(place.images.remove("little"))
    assert place.left() == []
    with pytest.raises(EngineError, match="no image"):
        asyncio.run(place.images.remove("little"))


class Builder:
    """A stand-in for mmdebstrap, first on the PATH."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.runs = directory / "runs"
        directory.mkdir()
        (directory / "image.tar").write_bytes(tar_bytes(*SYSTEM, entry("big", bytes(300_000))))
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        self.does("cat image.tar")

    def does(self, script: str) -> None:
        """What it does, in its own directory."""
        program = self.directory / "mmdebstrap"
        text = f"""\
            #!/bin/sh
            cd {self.directory}
            echo run >>runs
            echo "I: running apt-get update..." >&2
            {script}
            """
        program.write_text(textwrap.dedent(text))
        program.chmod(0o755)


@pytest.fixture
def builder(place: Place, monkeypatch: pytest.MonkeyPatch) -> Builder:
    """A builder that makes a little image."""
    return Builder(place.root / "bin", monkeypatch)


@unpacking
def test_the_default_image_is_built_once(place: Place, builder: Builder) -> None:
    """The first need of it builds it, telling how far it is; two at once share one; a third finds it."""
    told: list[str] = []

    async def both() -> tuple[Image, Image, Image]:
        ensure = place.images.ensure
        first, second = await asyncio.gather(ensure("", "", lambda line, _: told.append(line)), ensure(""))
        return first, second, await ensure("debian")

    first, second, third = asyncio.run(both())
    assert first == second == third
    assert builder.runs.read_text() == "run\n"
    assert "fetching package lists" in told


@unpacking
def test_an_archive_can_stand_in_for_the_build(place: Place, builder: Builder) -> None:
    """Where a file is given for the default image, nothing is built."""
    path = archive(place.root / "a.tar", *SYSTEM)
    image = asyncio.run(place.images.ensure("", str(path)))
    assert image.name == "debian"
    assert not builder.runs.exists()


def test_an_image_that_is_not_there_is_not_made_up(place: Place) -> None:
    """Only the default image is made unasked."""
    assert place.refused(place.images.ensure("mine")).code == "image"


@unpacking
def test_a_build_that_fails_says_why(place: Place, builder: Builder) -> None:
    """The builder's own complaint is passed on, not what its end did to the unpacking."""
    said = r"Err:1 http://m bookworm InRelease\n  why\nE: Failed to fetch http://m  the mirror is gone\nE: no more"
    builder.does(f"head -c 5000 image.tar; printf '{said}\\n' >&2; exit 1")
    found = place.refused(place.images.build())
    assert found.message == "mmdebstrap failed: Failed to fetch http://m the mirror is gone"
    assert (
        found.hint == f"is the package mirror reachable? {place.root}/logs/image-build.log has the whole log"
    )
    assert "Err:1 http://m bookworm InRelease" in place.images.build_log.read_text()
    builder.does("exit 0")
    assert place.refused(place.images.build()).code == "image"


DPKG_FAILS = """\
Setting up openjdk-17-jre-headless:amd64 (17.0.19+10-1~deb12u2) ...
update-alternatives: error: error creating symbolic link '/usr/share/man/man1/java.1.gz.dpkg-tmp': No such file or directory
dpkg: error processing package openjdk-17-jre-headless:amd64 (--configure):
 installed openjdk-17-jre-headless:amd64 package post-installation script subprocess returned error exit status 2
Errors were encountered while processing:
 openjdk-17-jre-headless:amd64
E: Sub-process env returned an error code (1)
"""


@unpacking
def test_a_package_that_fails_is_told_in_dpkgs_own_words(
    place: Place, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package, its script's last words and dpkg's reason are reported, not apt's error after them; no mirror is blamed."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    (builder.directory / "said").write_text(DPKG_FAILS)
    builder.does('head -c 5000 image.tar; cat said >&2; printf "W: \\377 $LC_ALL\\n" >&2; exit 1')
    found = place.refused(place.images.build())
    assert found.message == (
        "mmdebstrap failed: openjdk-17-jre-headless:amd64; update-alternatives: error: error creating symbolic link"
        " '/usr/share/man/man1/java.1.gz.dpkg-tmp': No such file or directory; installed openjdk-17-jre-headless:amd64"
        " package post-installation script subprocess returned error exit status 2"
    )
    assert found.hint == f"{place.images.build_log} has the whole log"
    log = place.images.build_log.read_bytes()
    assert DPKG_FAILS.encode() in log
    assert b"W: \377 C.UTF-8" in log
    assert stat.S_IMODE(place.images.build_log.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("said", "cause", "fetching"),
    [
        ("E: Unable to locate package nosuch", "Unable to locate package nosuch", False),
        ("Err:1 http://m bookworm InRelease\nE: Failed to fetch http://m", "Failed to fetch http://m", True),
        (
            "Setting up x (1) ...\ndpkg: error processing package x (--configure):\n broken",
            "x; broken",
            False,
        ),
        (
            "Err:1 http://m\ndpkg: error processing archive /x.deb (--unpack):\n no",
            "/x.deb; Err:1 http://m; no",
            False,
        ),
        ("nothing to see", "no reason given", False),
    ],
)
def test_the_cause_of_a_failed_build(said: str, cause: str, *, fetching: bool) -> None:
    """Dpkg's words go before apt's; the mirror is suspected only where fetching failed and no package did."""
    found = Complaints()
    for line in said.splitlines():
        found.take(line)
    assert (found.cause, found.was_fetching) == (cause, fetching)


@unpacking
def test_a_build_that_is_killed_leaves_nothing_that_is_used(place: Place, builder: Builder) -> None:
    """What was killed half way isn't listed, and the next start removes it; a new build works at the same time."""
    builder.does("head -c 20000 image.tar; echo $$ >begun; exec sleep 100")
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom irons_local.images.catalog import Images\n"
        "asyncio.run(Images(Path(sys.argv[1]), Path(sys.argv[2])).build())"
    )
    words = [sys.executable, "-c", script, str(place.root / "images"), str(place.root / "sandboxes")]
    process = subprocess.Popen(words, start_new_session=True)

    async def begun() -> None:
        async with asyncio.timeout(60):
            await _written(builder.directory / "begun")

    try:
        asyncio.run(begun())
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    asyncio.run(_gone(int((builder.directory / "begun").read_text())))
    assert place.images.listed() == []
    builder.does("cat image.tar")
    image = asyncio.run(place.images.build())
    asyncio.run(place.images.recover())
    assert place.left() == [image.id]


@unpacking
def test_a_cancelled_build_ends_its_builder(place: Place, builder: Builder) -> None:
    """After Ctrl-C no process goes on, and nothing is left."""
    builder.does("echo $$ >pid; head -c 20000 image.tar; exec sleep 100")

    async def cancelled() -> int:
        work = asyncio.ensure_future(place.images.build())
        async with asyncio.timeout(60):
            await _written(builder.directory / "pid")
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        return int((builder.directory / "pid").read_text())

    asyncio.run(_gone(asyncio.run(cancelled())))
    assert place.left() == []


@unpacking
def test_a_full_disk_is_said(place: Place, builder: Builder) -> None:
    """Where the image doesn't fit, the error says so, and the room is free again."""
    small = place.root / "images"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k,mode=700", "none", str(small)], check=True)
    try:
        path = archive(place.root / "a.tar", *SYSTEM, entry("big", bytes(300_000)))
        for work in (place.images.import_(path, "little"), place.images.build()):
            found = place.refused(work)
            assert found.code == "limit"
            assert "full" in found.message
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_hosts_own_sources_are_used(tmp_path: Path) -> None:
    """A Debian of a known suite is built from the machine's own mirror; third parties' sources are left out."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://mirror.example/debian bookworm main\n")
    ours = tmp_path / "sources.list.d/debian.sources"
    ours.write_text("Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: main\n")
    (tmp_path / "sources.list.d/other.list").write_text("deb https://apt.example/stuff bookworm main\n")
    (tmp_path / "sources.list.d/off.disabled").write_text("deb http://deb.debian.org/debian bookworm main\n")
    host = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    recipe = debian.recipe(os_release=host, apt=tmp_path)
    assert (recipe.suite, recipe.sources) == ("bookworm", (str(tmp_path / "sources.list"), str(ours)))


@pytest.mark.parametrize(
    "host",
    [{}, {"ID": "fedora", "VERSION_CODENAME": "bookworm"}, {"ID": "debian", "VERSION_CODENAME": "potato"}],
)
def test_elsewhere_it_is_debians_own_mirror(tmp_path: Path, host: dict[str, str]) -> None:
    """A machine that is not a known Debian or Ubuntu builds a Debian from the project's mirror."""
    recipe = debian.recipe(os_release=host, apt=tmp_path)
    assert recipe.suite == debian.FALLBACK_SUITE
    assert "deb.debian.org" in recipe.sources[0]
    own = debian.recipe("https://mirror.example/debian", ["git"], os_release=host, apt=tmp_path)
    assert own.sources == ("https://mirror.example/debian",)
    assert own.include == ("git",)


@pytest.mark.parametrize(
    ("mirror", "include"), [("--aptopt=x", ()), ("x y", ()), (None, ("--foo",)), (None, ("a,b",))]
)
def test_nothing_typed_becomes_an_option_of_the_builder(mirror: str | None, include: tuple[str, ...]) -> None:
    """What isn't a URL or a package's name is refused."""
    with pytest.raises(EngineError) as caught:
        debian.recipe(mirror, include)
    assert caught.value.code == "input"
