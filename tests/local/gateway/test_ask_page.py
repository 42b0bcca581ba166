"""`POST http://irons.internal/ask`: the agent inside asks for a host, reads what becomes of it, and is granted nothing by that."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.e2e.lab import eventually
from tests.local.gateway.stand import Program, Stand
from tests.local.gateway.test_held import OTHER, ask, get, reply, watch

from irons.text import in_quotes
from irons_local import times
from irons_local.control.audit.records import fields
from irons_local.gateway.ask.allowance import HOUR, MOST_AN_HOUR, MOST_LISTENING, RequestAllowance
from irons_local.gateway.decide.ask_page import (
    BY_AGENT,
    MOST_BODY,
    MOST_REASON,
    PASSED,
    UNANSWERED,
    AgentRequest,
    InvalidRequestError,
    read_request,
)
from irons_policy.event import REQUEST_PROTOCOL

NEW, EVIL = "new.example.test", "evil.example.test"
INTERNAL = "irons.internal"
FOREVER = 300.0
POSTS = 10_000


def posted(body: bytes, kind: str = "application/json", host: str = INTERNAL, fields: str = "") -> bytes:
    """A request."""
    head = f"POST /ask HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
    return head.encode() + body


def wanted(host: str = OTHER, port: int = 80, reason: str = "to read a page", **more: Any) -> bytes:
    """Its body."""
    return json.dumps({"host": host, "port": port, "reason": reason, **more}).encode()


def send(stand: Stand, data: bytes) -> Program:
    """Send it."""
    return stand.connect(INTERNAL, 80).send(data)


def answer(program: Program) -> tuple[int, dict[str, Any]]:
    """The status and the object of an answer."""
    head, _, body = program.rest().partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def post(stand: Stand, data: bytes) -> tuple[int, dict[str, Any]]:
    """Send it and read the answer."""
    with send(stand, data) as program:
        return answer(program)


def page(stand: Stand) -> dict[str, Any]:
    """What `irons.internal` says of questions."""
    got = stand.http(INTERNAL, f"GET / HTTP/1.1\nHost: {INTERNAL}\n\n")
    found: dict[str, Any] = json.loads(got.partition(b"\r\n\r\n")[2])["asking"]
    return found


def questions(stand: Stand) -> dict[str, Any]:
    """The states of its questions, by host."""
    return {each["host"]: each["state"] for each in page(stand)["questions"]}


@pytest.fixture
def asked(stand: Stand) -> Stand:
    """A gateway of its own, whose sandbox is in mode ask, and that someone watches."""
    ask(stand, deny=(EVIL,))
    watch(stand)
    return stand


def test_it_opens_a_question_with_the_agents_words(asked: Stand) -> None:
    """It is recorded, cleaned, listed on the page, and no connection is made."""
    status, told = post(asked, posted(wanted(reason="to \x1b[2Jread\n" + "x" * 900)))
    assert (status, told["state"]) == (202, "open")
    (question,) = page(asked)["questions"]
    assert (question["host"], question["port"], question["waiting"]) == (OTHER, 80, 0)
    assert question["reason"].startswith("to \\x1b[2Jread\\nxxx")
    assert len(question["reason"]) == MOST_REASON
    event = asked.event(host=OTHER)
    assert (event["cause"], event["allowed"], event["port"]) == ("asked", False, 80)
    assert event["protocol"] == REQUEST_PROTOCOL
    assert event["reason"].startswith(f'{BY_AGENT}; its words: "to \\x1b[2Jread\\nxxx')
    assert not asked.arrivals()


@pytest.mark.parametrize("letter", ["\U0001f600", "\U000f0000", "漢", '"', "\x1b"])
def test_the_longest_words_are_in_the_log(asked: Stand, letter: str) -> None:
    """However wide the letters are, what is recorded fits the event's field, so the reason is not left out."""
    post(asked, posted(wanted(reason=letter * MOST_REASON)))
    recorded = asked.event(host=OTHER)["reason"]
    assert recorded.startswith(BY_AGENT)
    (question,) = page(asked)["questions"]
    assert in_quotes(question["reason"]) in recorded
    report: list[str] = []
    assert fields({"reason": recorded}, report.append)["reason"] == recorded
    assert not report


@pytest.mark.parametrize("first", ["request", "connection"])
def test_a_question_is_no_younger_than_its_own_record(asked: Stand, first: str) -> None:
    """So its record is none of what was tried before it, in what a person sees of it."""
    with contextlib.ExitStack() as held:
        if first == "request":
            post(asked, posted(wanted()))
        else:
            held.enter_context(get(asked))
            eventually(lambda: OTHER in questions(asked))
        (question,) = page(asked)["questions"]
        (earliest, *_) = [each["at"] for each in asked.records() if each.get("host") == OTHER]
        assert question["since"] <= times.rfc3339(earliest)


