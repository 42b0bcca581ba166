"""Playbooks: a connection's whole life as a list of events and the actions that each leads to."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from tests.local.gateway.conversations import (
    BANNER,
    EVIL,
    GOOD,
    SECRET,
    SERVER_HELLO,
    SETTINGS,
    answered,
    request,
    streams,
)
from tests.local.gateway.stand import client_hello, policy
from tests.local.gateway.talks import LEADS, LITERAL, TLS, stand_still

from irons_local.gateway.budget import patience
from irons_local.gateway.budget.undecided import Budget
from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.conversation.actions import Waits
from irons_local.gateway.conversation.events import Side
from irons_local.gateway.conversation.life import Conversation, Means
from irons_local.gateway.decide import pages
from irons_local.gateway.decide.verdicts import Judged, RefusedError
from irons_local.gateway.http1.absolute import ANSWER_TIMEOUT, Forwarding, rewritten
from irons_local.gateway.http1.heads import parse_head
from irons_local.gateway.http2 import frames as h2
from irons_local.gateway.http2.budget import FrameBudget
from irons_local.gateway.record.refusal import Refusal
from irons_local.gateway.tls.client_hello import BadHelloError, Reader
from irons_policy.causes import Cause, Outcome
from irons_policy.decide import Live, decide
from irons_policy.hostnames import Host
from irons_policy.policy import Policy

Line = ev.Event | list[do.Action]
CLIENT, SERVER = Side
WEB, BAD, WHERE = Host(GOOD), Host(EVIL), Host(LITERAL, ip_address(LITERAL))
JUDGED = Judged(WEB, decide(Policy.from_json(policy(allow=[f"{GOOD}:*"])), WEB, 80))
NO = RefusedError(Refusal(EVIL, 80, "http", "deny", None, "no rule covers it", Cause.UNCOVERED))
PASSING = ev.Passing({LEADS: JUDGED})


def machine(port: int = 80, name: Host | None = WEB, budget: Budget | None = None) -> Conversation:
    """A connection to a name that is allowed."""
    accepted = ev.Accepted(WHERE, port, name, name is not None, allowed=True, mode="deny", sandbox="box")
    return Conversation(Means(TLS, None, budget or Budget(), FrameBudget(clock=stand_still)), accepted)


def play(talk: Conversation, *lines: Line) -> None:
    """Play a conversation: each event must lead to exactly the actions in the list after it."""
    done = talk.begin()
    for line in lines:
        if isinstance(line, list):
            assert done == line
            # They are tuples, which may be equal though one is for sending and the other for closing.
            assert [type(action) for action in done] == [type(action) for action in line]
            done = []
        else:
            assert done == []
            done = talk.receive(line)
            while talk.exchange.busy:
                done += talk.go_on()
    assert done == []


def names(*claimed: Host, port: int = 80, protocol: str = "http", **more: Any) -> do.Judge:
    """The question about names."""
    return do.Judge(do.Names(WEB, WHERE, port, claimed, protocol, **more))


def reaching(port: int, protocol: str, *then: do.Action) -> list[Line]:
    """From the verdict to the server that is reached; `then` is what follows at once."""
    return [
        ev.Verdict(JUDGED),
        [do.Lookup(WEB)],
        ev.Known(None),
        [do.Reach(WEB), do.Resolve(WEB), do.Hold(Waits.NAME, None)],
        ev.Resolved((LEADS,)),
        [do.Judge(do.Addresses(JUDGED, port, protocol, (LEADS,)))],
        PASSING,
        [do.Choose(JUDGED, LEADS), do.Dial((LEADS,), port), do.Hold(Waits.DIAL, None)],
        ev.Reached(LEADS),
        [*then],
    ]


def closed(text: str = "closed", outcome: Outcome = Outcome.REACHED, **more: Any) -> do.Close:
    """The end of a connection that was judged."""
    return do.Close(WEB, JUDGED, text, outcome, **more)


BEGUN: list[do.Action] = [do.Open(WEB), do.Hold(Waits.BEGINNING, patience.PATIENCE)]
HTTP_BEGUN: list[Line] = [
    BEGUN,
    ev.Bytes(CLIENT, request()),
    [do.Speaks("http"), names(early=True)],
    ev.Verdict(JUDGED),
    [names(WEB)],
]
ASKED: list[do.Action] = [do.Forward(SERVER, request())]
TLS_BEGUN: list[Line] = [
    BEGUN,
    ev.Bytes(CLIENT, SECRET),
    [do.Speaks("tls"), names(WEB, port=443, protocol="tls")],
]
WAITS = do.Hold(Waits.ANSWER, None)
MAIL_BEGUN: list[Line] = [[do.Open(WEB), do.Hold(Waits.BEGINNING, patience.GRACE_NAMED)]]


def test_http() -> None:
    """A request is judged, its server is looked up, recorded and dialled, and the answer goes by by itself."""
    play(
        machine(),
        *HTTP_BEGUN,
        *reaching(80, "http", do.Pass(SERVER), *ASKED),
        ev.Bytes(CLIENT, request(EVIL)),
        [names(BAD, reached=True)],
        ev.Denied(NO),
        [do.Refuse(NO, True), closing(NO, host=WEB, judged=JUDGED, reached=True)],
    )


def closing(
    error: RefusedError,
    *,
    host: Host,
    judged: Judged | None,
    reached: bool = False,
    words: bytes | None = None,
) -> do.Close:
    """The end that a refusal leads to; HTTP gets a page."""
    refusal = error.refusal
    page = pages.forbidden(refusal.host, refusal.port, refusal.reason, error.command("box"))
    outcome = Outcome.REACHED if reached else Outcome.REFUSED
    said = page if words is None else words
    text = f"refused: {refusal.reason}"
    return do.Close(host, judged, text, outcome, refusal.cause, said, reset=True, answers=reached)


def test_http_that_is_over() -> None:
    """The client's end is passed on to the server, and the server's end closes the connection."""
    play(
        machine(),
        *HTTP_BEGUN,
        *reaching(80, "http", do.Pass(SERVER), *ASKED),
        ev.End(CLIENT),
        [do.Finish(SERVER)],
        ev.End(SERVER),
        [do.Finish(CLIENT), closed()],
    )


def test_a_client_has_a_moment_after_its_server() -> None:
    """A server that has answered and ended leaves its client a moment."""
    talk = machine()
    play(talk, *HTTP_BEGUN, *reaching(80, "http", do.Pass(SERVER), *ASKED))
    assert talk.receive(ev.End(SERVER)) == [do.Finish(CLIENT), do.Hold(Waits.CLOSING, patience.CLOSING)]
    assert talk.exchange.holding is not None
    assert talk.receive(ev.DeadlinePassed(talk.exchange.holding)) == [do.Finish(SERVER), closed()]
    assert talk.over


@pytest.mark.parametrize("moment", ["at once", "from outside", "too late", "meanwhile"])
def test_a_verdict_may_be_asked_for_outside(moment: str) -> None:
    """A judge that asks a person holds the connection, with a reason and a deadline; the answer may be yes, no or none."""
    talk = machine()
    play(talk, *HTTP_BEGUN)
    if moment != "at once":
        asked = talk.receive(ev.Asked("web.test is not covered yet", 30.0, NO))
        assert asked == [do.Hold(Waits.ASKED, 30.0, "web.test is not covered yet")]
    hold = talk.exchange.holding
    if moment == "too late":
        assert hold is not None
        assert talk.receive(ev.DeadlinePassed(hold._replace())) == []
        done = talk.receive(ev.DeadlinePassed(hold))
        assert done == [do.Refuse(NO, False), closing(NO, host=WEB, judged=None)]
        return
    if moment == "meanwhile":
        # Another policy may know the answer.
        assert talk.receive(ev.PolicyChanged("warn")) == [names(WEB)]
    assert talk.receive(ev.Bytes(CLIENT, request())) == []
    assert talk.receive(ev.Verdict(JUDGED)) == [do.Lookup(WEB)]
    assert talk.exchange.holding is None


def test_no_from_outside() -> None:
    """Denied from outside, nothing outside has heard of it."""
    play(
        machine(),
        *HTTP_BEGUN,
        ev.Asked("web.test is not covered yet", 30.0, NO),
        [do.Hold(Waits.ASKED, 30.0, "web.test is not covered yet")],
        ev.Denied(NO),
        [do.Refuse(NO, False), closing(NO, host=WEB, judged=None)],
    )


def test_a_later_request_of_http2_may_be_asked_about_too() -> None:
    """While one request of HTTP/2 is asked about, nothing more of the client goes on; what its server says does."""
    talk = machine(8080)
    both = streams(GOOD, GOOD)
    one, two = streams(GOOD), both[len(streams(GOOD)) :]
    begun = h2.settings({h2.MAX_CONCURRENT_STREAMS: 256})
    first = one[len(h2.PREFACE) :]
    play(
        talk,
        [do.Open(WEB), do.Hold(Waits.BEGINNING, patience.GRACE_NAMED)],
        ev.Bytes(CLIENT, one),
        [do.Speaks("http"), do.Hold(Waits.REQUEST, patience.REQUEST), names(WEB, port=8080)],
        ev.Asked("why", 9.0, NO),
        [do.Hold(Waits.ASKED, 9.0, "why")],
        ev.Verdict(JUDGED),
        [do.Forward(CLIENT, begun), do.Lookup(WEB)],
        ev.Known((LEADS,)),
        [do.Judge(do.Addresses(JUDGED, 8080, "http", (LEADS,)))],
        PASSING,
        [do.Reach(WEB), do.Choose(JUDGED, LEADS), do.Dial((LEADS,), 8080), do.Hold(Waits.DIAL, None)],
        ev.Reached(LEADS),
        [do.Forward(SERVER, h2.PREFACE + h2.settings({h2.ENABLE_PUSH: 0})), WAITS],
        ev.Bytes(SERVER, SETTINGS),
        [do.Forward(SERVER, h2.settings({h2.ENABLE_PUSH: 0}) + first[9:]), do.Forward(CLIENT, SETTINGS)],
        ev.Bytes(CLIENT, two),
        [names(WEB, port=8080, reached=True)],
        ev.Asked("why", 9.0, NO),
        [do.Hold(Waits.ASKED, 9.0, "why")],
        ev.Bytes(SERVER, answered()),
        [do.Forward(CLIENT, answered())],
        ev.Bytes(CLIENT, h2.frame(h2.PING, 0, 0, bytes(8))),
        [],
        ev.Verdict(JUDGED),
        [do.Forward(SERVER, two), do.Forward(SERVER, h2.frame(h2.PING, 0, 0, bytes(8)))],
        ev.End(CLIENT),
        [do.Finish(SERVER)],
        ev.End(SERVER),
        [do.Finish(CLIENT), closed()],
    )


def test_tls() -> None:
    """Exactly the ClientHello goes on, what follows it waits for the server's answer, and then all goes by."""
    more = b"\x17\x03\x03\0\x01x"
    play(
        machine(443),
        *TLS_BEGUN,
        *reaching(443, "tls", do.Forward(SERVER, SECRET), WAITS),
        ev.Bytes(CLIENT, more),
        [],
        ev.Bytes(SERVER, SERVER_HELLO),
        [
            do.Forward(CLIENT, SERVER_HELLO),
            do.Forward(SERVER, more),
            do.Pass(SERVER),
            do.Pass(CLIENT),
        ],
        ev.End(SERVER),
        [do.Finish(CLIENT)],
        ev.End(CLIENT),
        [do.Finish(SERVER), closed()],
    )


