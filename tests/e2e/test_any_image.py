"""Images without an SSH server: a musl one with a shell, and one that holds a single program."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Person
from tests.machine import Machine

_BUSYBOX = Path("/bin/busybox")
_MUSL = "/lib/ld-musl-x86_64.so.1"
_APPLETS = ("sh", "ls", "cat", "id", "env", "grep", "dd", "sleep", "kill")


def lay(
    tar: tarfile.TarFile, name: str, data: bytes | None = None, *, mode: int = 0o755, link: str = ""
) -> None:
    """Put a directory, a file or a link into an archive."""
    member = tarfile.TarInfo(name)
    member.mode = mode
    if link:
        member.type, member.linkname = tarfile.SYMTYPE, link
    elif data is None:
        member.type = tarfile.DIRTYPE
    else:
        member.size = len(data)
    tar.addfile(member, io.BytesIO(data) if data is not None else None)


def alpine_like(path: Path) -> None:
    """An image of musl and busybox, whose root account is locked; as small distributions are."""
    with tarfile.open(path, "w") as tar:
        for name in ("bin", "etc", "lib", "root"):
            lay(tar, name)
        lay(tar, "bin/busybox", _BUSYBOX.read_bytes())
        for name in _APPLETS:
            lay(tar, f"bin/{name}", link="/bin/busybox")
        if Path(_MUSL).exists():
            lay(tar, _MUSL.lstrip("/"), Path(_MUSL).read_bytes())
        lay(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/ash\n", mode=0o644)
        lay(tar, "etc/shadow", b"root:!::0:::::\n", mode=0o640)
        lay(tar, "etc/os-release", b'PRETTY_NAME="Little Linux"\n', mode=0o644)


def distroless(path: Path) -> None:
    """An image of one program."""
    with tarfile.open(path, "w") as tar:
        for name in ("opt", "opt/app"):
            lay(tar, name)
        lay(tar, "opt/app/busybox", _BUSYBOX.read_bytes())


@pytest.fixture(scope="session")
def tars(place: Path, machine: Machine) -> dict[str, Path]:
    """The images by name, as files that every user can read."""
    machine.require("busybox")
    made = {"little": place / "little.tar", "bare": place / "bare.tar"}
    alpine_like(made["little"])
    distroless(made["bare"])
    return made


@pytest.fixture
def images(person: Person, tars: dict[str, Path]) -> Iterator[None]:
    """The images, imported; the sandboxes that are called like them are destroyed again."""
    for name, tar in tars.items():
        person.ok("local", "image", "import", str(tar), "--as", name)
    yield
    for name in tars:
        person.run("destroy", name, "--force", timeout=120)
        person.ok("local", "image", "remove", name)


@pytest.mark.usefixtures("images")
def test_an_image_needs_no_ssh_server_no_glibc_and_no_shell(person: Person) -> None:
    """One logs in as root, runs its programs, copies files both ways, and cannot change the kit that serves."""
    for name in ("little", "bare"):
        person.ok("create", name, "--image", name, timeout=180)
        assert "root" in person.ok("status", name)
    script = "id -u; echo x 2>/dev/null >/run/irons/kit/sshd || echo read-only"
    assert person.inside("little", script).stdout == "0\nread-only\n"
    assert person.ok("exec", "little", "--", "cat", "/etc/os-release") == 'PRETTY_NAME="Little Linux"\n'
    busybox = "/opt/app/busybox"
    assert person.ok("exec", "bare", "--", busybox, "id", "-u") == "0\n"
    assert (
        person.ok("exec", "bare", "--", "sh", "-c", "command -v ls; ls /opt/app")
        == "/run/irons/kit/ls\nbusybox\n"
    )
    note = person.home / "note"
    note.write_text("kept\n")
    note.chmod(0o644)
    person.ok("scp", str(note), "bare:/opt/app/note")
    assert person.ok("exec", "bare", "--", busybox, "cat", "/opt/app/note") == "kept\n"
