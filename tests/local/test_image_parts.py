"""Unpacking, preparing and packing in this process, without a namespace: what their programs do after the change of root."""

from __future__ import annotations

import errno
import functools
import lzma
import os
import resource
import shutil
import stat
import subprocess
import tarfile
import tomllib
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.local.image_archives import (
    SYSTEM,
    archive,
    docker_archive,
    entry,
    oci_archive,
    tar_bytes,
    unpacking,
)

from irons_local.errors import EngineError
from irons_local.images.inside import nested, pack, unpack

pytestmark = unpacking

CAPABILITY = b"\x01\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"


@pytest.fixture
def rootfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory; the change of root goes no further than to make it the working directory."""
    made = tmp_path / "rootfs"
    made.mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "chroot", lambda _: None)
    monkeypatch.setattr(os, "umask", lambda _: 0)
    return made


def _unpacked(rootfs: Path, path: Path, *, stream: bool = False) -> tuple[dict[str, Any], list[str]]:
    told: list[str] = []
    directory, file = os.open(rootfs, os.O_RDONLY), os.open(path, os.O_RDONLY)
    try:
        request = {"rootfs": directory, "archive": file, "stream": stream, "size": path.stat().st_size}
        return unpack.unpack(request, lambda line, _: told.append(line)), told
    finally:
        os.close(directory)
        os.close(file)


def _packed(rootfs: Path, path: Path, *, without_keys: bool = False) -> dict[str, Any]:
    directory, file = os.open(rootfs, os.O_RDONLY), os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        request = {"rootfs": directory, "archive": file, "size": 0, "without_keys": without_keys}
        return pack.pack(request, lambda _line, _done: None)
    finally:
        os.close(directory)
        os.close(file)


def test_a_stream_becomes_a_machine(rootfs: Path, tmp_path: Path) -> None:
    """Read through a pipe or from a file, an archive becomes the same prepared root file system."""
    path = archive(
        tmp_path / "a.tar",
        *SYSTEM,
        entry("etc/skel/"),
        entry("etc/skel/.profile", b"# hello\n"),
        entry("etc/sudoers.d/"),
        entry("etc/default/"),
        entry("usr/lib/locale/C.utf8/"),
        entry("etc/machine-id", b"1\n"),
        entry("etc/ssh/ssh_host_x", b"1"),
        entry("usr/bin/tini", b"#!", mode=0o755),
        entry("deep/er/than/its/parents", b"1"),
        entry("srv/pipe", type=tarfile.FIFOTYPE),
        entry("srv/link", type=tarfile.SYMTYPE, linkname="pipe"),
        entry("srv/twice", b"1"),
        entry("srv/twice", b"2"),
        entry("srv/hard", type=tarfile.LNKTYPE, linkname="srv/twice"),
        entry("dev/x", type=tarfile.CHRTYPE),
        entry("big", bytes(9 << 20)),
    )
    found, told = _unpacked(rootfs, path, stream=True)
    assert (found["sshd"], found["tini"], found["os"]) == ("/usr/sbin/sshd", "/usr/bin/tini", "Little 1")
    assert "unpacking" in told
    assert (rootfs / "srv/hard").read_text() == "2"
    assert (rootfs / "home/irons/.profile").stat().st_uid == 1000
    assert (rootfs / "etc/sudoers.d/irons").exists()
    assert (rootfs / "etc/subuid").read_text() == (rootfs / "etc/subgid").read_text() == "irons:10000:40000\n"
    assert (rootfs / "etc/default/locale").read_text() == "LANG=C.UTF-8\n"
    assert not (rootfs / "etc/ssh/ssh_host_x").exists()
    assert not (rootfs / "dev/x").exists()
    assert stat.S_IMODE((rootfs / "tmp").stat().st_mode) == 0o1777


def test_containers_need_no_configuration(rootfs: Path, tmp_path: Path) -> None:
    """A Debian gets files for podman and buildah, and programs that lend ids without being setuid; its own files stay."""
    lenders = [entry(f"usr/bin/new{name}map", b"#!", mode=0o4755) for name in ("uid", "gid")]
    system = [*SYSTEM, entry("etc/dpkg/dpkg.cfg.d/"), entry("usr/lib/"), *lenders]
    path = archive(tmp_path / "a.tar", *system, entry("etc/containers/storage.conf", b"own"))
    _unpacked(rootfs, path)
    assert (rootfs / "etc/containers/storage.conf").read_text() == "own"
    told = tomllib.loads((rootfs / "etc/containers/containers.conf.d/irons.conf").read_text())
    assert (told["containers"]["cgroups"], told["engine"]["runtime"]) == ("disabled", "crun")
    assert tomllib.loads(nested.STORAGE["etc/containers/storage.conf"].text)["storage"]["driver"] == "vfs"
    for name, number in (("uid", 7), ("gid", 6)):
        program = rootfs / f"usr/bin/new{name}map"
        assert stat.S_IMODE(program.stat().st_mode) == 0o755
        assert os.getxattr(program, "security.capability")[4:8] == (1 << number).to_bytes(4, "little")
    hook = (rootfs / "etc/dpkg/dpkg.cfg.d/irons").read_text().strip().partition("=")
    assert (hook[0], (rootfs / hook[2].lstrip("/")).stat().st_mode & 0o777) == ("post-invoke", 0o755)


def test_no_other_image_is_configured_for_containers(rootfs: Path, tmp_path: Path) -> None:
    """What is not a Debian, or has a configuration for containers, is left as it is."""
    own = [entry("etc/dpkg/"), entry("etc/containers/containers.conf", b"own")]
    _unpacked(rootfs, archive(tmp_path / "a.tar", *SYSTEM, *own))
    assert {path.name for path in (rootfs / "etc/containers").iterdir()} == {
        "containers.conf",
        "storage.conf",
    }
    assert not (rootfs / "usr/lib/irons").exists()


def test_programs_that_lend_ids_are_seen_to_after_each_installation(tmp_path: Path) -> None:
    """What dpkg unpacked setuid gets a file capability in its place; without setcap it stays as it is."""
    program, log = tmp_path / "newuidmap", tmp_path / "log"
    program.touch()
    program.chmod(0o4755)
    hook = next(file.text for path, file in nested.HOOK.items() if path.startswith("usr/"))
    script = hook.replace("/usr/bin/", f"{tmp_path}/")
    run = functools.partial(subprocess.run, ["/bin/sh", "-c", script], check=True)
    run(env={"PATH": str(tmp_path)})
    assert program.stat().st_mode & stat.S_ISUID
    setcap = tmp_path / "setcap"
    setcap.write_text(f'#!/bin/sh\necho "$@" >>{log}\n')
    setcap.chmod(0o755)
    run(env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    run(env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert not program.stat().st_mode & stat.S_ISUID
    assert log.read_text() == f"cap_setuid+ep {program}\n"


def test_a_file_takes_a_directorys_place_and_the_other_way_round(rootfs: Path, tmp_path: Path) -> None:
    """What comes later in an archive is what counts."""
    path = archive(
        tmp_path / "a.tar",
        *SYSTEM,
        entry("srv/a/b", b"1"),
        entry("srv/a", b"file now"),
        entry("opt/a", b"1"),
        entry("opt/a/b", b"in a directory now"),
        entry("usr/lib", type=tarfile.SYMTYPE, linkname="share"),
        entry("usr/share/"),
        entry("usr/lib/"),
        entry("usr/lib/x", b"1"),
    )
    _unpacked(rootfs, path)
    assert (rootfs / "srv/a").read_text() == "file now"
    assert (rootfs / "opt/a/b").exists()
    assert (rootfs / "usr/share/x").exists()


def test_an_image_whose_etc_is_a_link_is_refused(rootfs: Path, tmp_path: Path) -> None:
    """Accounts are never written through a link."""
    others = [each for each in SYSTEM if not each[0].startswith("etc")]
    path = archive(tmp_path / "a.tar", *others, entry("etc", type=tarfile.SYMTYPE, linkname="/elsewhere"))
    with pytest.raises(EngineError, match="/etc is not a directory"):
        _unpacked(rootfs, path)


def test_an_entry_of_an_unknown_type_is_refused(rootfs: Path, tmp_path: Path) -> None:
    """What isn't understood isn't guessed at."""
    with pytest.raises(EngineError, match="unknown type"):
        _unpacked(rootfs, archive(tmp_path / "a.tar", *SYSTEM, entry("srv/x", type=b"Z")))


@pytest.mark.parametrize("data", [docker_archive(), oci_archive()], ids=["docker", "oci"])
def test_layers_are_laid_over_one_another(rootfs: Path, tmp_path: Path, data: bytes) -> None:
    """Each layer adds, replaces and removes."""
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    found, _ = _unpacked(rootfs, path)
    assert found["os"] == "Two"
    assert [each.name for each in (rootfs / "opt").iterdir()] == ["c"]
    assert list((rootfs / "srv").iterdir()) == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a tar archive"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (oci_archive("pdp11"), "no image for"),
        (tar_bytes(entry("manifest.json", b'[{"Layers": ["gone"]}]')), "gone"),
        (tar_bytes(entry("manifest.json", b"not json")), "not JSON"),
        (tar_bytes(entry("index.json", b'{"manifests": [{"digest": "sha256:x"}]}')), "blobs/sha256/x"),
        (tar_bytes(entry("manifest.json", b'[{"Layers": ["l"]}]'), entry("l", b"no tar")), "layer l"),
        (tar_bytes(), "empty"),
        (tar_bytes(*SYSTEM)[:1700], "damaged"),
        (tar_bytes(entry("manifest.json", b"[3]")), "not in the form"),
        (tar_bytes(entry("manifest.json", b"[" * 100_000)), "not in the form"),
        (tar_bytes(entry("index.json", b'{"manifests": [{"platform": []}]}')), "not in the form"),
        (
            tar_bytes(entry("manifest.json", type=tarfile.SYMTYPE, linkname="manifest.json")),
            "a link to itself",
        ),
    ],
    ids=[
        *("none", "zstd", "other processor", "no layer", "no json", "no blob", "no tar", "empty", "cut"),
        *("a number", "deep", "a list", "itself"),
    ],
)
def test_what_cannot_be_read_is_said(rootfs: Path, tmp_path: Path, data: bytes, says: str) -> None:
    """Every kind of unreadable archive has its own line."""
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    with pytest.raises(EngineError, match=says):
        _unpacked(rootfs, path)


def _greedy() -> bytes:
    """An archive compressed with xz whose block asks for a dictionary of 3 GiB (The .xz File Format, 3.1 and 5.3.1)."""
    data = bytearray(lzma.compress(tar_bytes(*SYSTEM), format=lzma.FORMAT_XZ))
    length = (data[12] + 1) * 4
    block = data[12 : 12 + length]
    assert block[2:4] == b"\x21\x01"
    block[4] = 39
    block[-4:] = zlib.crc32(block[:-4]).to_bytes(4, "little")
    data[12 : 12 + length] = block
    return bytes(data)


@pytest.mark.parametrize("stream", [False, True])
def test_an_archive_cannot_take_all_memory(rootfs: Path, tmp_path: Path, stream: bool) -> None:
    """What its compression, or a header, would have kept in memory is bounded, and the refusal names the bound."""
    path = tmp_path / "a.tar"
    if stream:
        header = tarfile.TarInfo("././@LongLink")
        header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2 << 30
        path.write_bytes(header.tobuf())
        os.truncate(path, 512 + (2 << 30))
    else:
        path.write_bytes(_greedy())
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(EngineError, match=r"takes more than 1 GiB of memory"):
        _unpacked(rootfs, path, stream=stream)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(rootfs: Path, tmp_path: Path) -> None:
    """An archive whose os-release is a pipe without a writer holds nothing up."""
    others = [each for each in SYSTEM if each[0] != "etc/os-release"]
    path = archive(tmp_path / "a.tar", *others, entry("etc/os-release", type=tarfile.FIFOTYPE))
    assert _unpacked(rootfs, path)[0]["os"] == "unknown"


def test_a_pipe_in_the_skeleton_is_refused(rootfs: Path, tmp_path: Path) -> None:
    """What can't be copied into a home is named."""
    path = archive(tmp_path / "a.tar", *SYSTEM, entry("etc/skel/pipe", type=tarfile.FIFOTYPE))
    with pytest.raises(EngineError, match="named pipe"):
        _unpacked(rootfs, path)