def test_a_late_name() -> None:
    """After STARTTLS the server is listened to again, and the name in the ClientHello is judged before a byte of it goes on."""
    secret = client_hello(EVIL)
    no = RefusedError(NO.refusal._replace(protocol="tls"))
    play(
        machine(2525),
        *MAIL_BEGUN,
        ev.Bytes(CLIENT, b"STARTTLS\r\n"),
        [names(port=2525, protocol="tcp")],
        *reaching(2525, "tcp", do.Forward(SERVER, b"STARTTLS\r\n")),
        ev.Bytes(SERVER, BANNER),
        [do.Forward(CLIENT, BANNER), do.Pass(SERVER)],
        ev.Bytes(CLIENT, secret),
        [do.Stop(SERVER), do.Speaks("tls"), names(BAD, port=2525, protocol="tls", reached=True)],
        ev.Denied(no),
        [do.Refuse(no, True), closing(no, host=WEB, judged=JUDGED, reached=True, words=refusing(secret))],
    )


def refusing(secret: bytes) -> bytes:
    """The alert that refuses a ClientHello."""
    try:
        hello = Reader(TLS).feed(secret)
    except BadHelloError as error:
        return error.alert
    assert hello is not None
    return hello.alert


def test_a_name_without_an_address() -> None:
    """A name that is not resolved has its verdict recorded, and the program gets the reason."""
    talk = machine()
    play(talk, *HTTP_BEGUN, ev.Verdict(JUDGED), [do.Lookup(WEB)])
    assert talk.receive(ev.Known(None))[:2] == [do.Reach(WEB), do.Resolve(WEB)]
    choose, close = talk.receive(ev.Unresolved("no such name"))
    assert choose == do.Choose(JUDGED, None)
    assert isinstance(close, do.Close)
    assert (close.outcome, close.cause) == (Outcome.UNRESOLVED, Cause.UNRESOLVED)
    assert close.words.startswith(b"HTTP/1.1 502 ")


