"""Connections that wait for a person, at a running gateway: recorded before, decided by the answer, refused as ever without one."""

from __future__ import annotations

import contextlib
import select
import subprocess
from typing import Any

import pytest
from tests.e2e.lab import eventually
from tests.local.gateway.conversations import streams
from tests.local.gateway.stand import CELL, Program, Stand, policy

from irons_local.gateway.ask.asking import MOST_HELD

OTHER, EVIL, MAIL = "other.example.test", "evil.example.test", "mail.example.test"
GET = b"GET /hello HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"
OK, REFUSED = b"HTTP/1.1 200", b"HTTP/1.1 403"
LONG = 600.0
"""Seconds that no test takes: what would wait for them hangs."""


def ask(stand: Stand, *, allow: tuple[str, ...] = (), deny: tuple[str, ...] = (), **more: Any) -> None:
    """Put a policy of mode ask active, while no one watches."""
    stand.ask("questions.watch", lease=1e-6, hold=1.0, keys=0)
    sandbox = {"id": CELL, "name": "box"}
    asking = {**policy("deny", allow, deny=deny), "ask": True, **more}
    stand.ask("policy", cell=CELL, sandbox=sandbox, policy=asking)


def watch(stand: Stand, hold: float = LONG, keys: int = 1) -> None:
    """Have someone watch for as long as the test takes."""
    stand.ask("questions.watch", lease=LONG, hold=hold, keys=keys)


def reply(stand: Stand, said: str, host: str = OTHER, port: int = 80) -> int:
    """Answer for a place; gives how many waited."""
    answer = stand.ask("questions.reply", cell=CELL, host=host, port=port, reply=said)
    return int(answer["waited"])


def asked(stand: Stand, count: int = 1, program: subprocess.Popen[str] | None = None) -> list[dict[str, Any]]:
    """The records that a person is asked, once there are so many; a program that has ended by itself asks no more."""

    def found() -> list[dict[str, Any]] | None:
        records = [
            each for each in stand.records() if each["kind"] == "open" and each.get("cause") == "asked"
        ]
        if len(records) >= count:
            return records
        assert program is None or program.poll() is None, program.communicate()
        return None

    records = eventually(found, what="the record that a person is asked")
    assert isinstance(records, list)
    return records


def answered(programs: list[Program], count: int) -> list[Program] | None:
    """Those that have an answer, once there are so many."""
    ready, _, _ = select.select([each.sock for each in programs], [], [], 0)
    return [each for each in programs if each.sock in ready] if len(ready) >= count else None


def get(stand: Stand, host: str = OTHER) -> Program:
    """Send a request."""
    return stand.connect(host, 80).send(GET % host.encode())


def test_one_who_watches_another_sandbox_holds_nothing_here(shared: Stand) -> None:
    """A lease for some cells is for those alone; the rest is refused at once, as where no one watches."""
    ask(shared)
    own = {"lease": LONG, "hold": LONG, "keys": 1}
    shared.ask("questions.watch", lease=1e-9, hold=LONG, keys=0, cells={"sb_00000000000000bb": own})
    with get(shared) as refused:
        assert refused.read(12) == REFUSED
    assert not [each for each in shared.records() if each.get("cause") == "asked"]
    shared.ask("questions.watch", lease=1e-9, hold=LONG, keys=0, cells={CELL: own})
    with get(shared) as held:
        asked(shared)
        assert reply(shared, "once") == 1
        assert held.read(12) == OK


def test_nobody_watches(shared: Stand) -> None:
    """It is refused at once, with the page of `deny`; the record says that no one watched."""
    ask(shared)
    page = shared.http(OTHER, (GET % OTHER.encode()).decode().replace("\r\n", "\n"))
    assert page.startswith(b"HTTP/1.1 403")
    assert b"Retry-After" not in page
    event = shared.event(host=OTHER)
    reason = f"no rule allows {OTHER}"
    assert (event["mode"], event["cause"]) == ("ask", "uncovered")
    assert event["reason"] == f"{reason}; no person was watching (irons ask)"
    assert f": {reason}\n".encode() in page
    assert b"person" not in page
    assert not [each for each in shared.records() if each.get("cause") == "asked"]


