"""irons leaves a machine as it found it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.lab import Person


@pytest.mark.parametrize("ordinary", [False, True], ids=["root", "user"])
def test_uninstall_with_purge_leaves_nothing(
    make_person: Callable[..., Person], request: pytest.FixtureRequest, ordinary: bool
) -> None:
    """Sandboxes, images, unit, SSH include, state and processes are gone, files of subordinate ids included."""
    if ordinary:
        program, user = request.getfixturevalue("public_program"), request.getfixturevalue("ordinary_user")
        person = make_person(program=program, user=user)
    else:
        person = make_person()
    config = person.home / ".config/irons/config.toml"
    (person.home / ".ssh/config").write_text("Host mine\n  User me\n")
    before = files(person.home)
    person.ok("create", "running", timeout=100)
    person.ok("create", "stopped", timeout=100)
    person.inside("running", "mkdir -p a/b/c; echo x > a/b/c/d; ln -s / a/link")
    person.ok("stop", "stopped")
    person.ok("local", "install")
    person.ok("ssh-config", "--install")
    listed = person.ok("local", "uninstall", "--purge", "--dry-run")
    assert "sandbox\trunning" in listed
    assert "systemd unit\t" in listed
    person.ok("local", "uninstall", "--purge", "--yes", timeout=180)
    left = {path for path in files(person.home) - before if not path.is_dir()}
    assert left == set()
    assert not (person.home / ".local/state/irons").exists()
    assert (person.home / ".ssh/config").read_text() == "Host mine\n  User me\n"
    assert config.exists()
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(person.home) not in processes


def files(home: Path) -> set[Path]:
    """All that lies below a home."""
    return set(home.rglob("*"))