def test_a_name_that_the_proxy_resolves() -> None:
    """The host resolves it too, within a bound, and the rules are asked again before the proxy is; it needs no address."""
    by_name = do.Judge(do.ByName(JUDGED, 443, "tls"))
    reason = f"{JUDGED.decision.reason}; the upstream proxy resolves the name"
    chosen = JUDGED._replace(decision=JUDGED.decision._replace(reason=reason))
    play(
        machine(443),
        *TLS_BEGUN,
        ev.Verdict(JUDGED),
        [do.Lookup(WEB)],
        ev.ByProxy(),
        [by_name],
        ev.Verdict(JUDGED),
        [do.Reach(WEB), do.Resolve(WEB, 3.0), do.Hold(Waits.NAME, None)],
        ev.Resolved((LEADS,)),
        [do.Judge(do.Addresses(JUDGED, 443, "tls", (LEADS,)))],
        PASSING,
        [by_name],
        ev.Verdict(JUDGED),
        [do.Choose(chosen, None), do.DialName(WEB, 443), do.Hold(Waits.DIAL, None)],
        ev.Reached(None),
        [do.Forward(SERVER, SECRET), WAITS],
    )


@pytest.mark.parametrize("moment", ["at once", "beneath the floor", "meanwhile"])
def test_a_name_that_the_proxy_may_not_resolve(moment: str) -> None:
    """Refused at any of the three moments, the proxy is not asked."""
    talk = machine(443)
    events: list[ev.Event] = [ev.Bytes(CLIENT, SECRET), ev.Verdict(JUDGED), ev.ByProxy()]
    if moment != "at once":
        events += [ev.Verdict(JUDGED), ev.Resolved((LEADS,))]
    if moment == "meanwhile":
        events += [PASSING]
    talk.begin()
    for event in events:
        assert not any(isinstance(action, do.DialName) for action in talk.receive(event))
    refuse, close = talk.receive(ev.Denied(NO))
    assert refuse == do.Refuse(NO, False)
    assert isinstance(close, do.Close)
    assert close.outcome is Outcome.REFUSED


