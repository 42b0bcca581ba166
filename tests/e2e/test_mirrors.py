"""Package managers inside, with nothing but their mirrors allowed, on the machine's own network where it has some."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.lab import Lab, Person, becoming
from tests.machine import Machine

DEBIAN = "deb.debian.org"
PYPI = ("pypi.org", "files.pythonhosted.org")


class OwnNetwork(Lab):
    """The machine itself in place of the lab's host."""

    def enter(self, *, user: str | None = None) -> list[str]:
        """Nothing needs to be entered."""
        return becoming(user)


@pytest.fixture(scope="module")
def at_home(person: Person, place: Path, lab: Lab, image_tar: Path, machine: Machine) -> Iterator[Person]:
    """The person on the machine's own network, with a locked sandbox named `packages`."""
    for host in (DEBIAN, *PYPI):
        try:
            socket.create_connection((host, 80), timeout=5).close()
        except OSError:
            machine.miss(f"network: {host} can't be reached", optional=True)
    home = place / f"home-{person.user or 'root'}"
    for directory in (home, home / "run", home / ".ssh"):
        directory.mkdir(mode=0o700)
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / ".ssh/id_ed25519")]
    subprocess.run(words, check=True)
    if person.user:
        subprocess.run(["chown", "-R", f"{person.user}:", str(home)], check=True)
    network = OwnNetwork(lab.host, lab.internet, lab.arrivals_file, lab.directory)
    moved = replace(person, lab=network, home=home)
    moved.ok("local", "image", "import", str(image_tar), "--as", "debian", timeout=300)
    moved.ok("create", "packages", "--mode", "deny", timeout=100)
    yield moved
    moved.run("local", "uninstall", "--purge", "--yes", timeout=180)


def test_apt_and_pip_install_from_allowed_mirrors_and_from_nowhere_else(at_home: Person) -> None:
    """Refused first, then allowed by name, packages are installed; the log names each mirror."""
    refused = at_home.inside("packages", "sudo apt-get update 2>&1", timeout=100)
    assert "403" in refused.stdout
    at_home.ok("egress", "allow", "--sandbox", "packages", DEBIAN, *PYPI)
    install = "sudo apt-get update -q && sudo apt-get install -q -y --no-install-recommends python3-pip"
    installed = at_home.inside("packages", install, timeout=110)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    trusted = " ".join(f"--trusted-host {host}" for host in PYPI)
    pip = f"pip3 install -q --break-system-packages {trusted} six && python3 -c 'import six; print(six.__version__)'"
    done = at_home.inside("packages", pip, timeout=110)
    assert done.stdout.startswith("1."), done.stderr
    passed = {event["host"] for event in at_home.events("packages") if event["verdict"] == "allowed"}
    assert passed >= {DEBIAN, *PYPI}
