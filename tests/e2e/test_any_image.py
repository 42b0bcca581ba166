"""Images without an SSH server, imported and pulled from a registry: a Debian, a musl one, and one that holds a single program."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lab import Lab, Person, eventually
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
        person.run("destroy", name, "--force", timeout=180)
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


_REGISTRY = "127.0.0.1:5571"
_DEBIAN = ("bash", "cat", "dash", "env", "id", "ls", "pwd", "grep", "dd")


def debian(path: Path, whole: Path) -> None:
    """A Debian of a few programs, taken from the default image; it has neither an SSH server nor sudo."""
    with tarfile.open(whole) as source, tarfile.open(path, "w") as tar:
        for member in source:
            name = member.name.removeprefix("./")
            parent, _, base = name.rpartition("/")
            wanted = (
                name
                in (
                    "bin",
                    "lib",
                    "lib64",
                    "usr",
                    "usr/bin",
                    "etc",
                    "etc/passwd",
                    "etc/profile",
                    "etc/profile.d",
                )
                or (parent == "usr/bin" and base in (*_DEBIAN, "sh"))
                or (
                    parent.startswith(("usr/lib", "lib"))
                    and base.startswith(("ld-", "libc.so", "libtinfo", "libselinux", "libpcre2"))
                )
            )
            if wanted and not base.startswith("libcap"):
                tar.addfile(member, source.extractfile(member) if member.isreg() else None)


def as_docker(path: Path, layer: Path, config: dict[str, Any]) -> Path:
    """What `docker save` writes of an image of one layer."""
    with tarfile.open(path, "w") as tar:
        digest = f"sha256:{hashlib.sha256(layer.read_bytes()).hexdigest()}"
        machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
        rootfs = {"type": "layers", "diff_ids": [digest]}
        body = {"architecture": machine, "os": "linux", "config": config, "rootfs": rootfs}
        manifest = [{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}]
        lay(tar, "config.json", json.dumps(body).encode(), mode=0o644)
        lay(tar, "layer.tar", layer.read_bytes(), mode=0o644)
        lay(tar, "manifest.json", json.dumps(manifest).encode(), mode=0o644)
    return path


@pytest.fixture(scope="session")
def registry(lab: Lab, place: Path, machine: Machine) -> Iterator[Path]:
    """The files of a registry at a loopback address of the lab's host."""
    machine.require("docker-registry", "skopeo")
    room = place / "image-registry"
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(room)}},
        "http": {"addr": _REGISTRY},
    }
    (place / "image-registry.yml").write_text(json.dumps(config))
    words = [*lab.enter(), "docker-registry", "serve", str(place / "image-registry.yml")]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            ask = [*lab.enter(), "curl", "-sf", f"http://{_REGISTRY}/v2/"]
            eventually(lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0)
            yield room
        finally:
            running.terminate()


def push(lab: Lab, archive: Path, name: str) -> None:
    """Put an archive into the registry."""
    words = [
        "skopeo",
        "copy",
        "--dest-tls-verify=false",
        f"docker-archive:{archive}",
        f"docker://{_REGISTRY}/{name}",
    ]
    subprocess.run([*lab.enter(), *words], check=True, capture_output=True, timeout=180)