def test_its_answer_comes_to_who_waits_and_serves_the_next_connection(asked: Stand) -> None:
    """`once` is kept for the connection that comes, which a held request is not."""
    with send(asked, posted(wanted(wait=FOREVER))) as program:
        eventually(lambda: OTHER in questions(asked))
        assert reply(asked, "once") == 0
        status, told = answer(program)
    assert (status, told["state"]) == (200, "allowed")
    assert questions(asked)[OTHER] == "allowed"
    with get(asked) as client:
        assert client.read(12) == b"HTTP/1.1 200"


def test_no_is_told_and_not_asked_again(asked: Stand) -> None:
    """Who waits hears it, and who asks again is refused without a question."""
    with send(asked, posted(wanted(wait=FOREVER))) as program:
        eventually(lambda: OTHER in questions(asked))
        reply(asked, "no")
        assert answer(program)[1]["state"] == "refused"
    assert post(asked, posted(wanted()))[1]["state"] == "refused"
    assert questions(asked)[OTHER] == "refused"


def test_a_rule_answers_it(asked: Stand) -> None:
    """A rule that comes closes the question, and the agent reads what it says."""
    with send(asked, posted(wanted(wait=FOREVER))) as program:
        eventually(lambda: OTHER in questions(asked))
        ask(asked, allow=(OTHER,))
        assert answer(program)[1]["state"] == "allowed"
    assert post(asked, posted(wanted()))[1]["state"] == "allowed"


def test_it_adds_its_reason_to_a_connection_that_waits(asked: Stand) -> None:
    """There is one question for the place, and its answer is for both."""
    with get(asked) as client:
        eventually(lambda: OTHER in questions(asked))
        assert post(asked, posted(wanted(reason="the docs are there")))[1]["state"] == "open"
        (question,) = page(asked)["questions"]
        assert (question["waiting"], question["reason"]) == (1, "the docs are there")
        assert reply(asked, "once") == 1
        assert client.read(12) == b"HTTP/1.1 200"


def test_an_answer_that_a_connection_has_used_is_not_promised_again(asked: Stand) -> None:
    """Who waits next to a connection hears that it has passed, and not that the next one will."""
    with get(asked) as client, send(asked, posted(wanted(wait=FOREVER))) as program:
        eventually(lambda: any(each["reason"] and each["waiting"] for each in page(asked)["questions"]))
        assert reply(asked, "once") == 1
        assert client.read(12) == b"HTTP/1.1 200"
        status, told = answer(program)
    assert (status, told["state"], told["reason"]) == (200, "allowed", PASSED)


@pytest.mark.parametrize(
    ("host", "why"),
    [(EVIL, "denies it"), ("127.0.0.1", "no answer opens"), ("169.254.169.254", "no answer opens")],
)
def test_what_is_forbidden_is_refused_without_a_question(asked: Stand, host: str, why: str) -> None:
    """A deny rule and the floor are never asked about; it is in the log that the agent tried."""
    status, told = post(asked, posted(wanted(host, wait=FOREVER)))
    assert (status, told["state"]) == (200, "refused")
    assert why in told["reason"]
    assert not questions(asked)
    assert BY_AGENT in asked.event(host=host)["reason"]


def test_what_is_never_asked_about_is_refused(stand: Stand) -> None:
    """The agent reads which pattern it is, and no question opens."""
    ask(stand, never=[OTHER])
    watch(stand)
    status, told = post(stand, posted(wanted(wait=FOREVER)))
    assert (status, told["state"]) == (200, "refused")
    assert f"[ask] never has {OTHER}:*" in told["reason"]
    assert not questions(stand)


def test_whether_a_person_is_there_is_not_told(stand: Stand) -> None:
    """Where no one watches nothing waits, and the question is there for who comes; answer and page say the same as ever."""
    ask(stand)
    told = [post(stand, posted(wanted(wait=FOREVER))), page(stand).keys()]
    assert questions(stand) == {OTHER: "open"}
    watch(stand)
    assert [post(stand, posted(wanted())), page(stand).keys()] == told
    assert told[0] == (202, {"host": OTHER, "port": 80, "state": "open", "reason": UNANSWERED})
    assert told[1] == {"request", "questions"}


