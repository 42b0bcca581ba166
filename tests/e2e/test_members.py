"""A member of a fleet in a network namespace of its own: its agent, keeper and gateway, and the server, are the real ones; only the machine is a stand-in."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from irons_local.linux.namespaces import started
from tests.e2e.attempts import EVIL, WEB, WEB_ADDRESS
from tests.e2e.lab import HOLD, Lab, Person, eventually, holding
from tests.e2e.test_veth import installed
from tests.local.people import slay
from tests.local.plugged import Space
from tests.local.veth_engine import running

ROOT = Path(__file__).parents[2]
FAR = """
from functools import partial
from irons import hookimpl

@hookimpl
def irons_engines():
    from tests.local.veth_engine import FarEngine

    return {"far": partial(FarEngine, "n2", HOST)}
"""
HERE = "198.51.100.13"
THERE = "198.51.100.14"
PORT = "7443"
TOKEN = "irons-member-"


@dataclass(frozen=True)
class Member:
    """A machine that is a member: a network namespace, and a home of its own in it."""

    space: int
    home: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment of its commands."""
        return {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            **{key: value for key, value in os.environ.items() if key.startswith("COVERAGE_")},
        }

    def irons(self, *words: str) -> list[str]:
        """The words of a command of irons on it."""
        return ["nsenter", "-t", str(self.space), "-n", "-m", "--", sys.executable, "-m", "irons", *words]

    def run(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command of irons on it."""
        return subprocess.run(
            self.irons(*words),
            env=self.env,
            cwd=self.home,
            input=text,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have it run, as its service manager would."""
        words = self.irons("member", "run")
        with (self.home / "member.log").open("a") as log:
            process = subprocess.Popen(
                words, env=self.env, cwd=self.home, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=300)

    def log(self) -> str:
        """What it wrote."""
        logs = sorted((self.home / ".local/state/irons/local/logs").glob("*.log"))
        return "".join(path.read_text() for path in logs)


@pytest.fixture(scope="module")
def owner(make_person: Callable[..., Person], lab: Lab, member: Member) -> Iterator[Person]:
    """Root, whose server has a fleet, and an engine that has its machines on `n2`."""
    made = make_person(image=False, config=f'[local]\nfleet_listen = "{HERE}:{PORT}"\n')
    site = installed(made.home / "site", Path())
    (site / "irons_veth_for_tests.py").write_text(FAR.replace("HOST", str(member.space)))
    person = replace(made, more={"PYTHONPATH": f"{site}:{ROOT}"})
    yield person
    person.run("local", "uninstall", "--purge", "--yes")


@pytest.fixture(scope="module")
def member(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    """A machine next to the host, with its own way to the internet."""
    home = tmp_path_factory.mktemp("member")
    (home / "run").mkdir(mode=0o700)
    words = ["nsenter", "-t", str(lab.host), "-m", "unshare", "--net", "--mount", "--propagation", "private"]
    with subprocess.Popen(
        [*words, sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        there, here, net = Space(int(process.stdout.readline())), Space(lab.host), Space(lab.internet)
        try:
            there.ok("ip", "link", "set", "lo", "up")
            here.ok("ip", "link", "add", "n2", "type", "veth", "peer", "name", "up0", "netns", str(there.pid))
            net.ok(
                "ip", "link", "add", "down2", "type", "veth", "peer", "name", "up1", "netns", str(there.pid)
            )
            for space, name, address in (
                (here, "n2", f"{HERE}/30"),
                (there, "up0", f"{THERE}/30"),
                (net, "down2", "198.51.100.17/30"),
                (there, "up1", "198.51.100.18/30"),
            ):
                space.ok("ip", "addr", "add", address, "dev", name)
                space.ok("ip", "link", "set", name, "up")
            there.ok("ip", "route", "add", "default", "via", "198.51.100.17")
            yield Member(there.pid, home)
        finally:
            for space, name in ((here, "n2"), (net, "down2")):
                space.run("ip", "link", "del", name)
            process.kill()


def token_of(answer: Any) -> str:
    """The token in an answer of `fleet add`."""
    found = answer[0] if isinstance(answer, list) else answer
    return str(found["token"])


def status(owner: Person) -> dict[str, Any]:
    """How the member is."""
    (row,) = [json.loads(line) for line in owner.ok("fleet", "status", "-o", "jsonl").splitlines()]
    found: dict[str, Any] = row
    return found


@pytest.fixture(scope="module")
def joined(owner: Person, member: Member) -> Iterator[Member]:
    """The member, running and connected."""
    token = token_of(json.loads(owner.ok("fleet", "add", "n2", "-o", "json")))
    done = member.run("member", "join", text=token)
    assert done.returncode == 0, done.stderr
    with member.running():
        connected(owner)
        yield member


def connected(owner: Person) -> dict[str, Any]:
    """How the member is, once it is connected and all of its log is at the server."""
    found: dict[str, Any] = eventually(
        lambda: (row := status(owner))["state"] == "connected" and row["backlog"] == 0 and row,
        what="the member to be connected, and its log at the server",
    )
    return found


@pytest.fixture(scope="module")
def box(owner: Person, joined: Member) -> Iterator[Space]:
    """The machine of the sandbox `faraway`, whose cell is on the member: a process in its network."""
    owner.ok("create", "faraway", "--engine", "far", "--mode", "deny", "--allow", WEB)
    (found,) = running(owner.home / ".local/state/irons/local/sandboxes")
    yield found
    owner.ok("destroy", "faraway", "--force")
    assert "irs-" not in Space(joined.space).ok("ip", "-o", "link")


OF_KILLS = re.compile("GET /of-members/(calm|back)")
"""What is asked for while processes are killed. The paths are of this module alone: others use the same servers."""


def fetched(box: Space, host: str, path: str) -> bool:
    """Ask a host for a path from inside; whether its answer came."""
    words = ["curl", "-sS", "-f", "-o", "/dev/null", "-m", "100", "--resolve", f"{host}:80:{WEB_ADDRESS}"]
    return box.run(*words, f"http://{host}/of-members/{path}").returncode == 0


def refused(owner: Person, host: str) -> int:
    """How many connections to a host the log has as refused."""
    return sum(
        event["count"] for event in owner.events("faraway") if event["host"] == host and not event["allowed"]
    )


def allowed(owner: Person, since: int = 0) -> list[dict[str, Any]]:
    """The connections that the log has as allowed."""
    return [each for each in owner.events("faraway") if each["allowed"] and each["id"] > since]


def test_a_sandbox_on_a_member_is_judged_there(owner: Person, joined: Member, box: Space, lab: Lab) -> None:
    """SSH goes by the server, only what is allowed arrives, each connection is once in the server's log, and a new rule is active when its command ends."""
    done = owner.inside(
        "faraway", f"curl -sS http://{WEB}/of-members/first; curl -sS -m 100 http://{EVIL}/of-members/never"
    )
    assert "irons egress allow evil.example.test" in done.stdout
    assert len(lab.arrived(line="GET /of-members/first HTTP/1.1")) == 1
    assert not lab.arrived(line="GET /of-members/never HTTP/1.1")
    eventually(lambda: allowed(owner) and refused(owner, EVIL), what="both in the log")
    assert len([each for each in allowed(owner) if each["connection"].startswith("n2/")]) == 1
    assert refused(owner, EVIL) == 1

    before = status(owner)["revision"]
    owner.ok("egress", "allow", "--sandbox", "faraway", "other.example.test")
    assert fetched(box, "other.example.test", "opened")
    owner.ok("egress", "remove", "--sandbox", "faraway", "other.example.test")
    assert not fetched(box, "other.example.test", "closed")
    assert not lab.arrived(line="GET /of-members/closed HTTP/1.1")
    row = status(owner)
    assert (row["pending"], row["revision"] > before) == (0, True)
    assert row["sandboxes"] == 1
    eventually(lambda: status(owner)["workers"] > 0, what="the next beat")


def test_the_agent_listens_on_nothing_and_is_not_reached(owner: Person, joined: Member, box: Space) -> None:
    """There is no listening socket on the member, no rule opens the server's port, and no sandbox gets there."""
    assert Space(joined.space).ok("ss", "-Hltun").strip() == ""
    opening = owner.run("egress", "allow", "--sandbox", "faraway", f"{HERE}:{PORT}", "--private", HERE)
    assert "a port of irons itself" in opening.stderr
    owner.ok("egress", "mode", "warn", "--sandbox", "faraway")
    try:
        assert box.run("curl", "-sSk", "-m", "100", f"https://{HERE}:{PORT}/").returncode != 0
        found = eventually(
            lambda: [each for each in owner.events("faraway") if each["host"] == HERE], what="it in the log"
        )
        assert [each["allowed"] for each in found] == [False], found
    finally:
        owner.ok("egress", "mode", "deny", "--sandbox", "faraway")


def test_nothing_of_the_token_stays(owner: Person, joined: Member) -> None:
    """It is in no log and no file of either side once it was used."""
    for home in (owner.home, joined.home):
        assert holding(home, TOKEN.encode()) == []


def test_kills_open_nothing_and_lose_no_record(owner: Person, joined: Member, box: Space, lab: Lab) -> None:
    """Agent, gateway worker and server are killed while the sandbox asks: nothing that is denied arrives, and the log has each request once."""
    past = len(allowed(owner))
    assert fetched(box, WEB, "before")
    eventually(lambda: len(allowed(owner)) > past, what="it in the log")
    before = max(each["id"] for each in owner.events("faraway"))
    denials = refused(owner, EVIL)
    # Of the server once: a keeper that starts it three times in a row says to whoever asks that it does not start.
    kills: list[tuple[Person | Member, str]] = [
        (joined, "server"),
        (joined, "gateway-0"),
        (owner, "server"),
        (joined, "gateway-0"),
    ]
    asked = []

    def back() -> bool:
        asked.append("back")
        return fetched(box, WEB, "back")

    for turn, (whose, name) in enumerate(kills):
        assert not fetched(box, EVIL, "denied")
        asked.append("calm")
        assert fetched(box, WEB, f"calm-{turn}")
        kill(whose, name)
        assert not fetched(box, EVIL, "denied")
        # Whoever was killed, it is judged again, by the same rules.
        eventually(back, what="the gateway")
    seen = [each for each in lab.arrived(kind="http") if OF_KILLS.match(each["line"])]
    assert len(seen) >= 2 * len(kills)

    def told() -> list[dict[str, Any]]:
        return [each for each in allowed(owner, before) if each["host"] == WEB]

    # One whose worker was killed before it dialled is in the log, and did not arrive; none that arrived is missing.
    found = eventually(lambda: len(each := told()) >= len(seen) and each, what="all that arrived in the log")
    assert len(found) <= len(asked)
    assert len({each["connection"] for each in found}) == len(found)
    eventually(lambda: refused(owner, EVIL) - denials >= len(kills), what="all refusals in the log")
    assert refused(owner, EVIL) - denials <= 2 * len(kills)
    assert not lab.arrived(line="GET /of-members/denied HTTP/1.1")


def process(whose: Person | Member, name: str) -> int:
    """A process that its keeper has noted; 0 where that one does not live."""
    try:
        noted = json.loads((whose.home / f".local/state/irons/local/{name}.process").read_text())
    except OSError:
        return 0
    return int(noted["pid"]) if started(int(noted["pid"])) == noted["started"] else 0


def kill(whose: Person | Member, name: str) -> None:
    """Kill a process, once there is a living one, and wait for its end."""
    slay(eventually(lambda: process(whose, name), what=f"{name} to live"))


def test_while_the_server_is_away(owner: Person, joined: Member, box: Space, lab: Lab) -> None:
    """What is denied stays so, a rule that was for a time ends, and what was recorded meanwhile is in the log once when the server is back."""
    owner.ok("egress", "allow", "--sandbox", "faraway", "files.example.test", "--for", "1h")
    assert fetched(box, "files.example.test", "in-time")
    owner.ok("egress", "remove", "--sandbox", "faraway", "files.example.test")
    owner.ok("egress", "allow", "--sandbox", "faraway", "files.example.test", "--for", "10s")
    denials = refused(owner, EVIL)
    owner.ok("local", "down")
    for number in range(5):
        assert fetched(box, WEB, f"away-{number}")
        assert not fetched(box, EVIL, "away")
    eventually(lambda: not fetched(box, "files.example.test", "too-late"), what="the rule to end")
    # The agent itself is another one now, and knows what the last one did.
    kill(joined, "server")
    assert not fetched(box, EVIL, "away")
    assert not fetched(box, "files.example.test", "too-late")
    owner.ok("local", "up")
    eventually(lambda: refused(owner, EVIL) - denials >= 6, what="what was recorded meanwhile")
    assert refused(owner, EVIL) - denials == 6
    assert not lab.arrived(line="GET /of-members/away HTTP/1.1")
    for number in range(5):
        assert len(lab.arrived(line=f"GET /of-members/away-{number} HTTP/1.1")) == 1
    connected(owner)
    assert owner.inside("faraway", "echo back").stdout == "back\n"


def test_a_disk_that_takes_nothing_keeps_no_change_away(owner: Person, joined: Member, box: Space) -> None:
    """A member that can keep neither its settings nor a policy stays connected, and a change is active all the same; both are kept once they can be."""
    home = joined.home / ".local/state/irons/local/member"
    (policy,) = (home / "policies").glob("sb_*.json")
    blocked = (home / "settings.json", policy)
    for path in blocked:
        path.unlink()
        # No file takes the place of a directory that has something in it.
        (path / "in-the-way").mkdir(parents=True)
    try:
        kill(joined, "server")
        log = owner.home / ".local/state/irons/local/logs/server.log"
        eventually(lambda: "settings did not reach it" in log.read_text(), what="the server to be told")
        owner.run("egress", "allow", "--sandbox", "faraway", "other.example.test")
        eventually(lambda: fetched(box, "other.example.test", "opened"), what="the rule to be active")
        owner.run("egress", "remove", "--sandbox", "faraway", "other.example.test")
        eventually(lambda: not fetched(box, "other.example.test", "closed"), what="the rule to end")
        assert status(owner)["pending"] == 1
    finally:
        for path in blocked:
            (path / "in-the-way").rmdir()
            path.rmdir()
    eventually(lambda: all(path.is_file() for path in blocked), what="both to be kept")
    eventually(lambda: status(owner)["pending"] == 0, what="the policy to be confirmed")
    connected(owner)


def test_a_removed_member_goes_on_denying(owner: Person, joined: Member, box: Space, lab: Lab) -> None:
    """Its certificate opens nothing, its gateway judges by what it has, and a new token makes it a member again."""
    owner.ok("fleet", "remove", "n2")
    assert owner.ok("fleet", "status", "-o", "jsonl") == ""
    assert not fetched(box, EVIL, "removed")
    assert fetched(box, WEB, "removed-allowed")
    assert not lab.arrived(line="GET /of-members/removed HTTP/1.1")
    eventually(lambda: "removed, or has joined again" in joined.log(), what="the member to be told")
    token = token_of(json.loads(owner.ok("fleet", "add", "n2", "-o", "json")))
    assert joined.run("member", "join", text=token).returncode == 0
    kill(joined, "server")
    connected(owner)
    owner.ok("egress", "allow", "--sandbox", "faraway", "other.example.test")
    assert fetched(box, "other.example.test", "again")
    owner.ok("egress", "remove", "--sandbox", "faraway", "other.example.test")