def test_create_pulls_an_image_that_is_not_there(
    person: Person, lab: Lab, place: Path, image_tar: Path, tars: dict[str, Path], registry: Path
) -> None:
    """`status` shows it; variables, directory and user are the image's; a digest is checked, and so is each layer."""
    debian(place / "cut.tar", image_tar)
    images: dict[str, tuple[Path, dict[str, Any], str]] = {
        "cut": (
            place / "cut.tar",
            {"Env": ["PATH=/opt/mine:/usr/bin:/bin", "SAID=by the image"], "WorkingDir": "/etc"},
            "0\n/etc\nby the image\n",
        ),
        "little": (tars["little"], {"Env": ["SAID=by musl"], "WorkingDir": "/lib"}, "0\n/lib\nby musl\n"),
        "bare": (
            tars["bare"],
            {"Env": ["SAID=by the app"], "WorkingDir": "/opt/app", "User": "65532", "Entrypoint": ["/none"]},
            "65532\n/opt/app\nby the app\n",
        ),
    }
    for name, (tar, config, _) in images.items():
        push(lab, as_docker(place / f"{name}-docker.tar", tar, config), f"{name}:1")
    try:
        for name, (_, _, expected) in images.items():
            made = person.run("create", name, "--image", f"{_REGISTRY}/{name}:1", timeout=180)
            assert made.returncode == 0, made.stderr
            assert "pulling it" in made.stderr
            program = "/opt/app/busybox id" if name == "bare" else "id"
            ran = person.inside(name, f'{program} -u; pwd; echo "$SAID"')
            assert ran.stdout == expected, ran.stderr
        assert person.inside("cut", 'echo "${PATH%%:*}"').stdout == "/opt/mine\n"
        rows = {row["name"]: row for row in json.loads(person.ok("local", "image", "list", "-o", "json"))}
        pulled = rows[f"{_REGISTRY}/cut:1"]["digest"]
        assert person.ok("exec", "cut", "--", "bash", "-lc", "echo ${PATH%%:*}") == "/opt/mine\n"
        person.ok("local", "image", "pull", f"{_REGISTRY}/cut@{pulled}", "--as", "again")
        missing = person.run("create", "none", "--image", f"{_REGISTRY}/none:1")
        assert (missing.returncode, "not fetched" in missing.stderr) == (3, True)
        for blob in registry.rglob("data"):
            if blob.stat().st_size > 10_000:
                blob.write_bytes(blob.read_bytes()[:-9] + b"different")
        spoiled = person.run("local", "image", "pull", f"{_REGISTRY}/bare:1", "--as", "spoiled")
        assert spoiled.returncode == 1, spoiled.stderr
        assert "spoiled" not in person.ok("local", "image", "list")
    finally:
        for name in images:
            person.run("destroy", name, "--force", timeout=180)
            person.run("local", "image", "remove", f"{_REGISTRY}/{name}:1")
        person.run("local", "image", "remove", "again")
        shutil.rmtree(registry)


_SERVICE = """
b=/opt/app/busybox
trap 'echo asked >/tmp/end; exit 7' TERM
echo $$ >/tmp/pid
ignored=$($b grep -c 'SigIgn:.*[014589cd]$' /proc/$$/status)
echo "up: $($b id -u) $PWD $ignored $SAID" >/dev/stdout
while :; do $b sleep 0.1; done
"""


def test_an_entrypoint_runs_where_it_is_asked_for(person: Person, place: Path, tars: dict[str, Path]) -> None:
    """It is the image's user, goes on, prints to the boot log, is asked to end at a stop, and leaves its exit code."""
    config = {
        "Env": ["SAID=by the app"],
        "WorkingDir": "/opt/app",
        "User": "65532",
        "Entrypoint": ["/opt/app/busybox", "sh", "-c"],
        "Cmd": [_SERVICE],
    }

    def told(fact: str) -> object:
        facts: dict[str, object] = json.loads(person.ok("status", "svc", "-o", "json"))["metadata"]
        return facts.get(fact)

    app = as_docker(place / "app-docker.tar", tars["bare"], config)
    person.ok("local", "image", "import", str(app), "--as", "app")
    person.ok("local", "image", "import", str(tars["bare"]), "--as", "plain")
    try:
        refused = person.run("create", "svc", "--image", "plain", "--entrypoint")
        assert (refused.returncode, "names no entrypoint" in refused.stderr) == (1, True), refused.stderr
        person.ok("create", "svc", "--image", "app", "--entrypoint", timeout=180)
        up = "up: 65532 /opt/app 1 by the app\n"
        eventually(lambda: up in person.ok("local", "logs", "--sandbox", "svc"), what="what it prints")
        alone = json.loads(
            person.ok("local", "logs", "--sandbox", "svc", "--console", "-n", "500", "-o", "json")
        )
        assert up.strip() in {each["line"] for each in alone}
        assert {each["process"] for each in alone} == {"svc"}
        assert person.run("local", "logs", "--console").returncode == 2
        assert told("entrypoint") == "running"
        person.ok("stop", "svc", timeout=180)
        person.ok("start", "svc", "--no-boot", timeout=180)
        assert person.inside("svc", "cat /tmp/end; rm /tmp/end /tmp/pid").stdout == "asked\n"
        assert told("entrypoint") is None
        person.ok("stop", "svc", timeout=180)
        person.ok("start", "svc", timeout=180)
        eventually(lambda: person.inside("svc", "kill $(cat /tmp/pid)").returncode == 0, what="its start")
        eventually(lambda: told("entrypoint") == "done", what="its end")
        assert (told("entrypoint_exit"), told("boot_exit")) == (7, 0)
    finally:
        person.run("destroy", "svc", "--force", timeout=180)
        for name in ("app", "plain"):
            person.run("local", "image", "remove", name)


