"""`egress check --live` at the gateway: a host is reached as a sandbox would reach it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.e2e.lab import eventually
from tests.local.gateway.stand import CELL, Stand, policy

from irons_local.ipc.framing import RequestError

WEB = "web.example.test"


def probe(
    stand: Stand, host: str, port: int = 443, *, cell: str | None = None, **more: Any
) -> dict[str, Any]:
    """What the gateway answers."""
    named = {} if cell is None else {"cell": cell}
    return stand.ask("probe", host=host, port=port, policy=policy(**more), **named)


def connects(stand: Stand) -> list[int]:
    """The ports that were connected to in the internet since the mark."""
    return [each["port"] for each in stand.arrivals() if each["kind"] == "connect"]


def test_a_host_is_resolved_and_reached_with_times(shared: Stand) -> None:
    """Where it leads, which address answered, and how long each step took; without a sandbox nothing is in its log."""
    began = time.monotonic()
    found = probe(shared, WEB, allow=[WEB])
    took = (time.monotonic() - began) * 1000 + 1
    assert (found["outcome"], found["address"], found["addresses"]) == (
        "reached",
        "203.0.113.10",
        ["203.0.113.10"],
    )
    assert 0 <= found["resolve_ms"] <= took
    assert 0 <= found["connect_ms"] <= took
    assert found["proxy"] is False
    assert not shared.records()
    assert connects(shared) in ([443], [])


def test_for_a_sandbox_it_is_in_its_log(shared: Stand) -> None:
    """The record is there before the name is asked for, and says that no program of the sandbox's did it."""
    assert probe(shared, WEB, 80, cell=CELL, allow=[WEB])["outcome"] == "reached"
    event = shared.event(host=WEB, kind="close")
    assert (event["protocol"], event["verdict"], event["outcome"]) == ("check", "allowed", "reached")
    assert event["reason"].startswith("checked by a person")
    asked = next(each for each in shared.arrivals() if each["kind"] == "dns")
    assert shared.records()[0]["at"] / 1e6 <= asked["at"]
    # The server notes it in its own time; the arrivals of the next test begin after it.
    eventually(lambda: 80 in connects(shared))


@pytest.mark.parametrize(
    ("host", "port", "outcome", "why"),
    [
        ("evil.example.test", 443, "refused", "no rule allows"),
        ("rebind-private.example.test", 443, "refused", "private"),
        ("none.example.test", 443, "unresolved", "not resolved"),
        (WEB, 81, "unreached", "connection refused"),
    ],
)
def test_what_is_not_reached_says_why(shared: Stand, host: str, port: int, outcome: str, why: str) -> None:
    """Rules, floor, resolver and server each have their outcome; nothing beneath the floor is dialled."""
    found = probe(shared, host, port, allow=[] if host == "evil.example.test" else ["*:*"])
    assert found["outcome"] == outcome
    assert why in found["error"]
    assert not connects(shared)


def test_what_is_no_question_is_refused(shared: Stand) -> None:
    """An invalid host, port or policy is answered with the reason, and the link goes on."""
    for host, port in (("a b", 1), (WEB, 0), (WEB, True)):
        with pytest.raises(RequestError):
            probe(shared, host, port)
    assert shared.ask("stats")["cells"] == 1