@pytest.mark.parametrize("said", ["once", "no"])
def test_an_answer_is_for_those_that_wait(shared: Stand, said: str) -> None:
    """The record comes first; then all that wait go on, or are refused, and the log says that a person did it."""
    ask(shared)
    watch(shared)
    with contextlib.ExitStack() as held:
        programs = [held.enter_context(get(shared)) for _ in range(3)]
        records = asked(shared, 3)
        assert {each["host"] for each in records} == {OTHER}
        assert not shared.leaked(OTHER)
        assert reply(shared, said) == 3
        answers = {each.read(12) for each in programs}
    assert answers == {OK if said == "once" else REFUSED}
    event = shared.event(host=OTHER, cause="asked")
    assert event["reason"] == ("a person let it pass, once" if said == "once" else "a person refused it")
    assert event["allowed"] is (said == "once")


def test_http2_says_too_that_a_person_is_asked(shared: Stand) -> None:
    """The page and the field of HTTP/1 are in the answer on the stream."""
    ask(shared)
    watch(shared, hold=0.05, keys=3)
    with shared.connect(OTHER, 8080).send(streams(OTHER)) as program:
        seen = program.rest()
    assert b"retry-after" in seen
    assert b"A person is being asked" in seen


def test_what_is_never_asked_about_is_refused_at_once(shared: Stand) -> None:
    """While someone watches too; the reason has the pattern, and what is asked when such a pattern comes is refused."""
    ask(shared)
    watch(shared, keys=4)
    with get(shared) as held:
        asked(shared)
        ask(shared, never=["*.example.test"])
        watch(shared, keys=5)
        assert held.read(12) == REFUSED
    with get(shared) as program:
        page = program.rest()
    assert page.startswith(REFUSED)
    assert b"[ask] never has *.example.test:*, so no person is asked" in page
    assert b"Retry-After" not in page
    event = shared.event(host=OTHER)
    assert (event["mode"], event["cause"]) == ("ask", "uncovered")
    assert reply(shared, "once") == 0
    with get(shared) as program:
        assert program.read(12) == REFUSED


def test_no_is_remembered_and_once_is_for_the_next(shared: Stand) -> None:
    """Where none waits, `once` is for the connection that comes; `no` refuses without another question."""
    ask(shared)
    watch(shared)
    assert reply(shared, "no") == 0
    with get(shared) as program:
        assert program.read(12) == REFUSED
    assert reply(shared, "once") == 0
    with get(shared) as program:
        assert program.read(12) == OK
    assert not [each for each in shared.records() if each["kind"] == "open" and each.get("cause") == "asked"]


def test_a_rule_releases_what_waits(shared: Stand) -> None:
    """A rule that covers it decides, whichever way; so does another mode."""
    ask(shared)
    watch(shared)
    with get(shared) as program:
        asked(shared)
        ask(shared, allow=(OTHER,))
        assert program.read(12) == OK
    assert shared.event(host=OTHER)["rule"] == OTHER
    shared.mark()
    ask(shared)
    watch(shared)
    with get(shared) as program:
        asked(shared)
        shared.policy("deny")
        assert program.read(12) == REFUSED
    assert shared.event(host=OTHER, allowed=False)["mode"] == "deny"


def test_without_an_answer_it_is_refused_and_may_be_tried_again(shared: Stand) -> None:
    """The refusal says that a person is asked; the answer that comes afterwards serves the next try."""
    ask(shared)
    watch(shared, hold=0.05, keys=2)
    with get(shared) as program:
        page = program.rest()
    assert page.startswith(b"HTTP/1.1 403")
    assert b"\r\nRetry-After: " in page
    assert b"A person is being asked" in page
    event = shared.event(host=OTHER)
    assert event["cause"] == "uncovered"
    assert event["reason"].endswith("a person was asked, and did not answer in time")
    reply(shared, "once")
    with get(shared) as program:
        assert program.read(12) == OK


