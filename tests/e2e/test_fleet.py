"""A cluster of three Incus members on one machine, and irons at it; `make test-fleet` alone runs this."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.e2e.attempts import WEB, allow
from tests.e2e.lab import Lab, Person
from tests.e2e.machines import status
from tests.e2e.test_incus import ENGINE, instances, only_in_test_fleet
from tests.fleet.cluster import ADDRESSES, FIRST, Member, incus_cluster
from tests.fleet.incus_daemon import ROOT_AT, NoIncusError, make_root
from tests.machine import Machine

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(2400), only_in_test_fleet]

_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")


@pytest.fixture(scope="module")
def root(machine: Machine, place: Path) -> Path:
    """The files that an Incus of the tests runs from."""
    given = os.environ.get(ROOT_AT)
    made = Path(given) if given else place / "incus-root"
    try:
        if not made.exists():
            make_root(made)
    except NoIncusError as error:
        machine.miss(f"incus: {error}", optional=True)
    return made


@pytest.fixture(scope="module")
def members(machine: Machine, lab: Lab, root: Path, place: Path) -> Iterator[Mapping[str, Member]]:
    """A cluster, whose first member is the lab's host."""
    try:
        with incus_cluster(root, place / "cluster", lab.enter()) as made:
            yield made
    except NoIncusError as error:
        machine.miss(f"incus: {error}", optional=True)


def ask(member: Member, what: str) -> object:
    """What a member answers to whoever is on its machine."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(member.socket)), timeout=120) as http:
        return http.get(f"http://incus/1.0/{what}").json()["metadata"]


def test_three_members_are_one_cluster(members: Mapping[str, Member]) -> None:
    """Each member sees all three, online."""
    for member in members.values():
        found = ask(member, "cluster/members?recursion=1")
        assert isinstance(found, list)
        assert {each["server_name"]: each["status"] for each in found} == dict.fromkeys(ADDRESSES, "Online")


def test_a_sandbox_goes_to_the_member_that_has_an_agent(
    make_person: Callable[..., Person], members: Mapping[str, Member], lab: Lab
) -> None:
    """Without agents it goes to the member that is this machine, whatever Incus would choose; for another one it is refused."""
    first = members[FIRST]
    owner = make_person(config=f'[local]\nincus_socket = "{first.socket}"\n')
    done = owner.run("create", "far", *ENGINE, "--on", "n2", timeout=600)
    assert done.returncode != 0
    assert "no agent on n2: irons member is not running there" in done.stderr
    for name in ("one", "two"):
        owner.ok("create", name, *ENGINE, timeout=600)
        allow(owner, name)
        assert status(owner, name)["member"] == FIRST
        done = owner.inside(name, f"curl -sS -m 60 -o /dev/null -w '%{{http_code}}' http://{WEB}/page")
        assert done.stdout == "200", done.stderr
    owner.ok("destroy", "one", "two", "--force", timeout=300)
    assert not instances(first.socket)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_cluster_leaves_nothing(root: Path, place: Path, how: signal.Signals) -> None:
    """One that is ended while it is made, by a signal, leaves no process, control group, file or setting."""
    before = _INOTIFY.read_text()
    work = place / f"interrupted-{how.value}"
    words = ["unshare", "--net", sys.executable, "-m", "tests.fleet.cluster", str(root), str(work)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, cwd=Path(__file__).parents[2], start_new_session=True
    ) as made:
        while not (work / "n2/lib").exists():
            assert made.poll() is None
        made.send_signal(how)
    assert not work.exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/irons-incus-{made.pid}-*"))
    assert _INOTIFY.read_text() == before
