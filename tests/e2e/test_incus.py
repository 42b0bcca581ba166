"""Containers of an Incus by the whole daemon: judged and logged like any sandbox, without a network of Incus, and gone at the end.

`make test-fleet` runs all of it; a run of everything the first test alone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from irons_local.engines.conformance import CHECKS
from tests.e2e.attempts import ATTEMPTS, BENEATH, TALK, WEB, allow, is_allowed
from tests.e2e.lab import Lab, Person, eventually
from tests.e2e.machines import status
from tests.e2e.test_leaks import tried
from tests.fleet import left_out
from tests.fleet.incus_daemon import ROOT_AT, NoIncusError, incus_daemon, make_root
from tests.machine import Machine

ALL = bool(os.environ.get("IRONS_TEST_FLEET"))
only_in_test_fleet = pytest.mark.skipif(not ALL, reason="only make test-fleet runs it")
pytestmark = [pytest.mark.fleet, pytest.mark.timeout(2400)]

ENGINE = ("--engine", "incus", "--mode", "deny", "--allow", WEB)


@pytest.fixture(scope="module")
def incus_at(machine: Machine, lab: Lab, place: Path) -> Iterator[Path]:
    """The socket of an Incus of the tests' own, which has the network of the lab's host."""
    given = os.environ.get(ROOT_AT)
    root = Path(given) if given else place / "incus-root"
    try:
        if not root.exists():
            make_root(root)
        with incus_daemon(root, place / "incus", lab.enter()) as path:
            yield path
    except NoIncusError as error:
        machine.miss(f"incus: {error}", optional=True)


@pytest.fixture(scope="module")
def owner(incus_at: Path, make_person: Callable[..., Person]) -> Person:
    """Root, whose engine `incus` uses that Incus."""
    return make_person(config=f'[local]\nincus_socket = "{incus_at}"\n')


@pytest.fixture
def box(owner: Person) -> Iterator[str]:
    """A container that may reach one host."""
    owner.ok("create", "box", *ENGINE, timeout=600)
    allow(owner, "box")
    yield "box"
    owner.run("destroy", "box", "--force", timeout=300)


def at_incus(path: Path, method: str, what: str, body: Any = None) -> Any:
    """Ask Incus for something in the project of irons, as an administrator does, and wait until it is done."""
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(path)), base_url="http://incus/1.0", timeout=120
    ) as http:
        answer = http.request(method, what, params={"project": "irons"}, json=body).json()
        if answer["type"] == "async":
            answer = http.get(
                f"/operations/{answer['metadata']['id']}/wait", params={"project": "irons"}
            ).json()
        assert answer["type"] != "error", answer
        return answer["metadata"]


def instances(path: Path) -> list[str]:
    """The names of the instances of irons."""
    return [url.rpartition("/")[2].partition("?")[0] for url in at_incus(path, "GET", "/instances")]


def instance_of(owner: Person, name: str) -> str:
    """The name of a sandbox's instance."""
    return status(owner, name)["instance"]


