"""Package managers inside, with nothing but their mirrors allowed, on the machine's own network where it has some."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Lab, Person

DEBIAN = "deb.debian.org"
PYPI = ("pypi.org", "files.pythonhosted.org")


class OwnNetwork(Lab):
    """The machine itself in place of the lab's host."""

    def enter(self, *, user: str | None = None) -> list[str]:
        """Nothing needs to be entered."""
        assert user is None
        return []


@pytest.fixture(scope="module")
def at_home(place: Path, lab: Lab, image_tar: Path) -> Iterator[Person]:
    """Root on the machine's own network, with a locked sandbox named `packages`."""
    for host in (DEBIAN, *PYPI):
        try:
            socket.create_connection((host, 80), timeout=5).close()
        except OSError:
            pytest.skip(f"{host} can't be reached from this machine")
    home = place / "home"
    for directory in (home, home / "run", home / ".ssh"):
        directory.mkdir(mode=0o700)
    person = Person(replace_lab(lab), home, _program())
    person.ok("local", "image", "import", str(image_tar), "--as", "debian", timeout=300)
    public = home / ".ssh/id_ed25519.pub"
    _keygen(public.with_suffix(""))
    person.ok("create", "packages", "--mode", "deny", timeout=100)
    yield person
    person.run("local", "uninstall", "--purge", "--yes", timeout=180)


def replace_lab(lab: Lab) -> Lab:
    """The lab's directories with the machine's own network."""
    return OwnNetwork(**{name: getattr(lab, name) for name in lab.__dataclass_fields__})


def _program() -> tuple[str, ...]:
    return (sys.executable, "-m", "irons")


def _keygen(file: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)


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