def test_a_proxy_that_answers_in_a_servers_place() -> None:
    """A request goes to it in absolute form, and of its own word nothing goes to the client: no server was reached."""
    way = Forwarding(b"203.0.113.7", None)
    head = rewritten(parse_head(request()), way)
    talk = machine()
    play(
        talk,
        *HTTP_BEGUN,
        *reaching(80, "http")[:-2],
        ev.Reached(LEADS, way),
        [do.Forward(SERVER, head.wire()), do.Hold(Waits.ANSWER, ANSWER_TIMEOUT)],
        ev.Bytes(SERVER, b"HTTP/1.1 407 "),
        [],
    )
    (close,) = talk.receive(ev.Bytes(SERVER, b"No\r\n\r\n"))
    assert isinstance(close, do.Close)
    assert (close.outcome, close.reset) == (Outcome.UNREACHED, True)
    assert b"wants a user and password" in close.words


def test_between_two_dials_the_rules_are_asked_again() -> None:
    """The second address is judged by the rules of that moment."""
    talk, other = machine(), WHERE.address
    assert other is not None
    play(talk, *HTTP_BEGUN, *reaching(80, "http")[:-2])
    assert talk.receive(ev.Dialling(other)) == [do.Judge(do.Addresses(JUDGED, 80, "http", (other,)))]
    assert talk.receive(ev.Denied(NO))[0] == do.Refuse(NO, False)


