"""Archives for the tests of images, and a place to make images in."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from irons_local.bundle.machine import Machine
from irons_local.engines.protocol import Spec
from irons_local.errors import EngineError
from irons_local.images.catalog import Image, Images
from irons_local.limits import Limits
from irons_local.linux.idmap import outer_map

unpacking = pytest.mark.needs("root", "user-namespaces")
"""For tests that unpack, pack or remove an image."""

Entry = tuple[str, dict[str, Any], bytes]


def entry(name: str, data: bytes = b"", **more: Any) -> Entry:
    """A member of an archive; a directory where the name ends in a slash."""
    if name.endswith("/"):
        more = {"type": tarfile.DIRTYPE, "mode": 0o755, **more}
    return name.rstrip("/") or "/", more, data


SYSTEM = [
    entry("./", type=tarfile.DIRTYPE, mode=0o755),
    entry("etc/"),
    entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/bin/false\n"),
    entry("etc/group", b"root:x:0:\n"),
    entry("etc/shadow", b"root:*:1:0:99999:7:::\n", mode=0o640),
    entry("etc/os-release", b'PRETTY_NAME="Little 1"\n'),
    entry("usr/sbin/sshd", b"#!", mode=0o755),
    entry("bin/sh", b"#!", mode=0o755),
    entry("usr/bin/sudo", b"#!", mode=0o4755),
    entry("etc/sudoers.d/"),
]


def libraries(program: Path) -> dict[str, Path]:
    """The libraries and the loader of a program of this machine, by the name that asks for each."""
    told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    words = [line.split() for line in told.splitlines()]
    named = {line[0]: Path(line[2]) for line in words if "=>" in line and len(line) > 2}
    return {**named, **{line[0].lstrip("/"): Path(line[0]) for line in words if line[0].startswith("/")}}


def with_programs() -> list[Entry]:
    """A system with programs of this machine, in place of an SSH server too, of which a kit can be made."""
    own = [each for each in SYSTEM if each[0] not in ("usr/sbin/sshd", "bin/sh")]
    true = Path("/bin/true")
    here = {
        "usr/sbin/sshd": true,
        "usr/lib/openssh/sshd-session": true,
        "bin/sh": Path("/bin/sh"),
        "bin/cat": Path("/bin/cat"),
    }
    needed = {name: path for program in here.values() for name, path in libraries(program).items()}
    laid = {name if "/" in name else f"usr/lib/{name}": path for name, path in needed.items()}
    return own + [entry(name, path.read_bytes(), mode=0o755) for name, path in {**here, **laid}.items()]


def archive(path: Path, *entries: Entry) -> Path:
    """Write a tar archive."""
    path.write_bytes(tar_bytes(*entries))
    return path


def _fill(tar: tarfile.TarFile, entries: tuple[Entry, ...]) -> None:
    for name, more, data in entries:
        member = tarfile.TarInfo(name)
        # What a tar file says of itself is not always what tarfile would say.
        member.name = name
        member.mode = 0o644
        for key, value in more.items():
            setattr(member, key, value)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def tar_bytes(*entries: Entry) -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _fill(tar, entries)
    return buffer.getvalue()


LOWER = tar_bytes(
    *SYSTEM, entry("srv/"), entry("srv/old", b"1"), entry("opt/"), entry("opt/a", b"1"), entry("opt/b", b"1")
)
UPPER = tar_bytes(
    entry("srv/.wh.old"),
    entry("opt/c", b"2"),
    entry("opt/.wh..wh..opq"),
    entry("etc/os-release", b"PRETTY_NAME=Two\n"),
)


def docker_archive() -> bytes:
    """What `docker save` writes: a manifest and a tar per layer, one of them compressed."""
    manifest = json.dumps([{"Config": "c.json", "Layers": ["l1/layer.tar", "l2/layer.tar"]}]).encode()
    return tar_bytes(
        entry("l1/layer.tar", LOWER),
        entry("l2/layer.tar", gzip.compress(UPPER)),
        entry("manifest.json", manifest),
    )


def oci_archive(architecture: str | None = None) -> bytes:
    """An OCI image layout in a tar, with an index in its index."""
    layers = [{"digest": "sha256:1"}, {"digest": "sha256:2"}]
    platform = {} if architecture is None else {"platform": {"architecture": architecture}}
    inner = {"manifests": [{"digest": "sha256:m", **platform}]}
    return tar_bytes(
        entry("oci-layout", b"{}"),
        entry("index.json", json.dumps({"manifests": [{"digest": "sha256:i"}]}).encode()),
        entry("blobs/sha256/i", json.dumps(inner).encode()),
        entry("blobs/sha256/m", json.dumps({"layers": layers}).encode()),
        entry("blobs/sha256/1", gzip.compress(LOWER)),
        entry("blobs/sha256/2", UPPER),
    )


class Place:
    """A user's images, and somewhere for archives."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = Images(root / "images", root / "sandboxes")

    def imported(self, *entries: Entry, name: str = "little") -> Image:
        """The image of an archive of these entries."""
        return asyncio.run(self.images.import_(archive(self.root / "a.tar", *entries), name))

    def again(self, name: str) -> Image:
        """An image exported and imported, so that it has all its files in one directory."""
        asyncio.run(self.images.export(name, self.root / "again.tar"))
        return asyncio.run(self.images.import_(self.root / "again.tar", "again"))

    def sandbox_on(self, image: Image, name: str = "box", number: int = 1) -> Path:
        """A stopped sandbox's directory, as the engine lays it out."""
        home = self.root / "sandboxes" / f"sb_{number:016x}"
        (home / "upper").mkdir(parents=True)
        (home / "work").mkdir()
        uid = outer_map().host_uid(1)
        os.chown(home / "upper", uid, uid)
        Machine.of(Spec(home.name, name, "", limits=Limits()), image.id, image.name, "key").write(home)
        Machine.mark_laid(home)
        return home

    def refused(self, work: Awaitable[object]) -> EngineError:
        """Why something was refused; nothing may be left of it."""

        async def run() -> object:
            return await work

        with pytest.raises(EngineError) as caught:
            asyncio.run(run())
        assert "\n" not in caught.value.message
        assert self.left() == []
        return caught.value

    def left(self) -> list[str]:
        """What is in the directory of the images, but the locks."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(
                path.name for path in (self.root / "images").iterdir() if not path.name.endswith("lock")
            )
        return []


def ids(path: Path) -> tuple[int, int]:
    """Owner and group of a file as the sandbox will see them."""
    found = path.lstat()
    base = outer_map().host_uid(1)
    return found.st_uid - base, found.st_gid - base


@contextmanager
def make_place() -> Iterator[Place]:
    """A place of its own, all of which is removed again."""
    root = Path(tempfile.mkdtemp(prefix="irons-image-"))
    try:
        yield Place(root)
    finally:
        shutil.rmtree(root)