def incus_process(path: Path) -> int:
    """The process that answers at Incus's socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(path))
        pid: int = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid


def links(lab: Lab) -> str:
    """The network devices of the host."""
    return subprocess.run(
        [*lab.enter(), "ip", "-o", "link"], capture_output=True, text=True, check=True
    ).stdout


def test_a_container_is_judged_logged_and_gone(owner: Person, incus_at: Path, lab: Lab) -> None:
    """It reaches what its rules allow, under its name in the log, keeps its files, has no device of the host, and leaves none."""
    owner.ok("create", "first", *ENGINE, timeout=600)
    found = owner.inside(
        "first",
        f"curl -sS -m 60 -o /dev/null -w '%{{http_code}}' http://{WEB}/page; echo kept >kept; hostname",
    )
    assert found.stdout == "200first\n", found.stderr
    refused = owner.inside(
        "first", "curl -sS -m 60 -o /dev/null -w '%{http_code}' http://closed.example.test/"
    )
    assert refused.stdout == "403", refused.stderr
    verdicts = {(event["host"], event["allowed"]) for event in owner.events("first")}
    assert {(WEB, True), ("closed.example.test", False)} <= verdicts
    assert not lab.arrived(host="closed.example.test")
    assert status(owner, "first")["engine"] == "incus"
    owner.ok("stop", "first", timeout=300)
    assert "irs-" not in links(lab)
    owner.ok("start", "first", timeout=300)
    assert owner.inside("first", "cat kept; id -un").stdout == "kept\nirons\n"
    owner.ok("destroy", "first", "--force", timeout=300)
    assert not instances(incus_at)
    assert "irs-" not in links(lab)


@only_in_test_fleet
def test_no_way_leads_out(owner: Person, box: str) -> None:
    """Of all ways out that are tried in a namespace sandbox, none leads out of a container, in the modes deny and warn."""
    assert owner.inside(box, TALK).returncode == 0
    made = {name: each for name, each in {**ATTEMPTS, **BENEATH}.items() if name not in left_out.ATTEMPTS}
    found = tried(owner, box, made)
    owner.ok("egress", "mode", "warn", "--sandbox", box)
    found |= tried(owner, box, {f"{name}, in warn": each for name, each in BENEATH.items()})
    inside = {"kind": "inside"}
    strays = [
        (name, seen)
        for name, all_seen in found.items()
        for seen in all_seen
        if seen == inside or not is_allowed(seen)
    ]
    assert [(name, seen) for name, seen in strays if seen != inside] == []
    assert {name for name, seen in strays if seen == inside} <= left_out.SUCCEEDS_INSIDE.keys()


@only_in_test_fleet
@pytest.mark.parametrize(
    "device",
    [
        {"type": "proxy", "listen": "tcp:127.0.0.1:9999", "connect": "tcp:127.0.0.1:22"},
        {"type": "nic", "nictype": "bridged", "parent": "bad0"},
        {"type": "disk", "source": "/etc", "path": "/mnt"},
    ],
    ids=["proxy", "bridge", "disk"],
)
def test_what_is_added_to_one_that_runs_stops_it(
    owner: Person, box: str, incus_at: Path, lab: Lab, device: dict[str, str]
) -> None:
    """A device that someone gives a running container costs it its run, and the reason names it; stopped, it does not start."""
    subprocess.run(
        [*lab.enter(), "ip", "link", "add", "bad0", "type", "bridge"], check=False, capture_output=True
    )
    name = instance_of(owner, box)
    _loosen(incus_at)
    try:
        now = at_incus(incus_at, "GET", f"/instances/{name}")
        at_incus(incus_at, "PATCH", f"/instances/{name}", {"devices": {**now["devices"], "more": device}})
        eventually(
            lambda: at_incus(incus_at, "GET", f"/instances/{name}")["status"] == "Stopped", what="the stop"
        )
        eventually(lambda: owner.ok("list", "-o", "json").find('"stopped"') > 0, what="irons to notice")
        assert "device more" in owner.ok("status", box)
        again = owner.run("start", box, timeout=300)
        assert again.returncode != 0
        assert "device more" in again.stderr
    finally:
        _tighten(incus_at)


def _loosen(path: Path) -> None:
    """Let the project's instances have more, as only an administrator of Incus can."""
    _restrict(path, "false")


def _tighten(path: Path) -> None:
    for name in instances(path):
        now = at_incus(path, "GET", f"/instances/{name}")
        body = {key: now[key] for key in ("config", "description", "ephemeral", "profiles", "architecture")}
        devices = {key: value for key, value in now["devices"].items() if key != "more"}
        at_incus(path, "PUT", f"/instances/{name}", {**body, "devices": devices})
    _restrict(path, "true")


def _restrict(path: Path, value: str) -> None:
    now = at_incus(path, "GET", "/projects/irons")
    body = {"description": now["description"], "config": {**now["config"], "restricted": value}}
    at_incus(path, "PUT", "/projects/irons", body)


@only_in_test_fleet
@pytest.mark.parametrize("killed", ["server", "keeper", "gateway"])
def test_a_killed_process_of_irons_costs_no_sandbox(owner: Person, box: str, killed: str) -> None:
    """Whatever of irons is killed, the container runs on, is reached again, and is judged as before."""
    owner.inside(box, "echo $$ >/tmp/mark")
    pids = [
        part["pid"]
        for part in json.loads(owner.ok("local", "status", "-o", "json"))
        if part["process"] == killed and part["pid"]
    ]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    mark = "cat /tmp/mark"
    eventually(lambda: owner.inside(box, mark).stdout.strip().isdigit(), what="the sandbox to answer")
    ask = "curl -sS -m 60 -o /dev/null -w '%{http_code} ' http://"
    codes = f"{ask}{WEB}/page; {ask}other.example.test/"
    eventually(lambda: owner.inside(box, codes).stdout == "200 403 ", what="the gateway")


