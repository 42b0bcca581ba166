"""A cluster of three Incus members on one machine, and irons at it; `make test-fleet` alone runs this."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.attempts import WEB, allow
from tests.e2e.lab import Lab, Person
from tests.e2e.machines import status
from tests.e2e.test_incus import ENGINE, at_incus, instance_of, instances, only_in_test_fleet
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


def ask(member: Member, what: str, body: Any = None) -> Any:
    """What a member answers to whoever is on its machine."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(member.socket)), timeout=120) as http:
        method = "GET" if body is None else "POST"
        return http.request(method, f"http://incus/1.0/{what}", json=body).json()["metadata"]


def trust_token(member: Member) -> str:
    """What `incus config trust add irons` prints."""
    made = ask(member, "certificates", {"type": "client", "name": "irons", "token": True})["metadata"]
    names = ("fingerprint", "addresses", "secret")
    token = {
        "client_name": "irons",
        **{name: made[name] for name in names},
        "expires_at": "0001-01-01T00:00:00Z",
    }
    return base64.b64encode(json.dumps(token).encode()).decode()


def trusted(member: Member) -> list[str]:
    """The names of the clients that a cluster trusts."""
    found = ask(member, "certificates?recursion=1")
    return [each["name"] for each in found if each["type"] == "client"]


def test_three_members_are_one_cluster(members: Mapping[str, Member]) -> None:
    """Each member sees all three, online."""
    for member in members.values():
        found = ask(member, "cluster/members?recursion=1")
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


def test_a_cluster_is_joined_by_a_token_and_left(
    make_person: Callable[..., Person], members: Mapping[str, Member]
) -> None:
    """A token of one member serves once; sandboxes are made by HTTPS, on this machine's member; what is kept is root's alone."""
    first, second = members[FIRST], members["n2"]
    owner = make_person(config=f'[local]\nincus_socket = "{first.socket}"\n')
    token = trust_token(second)
    kept = owner.home / ".local/state/irons/local/incus"
    for given, says in (
        ("", "there is no token on standard input"),
        ("bm90aGluZw==", "this is not a token"),
        (changed(token, fingerprint="0" * 64), "nothing was sent"),
        (changed(token, secret="0" * 64), "the cluster refused the token"),
    ):
        done = owner.run("fleet", "join", second.url, text=given)
        assert done.returncode == 2, done.stderr
        assert says in done.stderr
        assert not kept.exists()
    done = owner.run("fleet", "join", second.url, text=token)
    assert done.returncode == 0, done.stderr
    assert token not in done.stdout + done.stderr
    assert {path.name: path.stat().st_mode & 0o777 for path in (kept, *kept.iterdir())} == {
        "incus": 0o700,
        **dict.fromkeys(("cluster.json", "server.crt", "client.crt", "client.key"), 0o600),
    }
    assert trusted(first) == ["irons"]
    assert "has joined a cluster already" in owner.run("fleet", "join", second.url, text=token).stderr
    owner.ok("create", "joined", *ENGINE, timeout=600)
    allow(owner, "joined")
    assert status(owner, "joined")["member"] == FIRST
    assert owner.inside("joined", "echo on").stdout == "on\n"
    assert second.url in owner.ok("doctor")
    assert "there are sandboxes of the engine incus" in owner.run("fleet", "leave").stderr
    owner.ok("stop", "joined", timeout=300)
    owner.ok("start", "joined", timeout=300)
    owner.ok("destroy", "joined", "--force", timeout=300)
    assert not instances(first.socket)
    owner.ok("fleet", "leave")
    assert not kept.exists()
    assert trusted(first) == []
    done = owner.run("fleet", "join", second.url, text=token)
    assert "the cluster refused the token" in done.stderr


def test_one_server_has_the_sandboxes(
    make_person: Callable[..., Person], members: Mapping[str, Member]
) -> None:
    """While one has sandboxes in the cluster another is refused; after a takeover the first is, and touches nothing."""
    first = members[FIRST]
    one, two = (make_person(config=f'[local]\nincus_socket = "{first.socket}"\n') for _ in range(2))
    one.ok("create", "mine", *ENGINE, timeout=600)
    refused = two.run("create", "other", *ENGINE, timeout=600)
    assert refused.returncode != 0
    assert "has sandboxes of another server" in refused.stderr
    assert "irons fleet takeover" in refused.stderr
    name = instance_of(one, "mine")
    two.ok("fleet", "takeover", "--yes")
    done = one.run("stop", "mine", timeout=300)
    assert done.returncode != 0
    assert "has sandboxes of another server" in done.stderr
    assert at_incus(first.socket, "GET", f"/instances/{name}")["status"] == "Running"
    one.ok("fleet", "takeover", "--yes")
    one.ok("destroy", "mine", "--force", timeout=300)
    two.ok("create", "other", *ENGINE, timeout=600)
    two.ok("destroy", "other", "--force", timeout=300)
    assert not instances(first.socket)


def changed(token: str, **values: str) -> str:
    """A token with other values."""
    return base64.b64encode(json.dumps({**json.loads(base64.b64decode(token)), **values}).encode()).decode()


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