def test_another_policy_keeps_nothing_waiting(shared: Stand) -> None:
    """A policy that says nothing of what waits takes neither its end nor its record, also where it was put just then."""
    ask(shared)
    watch(shared, hold=1.0)
    with get(shared) as program:
        asked(shared)
        sandbox = {"id": CELL, "name": "box"}
        other = {**policy("deny", ("unrelated.example",)), "ask": True}
        shared.ask("policy", cell=CELL, sandbox=sandbox, policy=other)
        assert program.read(12) == REFUSED
    assert shared.event(host=OTHER, cause="uncovered")["allowed"] is False
    watch(shared)
    with contextlib.ExitStack() as held:
        for _ in range(MOST_HELD):
            held.enter_context(get(shared))
        asked(shared, MOST_HELD + 1)


def test_what_is_never_asked_about(shared: Stand) -> None:
    """A deny rule, the floor, what is malformed and a second name are refused though someone watches."""
    ask(shared, allow=("web.example.test",), deny=(EVIL,))
    watch(shared)
    for host, data in (
        (EVIL, GET % EVIL.encode()),
        ("10.0.0.1", GET % b"10.0.0.1"),
        (OTHER, b"GET / HTTP/1.1\r\nHost : x\r\n\r\n"),
        ("web.example.test", GET % OTHER.encode()),
    ):
        if host == OTHER:
            # What is wrong with the head is not known before it is asked whether the name may pass.
            reply(shared, "once")
        with shared.connect(host, 80) as program:
            assert not program.send(data).rest().startswith(b"HTTP/1.1 200")
    assert not [each for each in shared.records() if each["kind"] == "open" and each.get("cause") == "asked"]
    assert not shared.leaked("/hello")


def test_what_waits_for_its_server_first_is_asked_about_too(shared: Stand) -> None:
    """A client that says nothing first is held as well, and what a person let pass outlives another policy."""
    ask(shared)
    watch(shared)
    with shared.connect(MAIL, 25) as program:
        asked(shared)
        assert reply(shared, "once", MAIL, 25) == 1
        assert program.read(4) == b"220 "
        # It lives on through another policy, until a deny rule forbids it.
        ask(shared, allow=("web.example.test",))
        assert shared.policy("deny") == 0
        assert shared.policy("deny", deny=[MAIL + ":25"]) == 1
        assert program.rest().endswith(b"RESET")


def test_those_that_wait_take_no_place_of_others(shared: Stand) -> None:
    """What waits is bounded by itself: others of the sandbox come through, and further ones are refused at once."""
    ask(shared, allow=("web.example.test",))
    watch(shared)
    with contextlib.ExitStack() as held:
        programs = [held.enter_context(get(shared)) for _ in range(70)]
        asked(shared, 64)
        refused = eventually(lambda: answered(programs, 6), what="the six beyond")
        assert {each.read(12) for each in refused} == {REFUSED}
        eventually(lambda: shared.ask("stats")["undecided"] == 0)
        with get(shared, "web.example.test") as program:
            assert program.read(12) == OK
        assert reply(shared, "no") == 64


def test_the_control_plane_hears_of_it(shared: Stand) -> None:
    """A notice has all open questions of the cell; the answer closes them, and is in a notice while it counts."""
    ask(shared)
    watch(shared)
    assert shared.server is not None
    host = "heard.example.test"
    with get(shared, host) as program:
        body = shared.server.recv().body
        # Those of earlier tests come first.
        while host not in {each["host"] for each in body.get("questions", ())}:
            body = shared.server.recv().body
        (question,) = body["questions"]
        assert (question["host"], question["port"], question["protocol"]) == (host, 80, "http")
        assert (question["count"], question["waiting"], body["cell"]) == (1, 1, CELL)
        assert question["ends"] == [*program.sock.getsockname(), *program.sock.getpeername()]
        reply(shared, "no", host)
        program.rest()
        while not (answers := body.get("answers")) or host not in {each["host"] for each in answers}:
            body = shared.server.recv().body
    (answer,) = (each for each in answers if each["host"] == host)
    assert (answer["port"], answer["reply"], answer["left"] > 0) == (80, "no", True)