def test_an_account_of_that_name_stays_as_it_is(rootfs: Path, tmp_path: Path) -> None:
    """An image that brings its own user `irons` keeps it, and missing files are made."""
    passwd = b"root:x:0:0::/root:/bin/sh\nirons:x:5:5::/home/own:/bin/sh"
    others = [each for each in SYSTEM if each[0] not in ("etc/passwd", "etc/shadow", "etc/os-release")]
    found, _ = _unpacked(rootfs, archive(tmp_path / "a.tar", *others, entry("etc/passwd", passwd)))
    lines = (rootfs / "etc/passwd").read_text().splitlines()
    assert lines[1] == "irons:x:5:5::/home/own:/bin/sh"
    assert lines[2].startswith("sshd:x:100:")
    assert (rootfs / "etc/shadow").read_text().startswith("sshd:*:")
    assert (found["os"], found["tini"]) == ("unknown", "")


def test_what_is_packed_is_what_was_there(rootfs: Path, tmp_path: Path) -> None:
    """Packed and unpacked again, files are the same; keys stay out where that is asked."""
    source = tmp_path / "source"
    for directory in ("etc/ssh", "root/.ssh", "home/irons/.ssh", "proc/1", "srv"):
        (source / directory).mkdir(parents=True)
    for secret in (
        "etc/ssh/ssh_host_rsa_key",
        "root/.ssh/authorized_keys",
        "home/irons/.ssh/authorized_keys2",
    ):
        (source / secret).write_text("secret")
    (source / "proc/1/status").write_text("not of the image")
    (source / "srv/a").write_text("a" * 1000)
    os.link(source / "srv/a", source / "srv/b")
    (source / "srv/l").symlink_to("a")
    os.mkfifo(source / "srv/p")
    os.setxattr(source / "srv/a", "security.capability", CAPABILITY)
    found = _packed(source, tmp_path / "out.tar", without_keys=True)
    assert found["size"] == 1000
    with tarfile.open(tmp_path / "out.tar") as tar:
        names = set(tar.getnames())
        capable = tar.getmember("srv/a").pax_headers
    assert "secret" not in (tmp_path / "out.tar").read_text(errors="replace")
    assert {"srv/a", "srv/b", "srv/l", "srv/p", "proc", "etc/ssh", "root/.ssh"} <= names
    assert "proc/1/status" not in names
    assert "SCHILY.xattr.security.capability" in capable
    _packed(source, tmp_path / "all.tar")
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert "root/.ssh/authorized_keys" in tar.getnames()


