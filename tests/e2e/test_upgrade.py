"""Another version of irons comes: its processes take the place of the older ones, and sandboxes do not notice."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from irons.version import __version__
from tests.e2e.lab import Person, eventually
from tests.e2e.test_kills import Session, assert_recorded_once, pids, session

Version = Callable[[str], Person]


@pytest.fixture
def as_version(person: Person, sandbox: str) -> Iterator[Version]:
    """The same person with an irons of another version, which a module put in front of all others makes it say of itself."""
    person.ok("status", sandbox)

    def other(version: str) -> Person:
        directory = person.home / f"version-{version}"
        directory.mkdir(mode=0o755)
        lines = ["import irons.version", f"irons.version.__version__ = {version!r}"]
        (directory / "sitecustomize.py").write_text("\n".join(lines) + "\n")
        return replace(person, more={"PYTHONPATH": str(directory)})

    yield other
    person.run("local", "down")


def versions(person: Person) -> set[str]:
    """What versions the backend's processes have."""
    return {row["version"] for row in json.loads(person.ok("local", "status", "-o", "json"))}


def inner(person: Person, sandbox: str) -> str:
    """Process 1 of a sandbox."""
    return str(json.loads(person.ok("status", sandbox, "-o", "json"))["metadata"]["pid"])


def test_a_newer_irons_replaces_the_daemon_and_no_sandbox_notices(
    person: Person, sandbox: str, as_version: Version
) -> None:
    """All three processes are replaced by `up`; the sandbox, its sessions and its rules go on, and each attempt has its event."""
    older = as_version("0.0.1")
    mark = len(person.lab.arrivals())
    person.ok("local", "down")
    older.ok("egress", "allow", "--sandbox", sandbox, "web.example.test")
    assert versions(older) == {"0.0.1"}
    before, machine = pids(older), inner(older, sandbox)
    follow = ("audit", "egress", sandbox, "--follow", "-o", "jsonl")
    with session(older, sandbox) as inside, older.start(*follow) as follower:
        assert inside.request() == "200"
        await_host(follower, inside)
        inside.begin_request()
        person.ok("local", "up")
        assert inside.end().strip() in ("200", "000")
        assert versions(person) == {__version__}
        after = pids(person)
        assert not set(before.values()) & set(after.values())
        assert inner(person, sandbox) == machine
        assert inside.request() == "200"
        await_host(follower, inside)
        assert "web.example.test" in person.ok("egress", "list", "--sandbox", sandbox)
    assert_recorded_once(person, sandbox, mark, 2)


def await_host(follower: subprocess.Popen[str], inside: Session) -> None:
    """Read what follows the log until it tells of the last request."""
    assert follower.stdout is not None
    for line in follower.stdout:
        if json.loads(line)["host"] == f"203.0.113.{inside.asked[-1]}":
            return
    raise AssertionError("following ended")


def test_a_newer_daemon_is_left_alone(person: Person, sandbox: str, as_version: Version) -> None:
    """An older irons says so with what to do, and changes nothing; ssh goes on."""
    newer = as_version("99.0")
    newer.ok("local", "up")
    eventually(lambda: versions(newer) == {"99.0"}, what="the newer daemon")
    before = pids(newer)
    refused = person.run("list")
    assert refused.returncode == 1
    assert "version 99.0, newer than this one" in refused.stderr
    assert "irons local down" in refused.stderr
    assert pids(newer) == before
    assert newer.inside(sandbox, "id -un").stdout == "irons\n"
