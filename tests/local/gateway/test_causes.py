"""Why the gateway decided and what became of it, as data: each record that ends an attempt says both."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import NamedTuple

import pytest
from tests.local.gateway.stand import Stand, client_hello

from irons_policy.causes import Cause, Outcome

WEB, OTHER, EVIL, NOWHERE = (
    "web.example.test",
    "other.example.test",
    "evil.example.test",
    "nowhere.example.test",
)
GET = "GET /hello HTTP/1.1\nHost: {}\nConnection: close\n\n"


def _http(host: str, head: str, port: int = 80) -> Callable[[Stand], None]:
    def run(stand: Stand) -> None:
        stand.http(host, head, port)

    return run


def _send(host: str, port: int, data: bytes) -> Callable[[Stand], None]:
    def run(stand: Stand) -> None:
        with stand.connect(host, port) as program:
            program.send(data).rest()

    return run


def _datagram(stand: Stand) -> None:
    with stand.net.socket(kind=socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(b"x", ("203.0.113.10", 9999))


class Case(NamedTuple):
    """What a program does, in which mode, and what the log then says of which host."""

    does: Callable[[Stand], None]
    mode: str
    host: str
    cause: Cause
    outcome: Outcome


CASES = {
    "a rule allows it": Case(_http(WEB, GET.format(WEB)), "deny", WEB, Cause.RULE, Outcome.REACHED),
    "a rule denies it": Case(_http(EVIL, GET.format(EVIL)), "deny", EVIL, Cause.RULE, Outcome.REFUSED),
    "a rule would deny it": Case(_http(EVIL, GET.format(EVIL)), "warn", EVIL, Cause.RULE, Outcome.REACHED),
    "no rule covers it": Case(
        _http(OTHER, GET.format(OTHER)), "deny", OTHER, Cause.UNCOVERED, Outcome.REFUSED
    ),
    "no rule would cover it": Case(
        _http(OTHER, GET.format(OTHER)), "warn", OTHER, Cause.UNCOVERED, Outcome.REACHED
    ),
    "it leads to a private address": Case(
        _http("rebind-private.example.test", GET.format("rebind-private.example.test")),
        "warn",
        "rebind-private.example.test",
        Cause.FLOOR,
        Outcome.REFUSED,
    ),
    "it leads to the metadata service": Case(
        _http("169.254.169.254", GET.format("169.254.169.254")),
        "warn",
        "169.254.169.254",
        Cause.NEVER,
        Outcome.REFUSED,
    ),
    "its address stands for no name": Case(
        _send("198.18.200.1", 443, b""), "warn", "198.18.200.1", Cause.NEVER, Outcome.REFUSED
    ),
    "it is UDP": Case(_datagram, "warn", "203.0.113.10", Cause.NEVER, Outcome.REFUSED),
    "its request is malformed": Case(
        _http(WEB, "GET / HTTP/1.1\nHost: a b\n\n"), "warn", WEB, Cause.MALFORMED, Outcome.REFUSED
    ),
    "its ClientHello is malformed": Case(
        _send(WEB, 443, client_hello(WEB)[:20] + bytes(4096)),
        "warn",
        WEB,
        Cause.MALFORMED,
        Outcome.REFUSED,
    ),
    "HTTP on port 443": Case(_http(WEB, GET.format(WEB), 443), "warn", WEB, Cause.PROTOCOL, Outcome.REFUSED),
    "neither on port 80": Case(_send(WEB, 80, b"\0binary\n"), "warn", WEB, Cause.PROTOCOL, Outcome.REFUSED),
    "CONNECT": Case(
        _http(WEB, f"CONNECT {WEB}:443 HTTP/1.1\nHost: {WEB}:443\n\n"),
        "warn",
        WEB,
        Cause.PROTOCOL,
        Outcome.REFUSED,
    ),
    "a second name": Case(_http(WEB, GET.format(EVIL)), "deny", EVIL, Cause.SECOND_NAME, Outcome.REFUSED),
    "its name has no address": Case(
        _http(NOWHERE, GET.format(NOWHERE)), "deny", NOWHERE, Cause.UNRESOLVED, Outcome.UNRESOLVED
    ),
    "no server answers": Case(
        _http(WEB, GET.format(WEB), 81), "deny", WEB, Cause.UNREACHED, Outcome.UNREACHED
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_end_has_its_cause_and_outcome(shared: Stand, case: Case) -> None:
    """The journal's last record of an attempt has what decided it, as data."""
    shared.policy(case.mode, [WEB, f"{WEB}:81", NOWHERE], deny=[EVIL])
    case.does(shared)
    event = shared.event(host=case.host, cause=case.cause, outcome=case.outcome)
    assert event["reason"] or case.outcome is Outcome.REACHED


def test_in_warn_both_names_have_the_cause(shared: Stand) -> None:
    """A second name that only mode warn lets pass is the cause under both names."""
    shared.policy("warn", [WEB])
    shared.http(WEB, GET.format(OTHER))
    for host in (WEB, OTHER):
        assert shared.event(host=host, cause=Cause.SECOND_NAME)["verdict"] == "warn"


def test_what_was_refused_on_an_open_connection_leaves_it_reached(shared: Stand) -> None:
    """A later request for another host is refused by an event of its own; its connection had reached its server."""
    shared.policy("deny", [WEB])
    both = f"GET / HTTP/1.1\nHost: {WEB}\n\n" + GET.format(EVIL)
    shared.http(WEB, both)
    assert shared.event(host=EVIL)["outcome"] == Outcome.REFUSED
    event = shared.event(host=WEB, kind="close")
    assert (event["outcome"], event["cause"]) == (Outcome.REACHED, Cause.SECOND_NAME)


def test_what_ends_by_itself_is_abandoned(shared: Stand) -> None:
    """A connection closed before a server was reached has neither reached nor been refused."""
    shared.policy("deny", [WEB])
    shared.connect(WEB, 443).close()
    assert shared.event(host=WEB, ended="closed without a byte")["outcome"] == Outcome.ABANDONED


def test_a_cut_says_that_the_rules_did_it(shared: Stand) -> None:
    """A connection that a new policy forbids ends with the rules as its cause."""
    shared.policy("deny", ["mail.example.test:25"])
    with shared.connect("mail.example.test", 25) as program:
        program.read(4)
        assert shared.policy("deny") == 1
        program.rest()
    event = shared.event(host="mail.example.test", kind="close")
    assert (event["outcome"], event["cause"]) == (Outcome.REACHED, Cause.RULE)


def test_the_page_inside_tells_causes(shared: Stand) -> None:
    """`http://irons.internal/` gives each refusal its cause, for programs inside."""
    shared.policy("deny", [WEB])
    shared.http(OTHER, GET.format(OTHER))
    page = shared.http("irons.internal", GET.replace("/hello", "/").format("irons.internal"))
    assert b'"cause": "uncovered"' in page