def test_what_cannot_be_packed_is_said(rootfs: Path, tmp_path: Path) -> None:
    """A full disk, or a file that can't be read, is one clear line."""
    (rootfs / "file").write_bytes(bytes(1 << 20))
    directory, full = os.open(rootfs, os.O_RDONLY), os.open("/dev/full", os.O_WRONLY)
    try:
        request = {"rootfs": directory, "archive": full, "size": 0, "without_keys": False}
        with pytest.raises(EngineError, match="disk is full") as caught:
            pack.pack(request, lambda _line, _done: None)
    finally:
        os.close(directory)
        os.close(full)
    assert caught.value.code == "limit"


# Holes

TIB = 1 << 40
SPARSE = [(0, b"begin"), (3 << 20, b"middle" * 10_000), ((3 << 30) + 7, b"end")]


def _sparse(path: Path, size: int, pieces: list[tuple[int, bytes]]) -> None:
    """A file with data in some places only."""
    with path.open("wb") as file:
        for at, data in pieces:
            file.seek(at)
            file.write(data)
        file.truncate(size)


def _same(path: Path, size: int, pieces: list[tuple[int, bytes]]) -> None:
    found = path.stat()
    assert found.st_size == size
    assert found.st_blocks * 512 < 1 << 20
    with path.open("rb") as file:
        for at, data in pieces:
            file.seek(at)
            assert file.read(len(data)) == data
            if at + len(data) < size:
                assert file.read(1) == b"\0"


