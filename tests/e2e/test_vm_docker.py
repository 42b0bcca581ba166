"""Docker in a virtual machine: what its containers try is judged and logged like all that the machine tries."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.e2e.conftest import clear_policy
from tests.e2e.images import build_vm_tar
from tests.e2e.lab import Lab, Person, eventually
from tests.e2e.machines import WITHIN, end_all, inside, only_in_test_vm
from tests.machine import Machine

BUSYBOX = ("usr/bin/busybox", "bin/busybox", "./usr/bin/busybox", "./bin/busybox")
PROGRAMS = ("cat", "grep", "httpd", "sh", "sleep", "wget")
PAGE = "hello from the other container"

COMPOSE = """
services:
  page:
    image: tiny
    command: ["httpd", "-f", "-p", "8000", "-h", "/www"]
  asker:
    image: tiny
    depends_on: ["page"]
    command:
      - sh
      - -c
      - >-
        until wget -q -O - http://page:8000/; do sleep 1; done;
        until wget -q -O - http://web.example.test/from-compose; do sleep 1; done;
        until wget -q -O - http://compose.example.test/ 2>&1 | grep 403; do sleep 1; done;
        echo it was refused
version: "3"
"""

RUN = """
cd /home/irons
tries=0
until sudo docker info >/dev/null 2>&1; do
  [ $((tries += 1)) -lt 400 ] || { sudo journalctl -b -u docker -n 30; break; }
  sleep 1
done
sudo docker load -i tiny.tar || exit
ask() {
  tries=0
  while :; do
    said=$(sudo docker run --rm tiny wget -q -O - "$2" 2>&1)
    code=$?
    case "$code $said" in "0 "* | *403*) break ;; esac
    [ $((tries += 1)) -lt 10 ] || break
  done
  echo "$said"
  echo "$1: $code"
}
ask allowed http://web.example.test/from-run
ask denied http://evil.example.test/
ask literal http://203.0.113.66/
"""
"""As the compose file, it tries again where a request got no answer: the gateway resets a connection that has said nothing in its time."""


@pytest.fixture(scope="session")
def docker_image(place: Path) -> Path:
    """An image for virtual machines with Docker and compose, as a tar file: given, or built."""
    ready = os.environ.get("IRONS_TEST_VM_DOCKER_IMAGE")
    # Where the guest's kernel has AppArmor, Docker needs its parser to start a container.
    return (
        Path(ready)
        if ready
        else build_vm_tar(place, "python3-minimal", "apparmor", "docker-compose", "docker.io")
    )


def _tar(*members: tuple[str, bytes | str]) -> bytes:
    """A tar archive of files, and of links where the content is text."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def container_image(machine_image: Path) -> bytes:
    """What `docker save` would write of an image `tiny`: the busybox of a machine's image, and a page."""
    with tarfile.open(machine_image) as tar:
        found = next(each for name in BUSYBOX if (each := _regular(tar, name)) is not None)
    programs = [(f"bin/{name}", "busybox") for name in PROGRAMS]
    layer = _tar(("bin/busybox", found), *programs, ("www/index.html", f"{PAGE}\n".encode()))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["tiny:latest"], "Layers": ["layer.tar"]}]
    return _tar(
        ("config.json", json.dumps(config).encode()),
        ("layer.tar", layer),
        ("manifest.json", json.dumps(manifest).encode()),
    )


def _regular(tar: tarfile.TarFile, name: str) -> bytes | None:
    try:
        member = tar.getmember(name)
    except KeyError:
        return None
    file = tar.extractfile(member) if member.isreg() else None
    return None if file is None else file.read()


@pytest.mark.vm
@only_in_test_vm
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("person", ["user"], indirect=True)
def test_containers_are_judged_and_logged(
    person: Person, lab: Lab, machine: Machine, docker_image: Path, place: Path
) -> None:
    """`docker run` and two services of a compose file reach one another and what is allowed; the rest is refused, and all is logged."""
    machine.require("qemu-system-x86_64", "mke2fs")
    clear_policy(person)
    person.ok("local", "image", "import", str(docker_image), "--as", "debian-vm", timeout=600)
    files = place / "for-docker"
    files.mkdir()
    (files / "tiny.tar").write_bytes(container_image(docker_image))
    (files / "compose.yml").write_text(COMPOSE)
    for path in (files, *files.iterdir()):
        path.chmod(0o755)
    words = ("--engine", "vm", "--memory", "1G", "--mode", "deny", "--allow", "web.example.test")
    try:
        person.ok("create", "docker", *words, "--wait-timeout", f"{WITHIN}s", timeout=WITHIN)
        for name in ("tiny.tar", "compose.yml"):
            person.ok("scp", str(files / name), f"docker:/home/irons/{name}", timeout=WITHIN)
        done = inside(person, "docker", RUN, within=900)
        assert "Loaded image: tiny:latest" in done.stdout, done
        assert '"line": "GET /from-run HTTP/1.1"' in done.stdout, done
        assert [
            line
            for line in done.stdout.splitlines()
            if line.startswith(("allowed: ", "denied: ", "literal: "))
        ] == [
            "allowed: 0",
            "denied: 1",
            "literal: 1",
        ], done

        # Each answer of the Docker of an emulated guest may take more than the minute that compose waits.
        compose = "cd /home/irons; sudo COMPOSE_HTTP_TIMEOUT=800 docker-compose -f compose.yml up --exit-code-from asker 2>&1"
        done = inside(person, "docker", compose, within=900)
        assert done.returncode == 0, done
        assert PAGE in done.stdout, done
        assert '"line": "GET /from-compose HTTP/1.1"' in done.stdout, done
        assert "it was refused" in done.stdout, done

        wanted = {
            ("web.example.test", "allowed"),
            ("evil.example.test", "blocked"),
            ("203.0.113.66", "blocked"),
            ("compose.example.test", "blocked"),
        }
        eventually(
            lambda: wanted <= {(each["host"], each["verdict"]) for each in person.events("docker")},
            what="the events of the containers",
        )
        # What one container asks the other never leaves the machine.
        assert not [each for each in person.events("docker") if each["host"] == "page"]
        lines = {each.get("line") for each in lab.arrived(kind="http")}
        assert {"GET /from-run HTTP/1.1", "GET /from-compose HTTP/1.1"} <= lines
        assert not lab.arrived(kind="http", host="evil.example.test")
        assert not lab.arrived(kind="http", host="compose.example.test")
    finally:
        end_all(person)