@only_in_test_fleet
def test_an_incus_that_is_killed_costs_no_sandbox(owner: Person, box: str, incus_at: Path) -> None:
    """A container runs on and is judged while Incus's daemon is away, and is stopped by it when that is back."""
    os.kill(incus_process(incus_at), signal.SIGKILL)
    assert owner.inside(box, "echo on").stdout == "on\n"
    eventually(lambda: owner.run("stop", box, timeout=300).returncode == 0, what="Incus to be back")
    owner.ok("start", box, timeout=300)
    assert owner.inside(box, "echo again").stdout == "again\n"


@only_in_test_fleet
def test_a_control_plane_starts_without_incus(owner: Person, box: str, incus_at: Path) -> None:
    """One that starts while Incus accepts and does not answer takes up what runs, and stops it when Incus is back."""
    pid = incus_process(incus_at)
    parts = json.loads(owner.ok("local", "status", "-o", "json"))
    server = next(part["pid"] for part in parts if part["process"] == "server")
    os.kill(pid, signal.SIGSTOP)
    try:
        os.kill(server, signal.SIGKILL)
        eventually(lambda: owner.inside(box, "echo on").stdout == "on\n", what="the control plane")
        assert '"ready"' in owner.ok("list", "-o", "json")
    finally:
        os.kill(pid, signal.SIGCONT)
    owner.ok("stop", box, timeout=300)
    owner.ok("start", box, timeout=300)
    assert owner.inside(box, "echo again").stdout == "again\n"


@only_in_test_fleet
def test_another_instance_of_the_name_stays(owner: Person, box: str, incus_at: Path) -> None:
    """An instance that lost the mark of irons is not started, not stopped and not removed by it."""
    name = instance_of(owner, box)
    owner.ok("stop", box, timeout=300)
    now = at_incus(incus_at, "GET", f"/instances/{name}")
    body = {key: now[key] for key in ("devices", "description", "ephemeral", "profiles", "architecture")}
    unmarked = {key: value for key, value in now["config"].items() if key != "user.irons.id"}
    at_incus(incus_at, "PUT", f"/instances/{name}", {**body, "config": unmarked})
    for words in (("start", box), ("destroy", box, "--force")):
        done = owner.run(*words, timeout=300)
        assert done.returncode != 0
        assert "is not of irons" in done.stderr
    assert name in instances(incus_at)
    at_incus(incus_at, "PUT", f"/instances/{name}", {**body, "config": now["config"]})


def test_without_an_incus_a_create_says_so(make_person: Callable[..., Person]) -> None:
    """Where no Incus answers, `create` ends with one line that names the socket, and nothing is left."""
    person = make_person(config='[local]\nincus_socket = "/nowhere/unix.socket"\n')
    done = person.run("create", "none", "--engine", "incus", timeout=300)
    assert done.returncode != 0
    assert "Incus does not answer at /nowhere/unix.socket" in done.stderr
    assert not (person.home / ".local/state/irons/sandboxes").exists() or not list(
        (person.home / ".local/state/irons/sandboxes").glob("*sb_*")
    )


@only_in_test_fleet
def test_the_engine_conforms(incus_at: Path, lab: Lab, place: Path, image_tar: Path) -> None:
    """Every check of the conformance suite holds, and leaves nothing behind."""
    here = ["env", "-C", str(Path(__file__).parents[2])]
    words = [
        *here,
        sys.executable,
        "-m",
        "tests.fleet.conforming",
        str(incus_at),
        str(image_tar),
        str(place / "conforming"),
    ]
    done = subprocess.run([*lab.enter(), *words], capture_output=True, text=True, check=False)
    held = dict(json.loads(line) for line in done.stdout.splitlines())
    assert {name: why for name, why in held.items() if why} == {}, done.stderr
    assert set(held) == set(CHECKS), done.stderr