@pytest.mark.parametrize("size", [(3 << 30) + 10, 4 * TIB])
def test_holes_stay_holes(rootfs: Path, tmp_path: Path, size: int) -> None:
    """A sparse file costs its blocks in the archive, on the way back, and for GNU tar; it keeps mode and capability."""
    source = tmp_path / "source"
    for directory in ("etc", "usr/sbin", "bin", "srv"):
        (source / directory).mkdir(parents=True)
    (source / "etc/passwd").write_text(
        "root:x:0:0::/:/bin/sh\nsshd:x:1:1::/:/bin/sh\nirons:x:5:5::/:/bin/sh\n"
    )
    (source / "usr/sbin/sshd").touch(mode=0o755)
    _sparse(source / "srv/big", size, SPARSE)
    (source / "srv/big").chmod(0o4755)
    os.setxattr(source / "srv/big", "security.capability", CAPABILITY)
    _sparse(source / "srv/empty", size, [])
    os.link(source / "srv/big", source / "srv/same")
    packed = tmp_path / "out.tar"
    found = _packed(source, packed)
    assert found["size"] < 1 << 20
    assert packed.stat().st_size < 1 << 20
    _unpacked(rootfs, packed, stream=True)
    for root in (rootfs, tmp_path / "gnu"):
        if root.name == "gnu":
            root.mkdir()
            words = [
                "tar",
                "--extract",
                "--preserve-permissions",
                "--file",
                str(packed),
                "--directory",
                str(root),
            ]
            subprocess.run(words, check=True, timeout=60)
        _same(root / "srv/big", size, SPARSE)
        _same(root / "srv/empty", size, [])
        assert (root / "srv/big").stat().st_ino == (root / "srv/same").stat().st_ino
        assert (root / "srv/big").stat().st_mode & 0o7777 == 0o4755
    assert os.getxattr(rootfs / "srv/big", "security.capability") == CAPABILITY