def test_no_room_for_a_server() -> None:
    """A driver that cannot do what is wanted answers with that, and the program gets the reason."""
    talk = machine()
    play(talk, *HTTP_BEGUN, ev.Verdict(JUDGED), [do.Lookup(WEB)])
    assert talk.receive(ev.Known((LEADS,))) == [do.Judge(do.Addresses(JUDGED, 80, "http", (LEADS,)))]
    assert talk.receive(PASSING)[0] == do.Reach(WEB)
    assert talk.receive(ev.Denied(NO)) == [do.Refuse(NO, False), closing(NO, host=WEB, judged=JUDGED)]


def test_another_policy_asks_about_what_goes_on() -> None:
    """What goes on is asked about again, and can be cut from outside, at any moment."""
    talk = machine()
    play(talk, *HTTP_BEGUN, *reaching(80, "http", do.Pass(SERVER), *ASKED))
    standing = do.Standing(Live(WEB, 80, LEADS), False)
    assert talk.receive(ev.PolicyChanged("deny")) == [do.Judge(standing)]
    assert talk.receive(ev.Cut("cut: the rules no longer allow it", Cause.RULE)) == [
        closed("cut: the rules no longer allow it", cause=Cause.RULE, reset=True)
    ]
    assert talk.over
    assert talk.receive(ev.Bytes(CLIENT, request())) == []


UNWRITTEN = "refused: the audit log cannot be written"


@pytest.mark.parametrize("steps", range(7))
def test_a_record_that_cannot_be_written_ends_it(steps: int) -> None:
    """However far it was, nothing is left to do but to close with a reset, without a word to either side."""
    talk = machine()
    events = [line for line in (*HTTP_BEGUN, *reaching(80, "http")) if not isinstance(line, list)]
    done = talk.begin()
    for event in events[:steps]:
        done = talk.receive(event)
    assert not talk.over, done
    judged = JUDGED if steps > 2 else None
    reached = any(isinstance(event, ev.Reached) for event in events[:steps])
    outcome = Outcome.REACHED if reached else Outcome.REFUSED
    close = do.Close(WEB, judged, UNWRITTEN, outcome, Cause.JOURNAL, reset=True)
    assert talk.receive(ev.RecordFailed()) == [close]
    assert talk.over
    assert talk.receive(ev.RecordFailed()) == []


@pytest.mark.parametrize(
    ("event", "close"),
    [
        (ev.RecordFailed(), do.Close(WEB, None, UNWRITTEN, Outcome.REFUSED, Cause.JOURNAL, reset=True)),
        (ev.Broken("broken pipe"), do.Close(WEB, None, "broken pipe", Outcome.ABANDONED, reset=True)),
    ],
    ids=["no record", "no peer"],
)
def test_a_refusal_that_cannot_be_carried_out(event: ev.Event, close: do.Close) -> None:
    """The page that a refusal leads to is left undone where what comes before it failed, and the connection still ends."""
    talk = machine()
    play(talk, *HTTP_BEGUN)
    refuse, page = talk.receive(ev.Denied(NO))
    assert isinstance(refuse, do.Refuse)
    assert isinstance(page, do.Close)
    assert page.words
    assert talk.receive(event) == [close]
    assert talk.receive(event) == []


