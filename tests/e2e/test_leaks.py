"""Ways out of a locked sandbox, each tried by its root; judged at the stand-in internet, by what arrived there."""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.attempts import ATTEMPTS, BENEATH, TALK, WEB, WEB_ADDRESS, Attempt, allow, is_allowed
from tests.e2e.conftest import clear_policy
from tests.e2e.lab import Person, eventually


@pytest.fixture(scope="module")
def locked(person: Person) -> Iterator[str]:
    """A sandbox that may reach web.example.test, and in whose way nothing else lies open."""
    clear_policy(person)
    person.ok("create", "locked", "--mode", "deny", "--allow", WEB, timeout=180)
    allow(person, "locked")
    assert person.inside("locked", TALK).returncode == 0
    yield "locked"
    person.run("destroy", "locked", "--force", timeout=180)


IN_WARN = {f"{name}, in warn": attempt for name, attempt in BENEATH.items()}
ALL = {**ATTEMPTS, **BENEATH, **IN_WARN}


@pytest.fixture(scope="module")
def arrived(person: Person, locked: str) -> dict[str, list[dict[str, Any]]]:
    """All attempts made, one after the other: what arrived of each, and what of it was seen inside."""
    found = tried(person, locked, {**ATTEMPTS, **BENEATH})
    person.ok("egress", "mode", "warn", "--sandbox", locked)
    found |= tried(person, locked, IN_WARN)
    person.ok("egress", "mode", "deny", "--sandbox", locked)
    return found


def tried(person: Person, name: str, attempts: dict[str, Attempt]) -> dict[str, list[dict[str, Any]]]:
    """Make attempts in one session, each known by the time at which it began; sandbox and internet have one clock."""
    over = f"/over-{name}-{len(attempts)}"
    script = "".join(
        f"date +'began {number} %s.%N'; ({attempt.script}) >/tmp/said 2>&1 </dev/null;"
        f" grep -q LEAK /tmp/said && echo 'leak {number}'\n"
        for number, attempt in enumerate(attempts.values())
    )
    before = len(person.lab.arrivals())
    session = person.run(
        *("exec", name, "--", "sh", "-s"),
        text=f"{script} date +'began {len(attempts)} %s.%N'; curl -s -o /dev/null -m 60 http://{WEB}{over}\n",
        timeout=300,
    )
    eventually(lambda: person.lab.arrived(kind="http", line=f"GET {over} HTTP/1.1"), what="the last request")
    told = [line.split() for line in session.stdout.splitlines()]
    starts = [float(words[2]) for words in told if words[0] == "began"]
    assert len(starts) == len(attempts) + 1, session.stderr
    found: dict[str, list[dict[str, Any]]] = {each: [] for each in attempts}
    for seen in person.lab.arrivals()[before:]:
        number = bisect(starts, seen["at"]) - 1
        if 0 <= number < len(attempts):
            list(found.values())[number].append(seen)
    for words in told:
        if words[0] == "leak":
            list(found.values())[int(words[1])].append({"kind": "inside"})
    return found


@pytest.mark.parametrize("name", ALL)
def test_nothing_gets_out_by(name: str, arrived: dict[str, list[dict[str, Any]]]) -> None:
    """Nothing but what is allowed arrives, no matter what a sandbox's root tries."""
    stray = [seen for seen in arrived[name] if not is_allowed(seen)]
    assert stray == []


def test_every_refusal_is_in_the_log(person: Person, locked: str, arrived: dict[str, Any]) -> None:
    """What was refused was recorded, with a reason, no matter what the mode."""
    del arrived
    refused = [event for event in person.events(locked) if event["verdict"] == "blocked"]
    for mode, attempts in (("deny", {**ATTEMPTS, **BENEATH}), ("warn", BENEATH)):
        hosts = {event["host"] for event in refused if event["mode"] == mode}
        assert {attempt.host for attempt in attempts.values() if attempt.host} - hosts == set()
    assert all(event["reason"] for event in refused)


def test_a_name_that_turns_private_leads_nowhere(person: Person, locked: str) -> None:
    """Of a name's addresses only those that may be dialled are, whether they come together or one after the other."""
    names = ("turning.example.test", "both.example.test")
    person.ok("egress", "allow", "--sandbox", locked, *names)
    before = len(person.lab.arrivals())
    ask = "curl -s -o /dev/null -w '%{http_code}' -m 60 http://"
    script = (
        f"for n in $(seq 30); do both=$both$({ask}both.example.test/) turns=$turns$({ask}turning.example.test/);"
        " case $turns in *200*403* | *403*200*) break ;; esac; sleep 0.3; done; echo $both; echo $turns"
    )
    both, turns = person.inside(locked, script).stdout.split()
    reached = person.lab.arrivals()[before:]
    assert {seen["server"] for seen in reached if seen["kind"] != "dns"} == {WEB_ADDRESS}
    assert both.replace("200", "") == ""
    assert turns.replace("200", "").replace("403", "") == ""
    assert "403" in turns
    assert "200" in turns
    person.ok("egress", "remove", "--sandbox", locked, *names)


def test_the_spoofed_address_is_not_believed(person: Person, locked: str) -> None:
    """An allowed name claimed at another address is reached at its own address, which irons looked up itself."""
    before = len(person.lab.arrivals())
    done = person.inside(
        locked, "curl -s -m 60 --resolve web.example.test:80:203.0.113.66 http://web.example.test/claimed"
    )
    assert '"server": "203.0.113.10"' in done.stdout
    arrived = person.lab.arrivals()[before:]
    assert {seen["server"] for seen in arrived if seen["kind"] == "connect"} == {WEB_ADDRESS}


def test_a_keep_alive_connection_does_not_change_hosts(person: Person, locked: str) -> None:
    """The second request on a connection is judged like the first."""
    requests = r"printf 'GET /one HTTP/1.1\r\nHost: web.example.test\r\n\r\nGET /two HTTP/1.1\r\nHost: evil.example.test\r\n\r\n'"
    done = person.inside(locked, f"{requests} | talk web.example.test 80 Forbidden")
    assert "200 OK" in done.stdout
    assert "403 Forbidden" in done.stdout
    assert not person.lab.arrived(kind="http", line="GET /two HTTP/1.1")


def test_a_sibling_is_out_of_reach(person: Person, locked: str) -> None:
    """One sandbox can't reach another, by its address or by the host's SSH port for it."""
    person.ok("create", "sibling", "--mode", "deny", timeout=180)
    try:
        port = json.loads(person.ok("status", "sibling", "-o", "json"))["metadata"]["ssh_port"]
        own = person.inside(locked, "echo hi | talk 100.64.0.2 22 SSH; hostname")
        assert own.stdout.count("SSH-2.0") == 1  # every sandbox has that address, and it is its own
        others = person.inside(
            locked, f"for a in 127.0.0.1 198.51.100.2; do echo hi | talk $a {port}; done; true"
        )
        assert "SSH-2.0" not in others.stdout
    finally:
        person.run("destroy", "sibling", "--force", timeout=180)
