"""Each process of the backend is killed: nothing passes unjudged, sandboxes and sessions live on, no event is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from tests.e2e.lab import Person, eventually


def pids(person: Person) -> dict[str, int]:
    """The backend's processes by name."""
    rows = json.loads(person.ok("local", "status", "-o", "json"))
    return {row["process"]: row["pid"] for row in rows if row["pid"]}


@pytest.mark.parametrize(
    "victims", [("gateway",), ("server",), ("gateway", "server"), ("keeper",)], ids="+".join
)
def test_a_killed_process_is_back_and_nothing_is_lost(
    person: Person, sandbox: str, victims: tuple[str, ...]
) -> None:
    """After kill -9 all is served again without anyone doing anything, sessions live on, and each attempt has one event."""
    assert person.inside(sandbox, "curl -s -m 5 http://web.example.test/before").returncode == 0
    before = pids(person)
    with person.start(
        "ssh", sandbox, "--", "echo ready; read line; echo $line", stdin=subprocess.PIPE
    ) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        assert session.stdout.readline() == "ready\n"
        for victim in victims:
            os.kill(before[victim], signal.SIGKILL)
        session.stdin.write("still here\n")
        session.stdin.flush()
        assert session.stdout.readline() == "still here\n"
        session.communicate(timeout=60)
    eventually(
        lambda: person.inside(sandbox, "curl -s -m 5 http://web.example.test/after").returncode == 0,
        what="requests to pass again",
    )
    after = eventually(
        lambda: (now := pids(person)).keys() >= set(before) and now, what="all processes to be back"
    )
    assert all(after[victim] != before[victim] for victim in victims)
    events = person.events(sandbox)
    assert len({event["id"] for event in events}) == len(events)
    paths = [
        seen["line"].split()[1]
        for seen in person.lab.arrived(kind="http")
        if seen["host"] == "web.example.test"
    ]
    assert paths.count("/before") >= 1
    assert len(events) >= 2


def test_nothing_passes_while_the_gateway_is_dead_and_its_ports_cannot_be_taken(
    person: Person, sandbox: str
) -> None:
    """Held down, the gateway lets nothing through, and a process inside that wants its ports gets nowhere."""
    gateway = pids(person)["gateway"]
    os.kill(gateway, signal.SIGSTOP)
    try:
        person.inside(sandbox, f"curl -s -m 2 http://203.0.113.10/stopped-{sandbox}")
        squat = "perl -MIO::Socket::INET -e 'for $p (15001, 53) { print IO::Socket::INET->new(LocalPort => $p, Listen => 1) ? 1 : 0 }'"
        assert person.inside(sandbox, squat).stdout == "00"
        assert not person.lab.arrived(kind="http", line=f"GET /stopped-{sandbox} HTTP/1.1")
    finally:
        os.kill(gateway, signal.SIGKILL)
    eventually(
        lambda: person.inside(sandbox, "curl -s -m 5 http://web.example.test/again").returncode == 0,
        what="requests to pass again",
    )


def test_connect_and_close_has_its_event_before_anything_leaves(person: Person, sandbox: str) -> None:
    """A connection without a byte is an event, also in warn."""
    script = (
        "perl -MIO::Socket::INET -e 'IO::Socket::INET->new(PeerAddr => \"203.0.113.66\", PeerPort => 9999)'"
    )
    person.inside(sandbox, script)
    eventually(lambda: [e for e in person.events(sandbox) if e["host"] == "203.0.113.66"], what="the event")