@pytest.mark.parametrize(
    "form",
    [["--format=gnu"], *(["--format=pax", f"--sparse-version={each}"] for each in ("0.0", "0.1", "1.0"))],
)
def test_an_imported_archive_keeps_its_holes(rootfs: Path, tmp_path: Path, form: list[str]) -> None:
    """In each form that GNU tar writes them in, a hole is not unpacked as zeros."""
    archive(tmp_path / "base.tar", *SYSTEM)
    _unpacked(rootfs, tmp_path / "base.tar")
    _sparse(rootfs / "hole", TIB, SPARSE)
    words = [
        "tar",
        "--create",
        "--sparse",
        *form,
        "--file",
        str(tmp_path / "a.tar"),
        "--directory",
        str(rootfs),
        ".",
    ]
    subprocess.run(words, check=True, timeout=60)
    again = tmp_path / "again"
    again.mkdir()
    _unpacked(again, tmp_path / "a.tar")
    _same(again / "hole", TIB, SPARSE)


@pytest.mark.parametrize(
    "numbers", ["1 -5 3", "1 0 99999999999999999999", "1 99999999999999999999 3", "x", "1 0"]
)
def test_a_map_of_holes_that_is_none_is_refused(rootfs: Path, tmp_path: Path, numbers: str) -> None:
    """Positions before the beginning, beyond every disk or no numbers are a damaged archive, in one line."""
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "f",
        "GNU.sparse.realsize": "1000",
    }
    data = "".join(f"{number}\n" for number in numbers.split()).encode().ljust(512, b"\0") + b"abc" * 2
    archive(tmp_path / "a.tar", *SYSTEM, entry("GNUSparseFile.0/f", data, pax_headers=headers))
    with pytest.raises(EngineError) as caught:
        _unpacked(rootfs, tmp_path / "a.tar", stream=True)
    assert caught.value.code == "image"
    assert "\n" not in caught.value.message