@pytest.mark.parametrize(("mode", "state"), [("deny", "refused"), ("warn", "allowed")])
def test_other_modes_ask_no_one(stand: Stand, mode: str, state: str) -> None:
    """It says what the mode does, and puts no question; the page has none."""
    stand.policy(mode)
    status, told = post(stand, posted(wanted(wait=FOREVER)))
    assert (status, told["state"]) == (200, state)
    got = stand.http(INTERNAL, f"GET / HTTP/1.1\nHost: {INTERNAL}\n\n")
    assert "asking" not in json.loads(got.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (posted(b"host=a", kind="application/x-www-form-urlencoded"), 415),
        (posted(wanted(), kind="text/plain"), 415),
        (posted(wanted(), host="rebound.example"), 403),
        (posted(wanted(), fields="Origin: http://rebound.example\r\n"), 403),
        (posted(wanted(), fields="Origin: null\r\n"), 403),
        (posted(wanted(reason="x" * MOST_BODY)), 413),
        (posted(wanted()).replace(b"POST", b"PUT"), 405),
        (b"GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n", 403),
        (b"OPTIONS /ask HTTP/1.1\r\nHost: irons.internal\r\nOrigin: http://a.example\r\n\r\n", 405),
        (posted(wanted(), fields="Transfer-Encoding: chunked\r\n").replace(b"Content-Length", b"X-Length"), 411),
        (posted(b"[]"), 400),
        (posted(b"{"), 400),
    ],
)  # fmt: skip
def test_what_a_page_in_a_browser_or_a_mistake_sends_asks_nothing(
    stand: Stand, data: bytes, status: int
) -> None:
    """A form, a rebinding page and a preflight get nothing, and nothing is put."""
    ask(stand)
    watch(stand)
    with send(stand, data) as program:
        assert int(program.rest().split()[1]) == status
    assert not questions(stand)
    assert not stand.records()


@pytest.mark.slow
def test_a_flood_is_bounded(asked: Stand) -> None:
    """Of 10,000 posts ten open questions with reasons, sixty pass in an hour, and no more are recorded, each as what became of it."""
    statuses = [post(asked, posted(wanted(f"h{number}.example.test")))[0] for number in range(POSTS)]
    assert statuses == [202] * 10 + [429] * (POSTS - 10)
    assert len(questions(asked)) == 10
    causes = [each.get("cause") for each in asked.records()]
    assert (causes.count("asked"), causes.count("cap")) == (10, MOST_AN_HOUR - 10)
    with send(asked, posted(wanted())) as program:
        head = program.rest().partition(b"\r\n\r\n")[0]
    assert b"\r\nRetry-After: " in head


def test_those_that_wait_leave_room_for_the_page(asked: Stand) -> None:
    """So many wait; the next is answered at once, and the page is there."""
    with contextlib.ExitStack() as held:
        programs = [
            held.enter_context(send(asked, posted(wanted(wait=FOREVER)))) for _ in range(MOST_LISTENING)
        ]
        eventually(
            lambda: len([each for each in asked.records() if each.get("host") == OTHER]) == len(programs)
        )
        assert post(asked, posted(wanted(wait=FOREVER)))[1]["state"] == "open"
        assert questions(asked) == {OTHER: "open"}
        reply(asked, "no")
        assert {answer(each)[1]["state"] for each in programs} == {"refused"}


def test_a_program_that_goes_waits_no_more(asked: Stand) -> None:
    """Its place is free, also where the time that it asked for is not over."""
    for _ in range(MOST_LISTENING + 1):
        with send(asked, posted(wanted(wait=FOREVER))) as program:
            eventually(lambda: OTHER in questions(asked))
            program.finish()
            assert answer(program)[1]["state"] == "open"
    with send(asked, posted(wanted(wait=FOREVER))) as program:
        reply(asked, "no")
        assert answer(program)[1]["state"] == "refused"


def test_the_allowance_comes_back() -> None:
    """An hour after one was taken there is another, and not sooner."""
    now = 1000.0
    allowance = RequestAllowance(lambda: now)
    assert [allowance.take() for _ in range(MOST_AN_HOUR)] == [None] * MOST_AN_HOUR
    now += 10
    assert allowance.take() == HOUR - 10
    now += HOUR - 10
    assert allowance.take() is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.binary(max_size=200)
    | _JSON.map(lambda each: json.dumps(each).encode())
    | st.fixed_dictionaries({"host": _JSON, "port": _JSON, "reason": _JSON}, optional={"wait": _JSON}).map(
        lambda each: json.dumps(each).encode()
    )
)
def test_any_body_is_read_or_refused(body: bytes) -> None:
    """What is read has a canonical host, a port, words without control characters, and a bounded wait."""
    wrong: InvalidRequestError | None = None
    found: AgentRequest | None = None
    try:
        found = read_request(body)
    except InvalidRequestError as error:
        wrong = error
    if found is None:
        assert wrong is not None
        assert wrong.status.startswith("400")
        assert str(wrong).isprintable()
        return
    assert 0 < found.place.port < 65_536
    assert found.reason
    assert found.reason.isprintable()
    assert len(found.reason) <= MOST_REASON
    assert 0 <= found.wait <= FOREVER


@pytest.mark.parametrize(
    "more",
    [
        {"port": "80"},
        {"port": True},
        {"port": 0},
        {"reason": " "},
        {"wait": -1},
        {"wait": 301},
        {"all": True},
    ],
)
def test_a_field_that_is_wrong_is_named(more: dict[str, Any]) -> None:
    """The error says which."""
    with pytest.raises(InvalidRequestError, match=next(iter(more))):
        read_request(wanted(**more))