@pytest.mark.parametrize(
    ("port", "said", "waits", "reason"),
    [
        (443, b"", Waits.BEGINNING, "nothing was sent"),
        (80, b"hello", Waits.FIRST_LINE, "port 80 must speak HTTP"),
        (443, SECRET[:60], Waits.HELLO, "the ClientHello was not finished in time"),
        (80, request()[:-2], Waits.HEAD, "malformed request: its head was not finished in time"),
    ],
    # A ClientHello is another one in each process, so it names no test.
    ids=["silent", "line", "hello", "head"],
)
def test_what_is_not_finished_in_time(port: int, said: bytes, waits: Waits, reason: str) -> None:
    """Each hold has its deadline, and passing it is a refusal before anything outside has heard of it."""
    talk = machine(port)
    done = talk.begin() + (talk.receive(ev.Bytes(CLIENT, said)) if said else [])
    while isinstance(done[-1], do.Judge):
        done = talk.receive(ev.Verdict(JUDGED))
    assert talk.exchange.holding is not None
    assert talk.exchange.holding.waits is waits
    done = talk.receive(ev.DeadlinePassed(talk.exchange.holding))
    if isinstance(done[-1], do.Judge):
        done = talk.receive(ev.Verdict(JUDGED))
    refuse = done[-2]
    assert isinstance(refuse, do.Refuse)
    assert (refuse.error.refusal.reason, refuse.reached) == (reason, False)
    assert talk.over


def test_a_silent_client_may_wait_for_its_server() -> None:
    """Where the server may be the one that speaks first, it is dialled without a word of the client's."""
    talk = machine(2525)
    talk.begin()
    assert talk.exchange.holding is not None
    assert talk.receive(ev.DeadlinePassed(talk.exchange.holding)) == [names(port=2525, protocol="tcp")]
    for event in [line for line in reaching(2525, "tcp") if not isinstance(line, list)]:
        talk.receive(event)
    assert set(talk.exchange.wants) == {CLIENT, SERVER}
    assert talk.receive(ev.Bytes(SERVER, BANNER)) == [do.Forward(CLIENT, BANNER), do.Pass(SERVER)]


def test_a_text_line_goes_on_once_it_has_waited() -> None:
    """Half a line that may still become a request is held, and goes on when its time is over."""
    talk = machine(2525)
    talk.begin()
    talk.receive(ev.Bytes(CLIENT, b"hello\n"))
    for event in [line for line in reaching(2525, "tcp") if not isinstance(line, list)]:
        talk.receive(event)
    assert talk.receive(ev.Bytes(CLIENT, b"\x16")) == [do.Hold(Waits.MORE, patience.LINE)]
    assert talk.exchange.holding is not None
    assert talk.receive(ev.DeadlinePassed(talk.exchange.holding)) == [do.Forward(SERVER, b"\x16")]


def test_what_is_undecided_has_a_bound() -> None:
    """What a client says before it is clear what it wants counts, and is given back when the connection is over."""
    budget = Budget(10_000)
    talk = machine(budget=budget)
    talk.begin()
    head = request(GOOD, "GET / HTTP/1.1", "X: " + "x" * 20_000)
    talk.receive(ev.Bytes(CLIENT, head[:10_000]))
    assert budget.held
    done = talk.receive(ev.Bytes(CLIENT, head[10_000:-4]))
    assert isinstance(done[0], do.Refuse)
    assert done[0].error.refusal.cause is Cause.CAP
    assert budget.held == 0


def test_a_broken_connection_ends() -> None:
    """However far it was."""
    play(
        machine(),
        BEGUN,
        ev.Broken("reset by the client"),
        [do.Close(WEB, None, "reset by the client", Outcome.ABANDONED, reset=True)],
    )


def test_an_address_that_stands_for_no_name() -> None:
    """It is refused without a question."""
    accepted = ev.Accepted(WHERE, 80, None, synthetic=True, allowed=False, mode="deny")
    talk = Conversation(Means(TLS, None, Budget(), FrameBudget(clock=stand_still)), accepted)
    opened, refuse, _ = talk.begin()
    assert opened == do.Open(WHERE)
    assert isinstance(refuse, do.Refuse)
    assert refuse.error.refusal.cause is Cause.NEVER
