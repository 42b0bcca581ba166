"""irons leaves a machine as it found it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from irons_local.linux.namespaces import birth
from tests.e2e.lab import Person, eventually
from tests.e2e.test_kills import pids
from tests.e2e.test_lasting import end
from tests.local.people import removed, slay


@pytest.mark.parametrize("ordinary", [False, True], ids=["root", "user"])
def test_uninstall_with_purge_leaves_nothing(
    make_person: Callable[..., Person], request: pytest.FixtureRequest, ordinary: bool
) -> None:
    """Sandboxes, images, snapshots, unit, SSH include, state and processes are gone, files of subordinate ids included."""
    if ordinary:
        program, user = request.getfixturevalue("public_program"), request.getfixturevalue("ordinary_user")
        person = make_person(program=program, user=user)
    else:
        person = make_person()
    config = person.home / ".config/irons/config.toml"
    (person.home / ".ssh/config").write_text("Host mine\n  User me\n")
    before = files(person.home)
    person.ok("create", "running", timeout=180)
    person.ok("create", "stopped", timeout=180)
    person.inside("running", "mkdir -p a/b/c; echo x > a/b/c/d; ln -s / a/link")
    person.ok("stop", "stopped")
    for name in ("running", "stopped"):
        person.ok("snapshot", "create", name)
    person.ok("local", "install")
    person.ok("ssh-config", "--install")
    listed = person.ok("local", "uninstall", "--purge", "--dry-run")
    assert "sandbox\trunning" in listed
    assert listed.count("\nsnapshot\t") == 2
    assert "systemd unit\t" in listed
    person.ok("local", "uninstall", "--purge", "--yes", timeout=180)
    left = {path for path in files(person.home) - before if not path.is_dir()}
    assert left == set()
    assert not (person.home / ".local/state/irons").exists()
    assert (person.home / ".ssh/config").read_text() == "Host mine\n  User me\n"
    assert config.exists()
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(person.home) not in processes


def damage_database(person: Person) -> None:
    """Overwrite the database, which no control plane can read then."""
    end(person)
    lose_database(person)
    (state(person) / "irons.db").write_bytes(b"not a database" * 1000)


def lose_database(person: Person) -> None:
    """Remove the database: no one knows of the sandboxes any more."""
    person.run("local", "down")
    for path in state(person).glob("irons.db*"):
        path.unlink()


def outdate(person: Person) -> None:
    """Make the database one of a later irons."""
    person.ok("local", "down")
    with closing(sqlite3.connect(state(person) / "irons.db")) as connection:
        connection.execute("PRAGMA user_version = 9999")


def garble_settings(person: Person) -> None:
    """Make what `local up --listen` keeps unreadable, and have the control plane meet it."""
    (state(person) / "server.json").write_text("{")
    os.kill(pids(person)["server"], signal.SIGKILL)


def kill_keeper(person: Person) -> None:
    """Leave the gateway and the control plane behind, without a keeper and without their runtime directory."""
    slay(pids(person)["keeper"])
    eventually(lambda: removed(person.home / "run/irons"), what="the directory to go")


def freeze(person: Person) -> None:
    """Make the control plane one that does not answer."""
    os.kill(pids(person)["server"], signal.SIGSTOP)


@pytest.mark.parametrize(
    "broken", [damage_database, lose_database, outdate, garble_settings, kill_keeper, freeze]
)
def test_a_purge_needs_nothing_that_works(
    make_person: Callable[..., Person], broken: Callable[[Person], None]
) -> None:
    """No matter what is broken, a purge soon ends every process, sandboxes included, removes every file, and says what it did."""
    person = make_person()
    person.ok("create", "running", timeout=180)
    inside = int(json.loads(person.ok("status", "running", "-o", "json"))["metadata"]["pid"])
    daemon = pids(person)
    broken(person)
    done = person.run("local", "uninstall", "--purge", "--yes", timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert ["sandbox", "running"] in rows
    assert ["state", str(person.home / ".local/state/irons")] in rows
    assert not (person.home / ".local/state/irons").exists()
    assert not (person.home / "run/irons").exists()
    assert not [pid for pid in (inside, *daemon.values()) if birth(pid) is not None]
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(person.home) not in processes


def test_without_a_control_plane_only_a_purge_goes(make_person: Callable[..., Person]) -> None:
    """Uninstalling without `--purge` keeps the records, which takes a control plane: where it can't start, nothing is removed, and the error names the way."""
    person = make_person()
    person.ok("create", "running", timeout=180)
    damage_database(person)
    done = person.run("local", "uninstall", "--yes")
    assert done.returncode == 1
    assert "is damaged" in done.stderr
    assert "--purge" in done.stderr
    assert (state(person) / "irons.db").exists()


def state(person: Person) -> Path:
    """Where the backend of a person keeps its things."""
    return person.home / ".local/state/irons/local"


def files(home: Path) -> set[Path]:
    """All that lies below a home."""
    return set(home.rglob("*"))