_LOCKED = "127.0.0.1:5572"


@pytest.fixture
def locked_registry(
    lab: Lab, place: Path, machine: Machine, tmp_path: Path, tars: dict[str, Path]
) -> Iterator[str]:
    """A registry that only `reader` may read, with the password `right`; gives the name of an image in it."""
    machine.require("docker-registry", "skopeo", "htpasswd")
    users = tmp_path / "htpasswd"
    told = subprocess.run(["htpasswd", "-Bbn", "-C", "4", "reader", "right"], capture_output=True, check=True)
    users.write_bytes(told.stdout)
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "files")}},
        "http": {"addr": _LOCKED},
        "auth": {"htpasswd": {"realm": "test", "path": str(users)}},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(config))
    archive = as_docker(tmp_path / "bare.tar", tars["bare"], {})
    words = [*lab.enter(), "docker-registry", "serve", str(tmp_path / "registry.yml")]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            ask = [*lab.enter(), "curl", "-sf", "-u", "reader:right", f"http://{_LOCKED}/v2/"]
            eventually(lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0)
            to = f"docker://{_LOCKED}/bare:1"
            push = ["skopeo", "copy", "--dest-tls-verify=false", "--dest-creds", "reader:right"]
            copied = [*lab.enter(), *push, f"docker-archive:{archive}", to]
            subprocess.run(copied, check=True, capture_output=True, timeout=180)
            yield f"{_LOCKED}/bare:1"
        finally:
            running.terminate()


def _credentials(path: Path, person: Person, password: str) -> None:
    """Write what `skopeo login` keeps (containers-auth.json(5))."""
    auth = base64.b64encode(f"reader:{password}".encode()).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {_LOCKED: {"auth": auth}}}))
    owner = person.home.stat()
    for each in (path.parent, path):
        os.chown(each, owner.st_uid, owner.st_gid)


def test_credentials_that_skopeo_keeps_open_a_registry(person: Person, locked_registry: str) -> None:
    """Those of `REGISTRY_AUTH_FILE` and those at the default place; none, or a wrong password, is refused in a sentence."""
    pull = ("local", "image", "pull", locked_registry, "--as", "locked")
    default = Path(person.env["XDG_RUNTIME_DIR"]) / "containers" / "auth.json"
    named = person.home / "auth.json"
    by_file = replace(person, more={**(person.more or {}), "REGISTRY_AUTH_FILE": str(named)})
    try:
        for who, path, password in (
            (person, None, ""),
            (by_file, named, "wrong"),
            (by_file, named, "right"),
            (person, default, "wrong"),
            (person, default, "right"),
        ):
            if path is not None:
                _credentials(path, person, password)
            done = who.run(*pull, timeout=180)
            if password == "right":
                assert done.returncode == 0, done.stderr
                person.ok("local", "image", "remove", "locked")
            else:
                assert done.returncode == 1, done.stderr
                assert f"{locked_registry} was not fetched: " in done.stderr
                assert "authentication required" in done.stderr or "unauthorized" in done.stderr, done.stderr
                assert f"skopeo login {_LOCKED}" in done.stderr
    finally:
        named.unlink(missing_ok=True)
        default.unlink(missing_ok=True)
        person.run("local", "image", "remove", "locked")