def test_more_than_the_blocks_in_use_is_refused(
    tmp_path: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a disk does not tell holes from data, a file that would be read as zeros is refused before it is read."""

    def without_holes(*_: object) -> int:
        raise OSError(errno.EINVAL, "no such seek")

    monkeypatch.setattr(os, "lseek", without_holes)
    _sparse(rootfs / "big", 4 * TIB, [])
    with pytest.raises(EngineError, match=r"big holds more than 16 times the blocks it uses") as caught:
        _packed(rootfs, tmp_path / "out.tar")
    assert caught.value.code == "limit"
    assert (tmp_path / "out.tar").stat().st_size < 1 << 20


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of 10 GiB on which 270 MiB are free, less what is written."""
    real, left = os.fstatvfs, [270 << 20]

    def fstatvfs(descriptor: int) -> object:
        found = real(descriptor)
        left[0] -= 8 << 20
        values = {name: getattr(found, name) for name in dir(found) if name.startswith("f_")}
        return SimpleNamespace(
            **{**values, "f_frsize": 1, "f_blocks": 10 << 30, "f_bavail": left[0], "f_files": 0}
        )

    monkeypatch.setattr(os, "fstatvfs", fstatvfs)


@pytest.mark.usefixtures("little_room")
def test_the_disk_is_never_filled(rootfs: Path, tmp_path: Path) -> None:
    """Packing and unpacking end while there is still room for the records of what runs."""
    (tmp_path / "source").mkdir()
    for number in range(20):
        (tmp_path / "source" / f"f{number}").write_bytes(os.urandom(1 << 20))
    with pytest.raises(EngineError, match="the archive does not fit, and 256 MiB must stay free") as packing:
        _packed(tmp_path / "source", tmp_path / "out.tar")
    assert (tmp_path / "out.tar").stat().st_size < 19 << 20
    archive(tmp_path / "a.tar", *(entry(f"f{number}", bytes(1 << 20)) for number in range(20)))
    with pytest.raises(EngineError, match="the image does not fit") as unpacking:
        _unpacked(rootfs, tmp_path / "a.tar")
    assert packing.value.code == unpacking.value.code == "limit"


@pytest.mark.parametrize("path", ["etc/passwd", "etc/group", "etc/skel/big"])
def test_what_an_image_hides_in_its_own_files_is_not_read_as_zeros(
    rootfs: Path, tmp_path: Path, path: str
) -> None:
    """Accounts and the skeleton of a home are read, and copied, up to a size only."""
    archive(tmp_path / "a.tar", *SYSTEM, entry("etc/skel/"))
    (tmp_path / "first").mkdir()
    _unpacked(tmp_path / "first", tmp_path / "a.tar")
    (tmp_path / "first" / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    with (tmp_path / "first" / path).open("ab") as file:
        file.truncate(TIB)
    shutil.rmtree(tmp_path / "first" / "home")
    _packed(tmp_path / "first", tmp_path / "b.tar")
    with pytest.raises(EngineError, match=r"is larger than \d+ MiB"):
        _unpacked(rootfs, tmp_path / "b.tar", stream=True)
