"""The way of a connection, from a program in a cell to what arrives at the internet."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from functools import partial
from typing import Any

import pytest
from tests.e2e.lab import eventually
from tests.local.gateway.stand import (
    BANNER,
    CELL,
    TRIES,
    Program,
    Stand,
    client_hello,
    in_time,
    policy,
    quick,
    retry_request,
)

from irons_local.gateway.reach.resolve import REMEMBER
from irons_local.gateway.record.folding import WINDOW

WEB, OTHER, EVIL = "web.example.test", "other.example.test", "evil.example.test"
GET = "GET /hello HTTP/1.1\nHost: {}\nConnection: close\n\n"


def test_an_allowed_request_is_answered_and_recorded(shared: Stand) -> None:
    """An allowed name answers over HTTP, and the log has its opening, verdict and closing record."""
    shared.policy("deny", [WEB])
    answer = shared.http(WEB, GET.format(WEB))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    event = shared.event(host=WEB, kind="close")
    assert [each["kind"] for each in shared.records()] == ["open", "verdict", "close"]
    assert (event["verdict"], event["protocol"], event["rule"]) == ("allowed", "http", WEB)
    assert (event["address"], event["ended"]) == ("203.0.113.10", "closed")
    assert event["bytes_in"] == len(answer)


def test_a_denied_request_gets_a_403_that_says_what_to_type(shared: Stand) -> None:
    """A denied name is refused by a page that names it and the command, and nothing of it gets out."""
    shared.policy("deny", [WEB])
    answer = shared.http(EVIL, GET.format(EVIL))
    assert answer.startswith(b"HTTP/1.1 403 Forbidden")
    assert b"evil.example.test:80" in answer
    assert answer.endswith(b"irons: irons egress allow evil.example.test --sandbox box\n")
    assert shared.event(host=EVIL)["verdict"] == "blocked"
    assert not shared.arrivals()


@pytest.mark.parametrize(("scope", "where"), [("account", ""), ("sandbox", " --sandbox box")])
def test_a_deny_rule_is_told_with_the_command_that_finds_it(shared: Stand, scope: str, where: str) -> None:
    """A rule of the sandbox's own is not the account's: the command names the sandbox, on the page and for programs."""
    shared.policy("deny", [WEB, {"pattern": EVIL, "list": "deny", "scope": scope}])
    allow = f"irons egress allow {EVIL} --sandbox box"
    command = allow if where else f"irons egress remove {EVIL} --all && {allow}"
    page = shared.http(EVIL, GET.format(EVIL)).decode()
    assert page.endswith(f"irons: {command}\n")
    seen = shared.http("irons.internal", "GET / HTTP/1.1\nHost: irons.internal\n\n")
    assert json.loads(seen.partition(b"\r\n\r\n")[2])["refusals"][0]["allow"] == command


def test_tls_passes_or_gets_an_alert(shared: Stand) -> None:
    """TLS to an allowed name reaches it; to another it ends in an access_denied alert, at once."""
    shared.policy("deny", [WEB])
    with shared.tls(WEB, WEB) as secure:
        secure.sendall(b"GET / HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
        assert secure.recv(100).startswith(b"HTTP/1.1 200")

    def denied() -> None:
        with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
            shared.tls(EVIL, EVIL)

    assert in_time(0.5, lambda: quick(denied))
    assert not shared.leaked("evil")


@pytest.mark.parametrize(
    ("host", "name"), [(WEB, EVIL), (EVIL, WEB), (WEB, OTHER), ("203.0.113.66", EVIL), ("203.0.113.66", None)]
)
def test_tls_under_another_name_is_refused(shared: Stand, host: str, name: str | None) -> None:
    """The name in the ClientHello must be the one the connection was opened to, even if that one is allowed too."""
    shared.policy("deny", [WEB, OTHER])
    with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
        shared.tls(host, name)
    assert not shared.arrivals()
    assert shared.event(verdict="blocked")["protocol"] == "tls"


def test_a_literal_address_is_taken_for_the_name_it_claims(shared: Stand) -> None:
    """An allowed name claimed to another's address leads to the name's own address."""
    shared.policy("deny", [WEB])
    with shared.tls("203.0.113.66", WEB) as secure:
        secure.sendall(b"GET / HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
        assert b"203.0.113.10" in secure.recv(4096)
    assert b"203.0.113.10" in shared.http("2001:db8:113::66", GET.format(WEB))
    assert not [each for each in shared.arrivals() if each.get("server") == "203.0.113.66"]


def test_an_address_rule_opens_a_literal_address(shared: Stand) -> None:
    """A rule for addresses is met by a connection to one, IPv4 or IPv6."""
    shared.policy("deny", ["203.0.113.0/24", "[2001:db8:113::/64]:*"])
    assert b"203.0.113.20" in shared.http("203.0.113.20", GET.format("203.0.113.20"))
    assert b"2001:db8:113::20" in shared.http("2001:db8:113::20", GET.format("[2001:db8:113::20]"))
    with shared.connect("2001:db8:113::20", 25) as program:
        assert program.read(len(BANNER)) == BANNER


def test_in_warn_what_the_rules_are_against_passes_and_is_recorded(shared: Stand) -> None:
    """Mode warn waives the rules' verdict, and the record has that."""
    shared.policy("warn", [WEB])
    assert shared.http(EVIL, GET.format(EVIL)).startswith(b"HTTP/1.1 200")
    event = shared.event(host=EVIL, kind="close")
    assert (event["allowed"], event["verdict"], event["mode"]) == (True, "warn", "warn")


def test_in_warn_two_names_are_recorded_as_would_be_denied(shared: Stand) -> None:
    """A second name in the clear passes in mode warn, and both names show that it would not have."""
    shared.policy("warn", [WEB])
    assert shared.http(WEB, GET.format(EVIL)).startswith(b"HTTP/1.1 200")
    assert shared.event(host=WEB, kind="close")["verdict"] == "warn"
    assert shared.event(host=EVIL)["verdict"] == "warn"


def test_in_warn_malformed_requests_are_refused_all_the_same(shared: Stand) -> None:
    """Mode warn waives no malformed input, no wrong protocol on 443 or 80, and no floor."""
    shared.policy("warn")
    assert b" 403 " in shared.http(WEB, "GET / HTTP/1.1\nHost: a b\n\n")
    assert b" 403 " in shared.http(WEB, GET.format(WEB), 443)
    with shared.connect(WEB, 80) as program:
        assert program.send(b"\0binary\n").rest() == b"RESET"
    with pytest.raises(ssl.SSLError):
        shared.tls(WEB, WEB, 80)
    assert b" 403 " in shared.http("169.254.169.254", GET.format("169.254.169.254"))
    assert not shared.arrivals()


def test_a_server_that_speaks_first_is_heard(shared: Stand) -> None:
    """On other ports the server may say the first word."""
    shared.policy("deny", ["mail.example.test:25"])
    with shared.connect("mail.example.test", 25) as program:
        assert program.read(len(BANNER)) == BANNER
        program.send(b"SSH-2.0-me\r\n")
        assert program.read(12) == b"SSH-2.0-me\r\n"
    assert shared.event(host="mail.example.test", kind="close")["bytes_out"] == 12


def test_in_warn_a_literal_address_may_speak_first(shared: Stand) -> None:
    """A silent client to a literal address is connected after a moment."""
    shared.policy("warn")
    with shared.connect("203.0.113.50", 25) as program:
        assert program.read(len(BANNER)) == BANNER


def test_a_silent_client_to_a_denied_name_is_reset_within_two_seconds(shared: Stand) -> None:
    """There is nothing to answer it in its own language."""
    shared.policy("deny", [WEB])

    def silent() -> float:
        with shared.connect(EVIL, 25) as program:
            return quick(program.rest)

    assert in_time(2, silent)
    assert shared.event(host=EVIL, port=25)["verdict"] == "blocked"


def test_a_client_that_speaks_first_to_a_denied_name_is_reset_at_once(shared: Stand) -> None:
    """A protocol without a refusal of its own gets a reset."""
    shared.policy("deny", [WEB])

    def speaks() -> float:
        with shared.connect("db.example.test", 5432) as program:
            program.send(b"\0\0\0\x08\0\0\0\0")
            return quick(program.rest)

    assert in_time(0.5, speaks)
    assert not shared.arrivals()


@pytest.mark.parametrize("name", [WEB, None])
def test_a_late_clienthello_must_say_the_same_name(shared: Stand, name: str | None) -> None:
    """After a server's greeting, or a Postgres SSLRequest, TLS under another name is refused and never arrives."""
    shared.policy("deny", ["mail.example.test:25", "db.example.test:5432"])
    for host, port, before in (
        ("mail.example.test", 25, b""),
        ("mail.example.test", 25, b"EHLO me\r\nSTARTTLS\r\n"),
        ("db.example.test", 5432, b"\0\0\0\x08\x04\xd2\x16\x2f"),
    ):
        hello = client_hello(EVIL)
        with shared.connect(host, port) as program:
            if port == 25:
                assert program.read(len(BANNER)) == BANNER
            if before and name:
                program.send(before).sock.recv(100)
                program.send(hello[:1])
                program.send(hello[1:])
            else:
                program.send(before + hello)
            assert b"\x15\x03" in program.rest()
        assert not shared.leaked("evil")
        shared.event(host=EVIL, port=port, verdict="blocked")


@pytest.mark.parametrize(
    "between", [b"", b"\x14\x03\x03\0\x01\x01", b"\x17\x03\x03\0\x05early"], ids=["", "ccs", "early"]
)
@pytest.mark.parametrize("name", [WEB, EVIL])
@pytest.mark.parametrize("first", ["", "STARTTLS\r\n"], ids=["at once", "later"])
def test_a_second_clienthello_must_say_the_same_name(
    shared: Stand, name: str, between: bytes, first: str
) -> None:
    """A server that asks the client to begin TLS again does not get another name by that; nothing before it changes that."""
    with shared.lab_listener("198.51.100.2") as server:
        port = server.getsockname()[1]
        pinned = {"pattern": f"{WEB}:{port}", "private": ["198.51.100.2/32"]}
        shared.policy("deny", [pinned], hosts={WEB: ["198.51.100.2"]})
        with shared.connect(WEB, port) as program:
            one, other = client_hello(WEB), client_hello(name)
            program.send(first.encode())
            if not first:
                program.send(one)
            reached, _ = server.accept()
            with reached:
                end = Program(reached)
                if first:
                    assert end.read(len(first)) == first.encode()
                    program.send(one)
                assert end.read(len(one)) == one
                end.send(retry_request())
                assert program.read(len(retry_request())) == retry_request()
                program.send(between + other[:60]).send(other[60:])
                if name == WEB:
                    assert end.read(len(between + other)) == between + other
                    end.send(b"\x16rest")
                    assert program.read(5) == b"\x16rest"
                    program.send(b"\x17more")
                    assert end.read(5) == b"\x17more"
                else:
                    assert end.rest() in {between, between + b"RESET"}
                    assert b"\x15\x03" in program.rest()
                    assert shared.event(host=EVIL, port=port)["verdict"] == "blocked"


def test_a_clienthello_in_the_middle_is_seen(shared: Stand) -> None:
    """MySQL's request for TLS and the ClientHello may come in one piece; a wrong name in it is refused all the same."""
    shared.policy("deny", ["db.example.test:5432"])
    request = b"\x20\0\0\1" + b"\x85\xa6\xff\x09" + b"\0" * 28
    with shared.connect("db.example.test", 5432) as program:
        program.send(request + client_hello(EVIL))
        assert b"\x15\x03" in program.rest()
    assert not shared.leaked("evil")
    hello = client_hello("db.example.test")
    with shared.connect("db.example.test", 5432) as program:
        program.send(request + hello[:40]).send(hello[40:])
        assert program.read(1 + 36 + len(hello)).endswith(hello)


def test_a_late_clienthello_with_the_right_name_passes(shared: Stand) -> None:
    """STARTTLS to the name that was dialled goes on."""
    shared.policy("deny", ["mail.example.test:25"])
    with shared.connect("mail.example.test", 25) as program:
        program.read(len(BANNER))
        program.send(b"STARTTLS\r\n").read(10)
        hello = client_hello("mail.example.test")
        program.send(hello)
        assert program.read(len(hello)) == hello


def test_a_late_request_must_name_the_same_host(shared: Stand) -> None:
    """Where the server spoke first, the client's request is still read."""
    shared.policy("deny", ["mail.example.test:25"])
    with shared.connect("mail.example.test", 25) as program:
        program.read(len(BANNER))
        program.send(b"GET / HTTP/1.1\r\nHost: evil.example.test\r\n\r\n")
        assert b"403 Forbidden" in program.rest()
    assert not shared.leaked("evil")


def test_an_unknown_synthetic_address_is_refused(shared: Stand) -> None:
    """An address of the pool that stands for no name leads nowhere, and is recorded."""
    shared.policy("warn")
    with shared.connect("198.18.200.1", 443) as program:
        assert program.rest() == b"RESET"
    assert "no name was ever given" in shared.event(host="198.18.200.1")["reason"]


@pytest.mark.parametrize("mode", ["warn", "deny"])
def test_connect_and_close_is_an_event_and_no_contact(shared: Stand, mode: str) -> None:
    """A connection closed without a byte shows in the log and nowhere else."""
    shared.policy(mode, [WEB])
    shared.connect(WEB, 443).close()
    shared.connect(EVIL, 2222).close()
    assert shared.event(host=WEB, ended="closed without a byte")["verdict"] == "allowed"
    assert shared.event(host=EVIL)["verdict"] == ("warn" if mode == "warn" else "blocked")
    assert not shared.leaked("203.0.113")


@pytest.mark.parametrize("name", ["loopback", "private", "metadata", "host"])
def test_a_name_that_leads_under_the_floor_is_refused(shared: Stand, name: str) -> None:
    """Rebinding gets nowhere in either mode, and the sandbox does not learn the address."""
    shared.policy("warn")
    host = f"rebind-{name}.example.test"
    answer = shared.http(host, GET.format(host))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert not [each for each in shared.arrivals() if each["kind"] != "dns"]
    # Where its address is known already there is no closing record.
    event = shared.event(host=host, verdict="blocked")
    assert (event["verdict"], event["allowed"], event["mode"]) == ("blocked", False, "warn")
    address = {"loopback": "127.", "private": "10.9.8.7", "metadata": "169.254.", "host": "198.51."}[name]
    assert address in event["reason"]
    assert event["address"].startswith(address)
    assert address.encode() not in answer


@pytest.mark.parametrize("mode", ["warn", "deny"])
def test_a_denied_address_denies_the_names_that_lead_to_it(shared: Stand, mode: str) -> None:
    """A deny rule for an address holds for what is finally dialled, as the mode has it."""
    shared.policy(mode, [OTHER], deny=["203.0.113.11"])
    answer = shared.http(OTHER, GET.format(OTHER))
    assert answer.startswith(b"HTTP/1.1 200" if mode == "warn" else b"HTTP/1.1 403")
    assert shared.event(host=OTHER, verdict="warn" if mode == "warn" else "blocked")["rule"] == "203.0.113.11"
    assert (b"203.0.113.11" in answer) is (mode == "warn")


def test_refusals_by_the_floor_are_folded_too(shared: Stand) -> None:
    """A name that leads under the floor is asked of the host once, and its repeats are one event."""
    shared.policy("warn")
    began = time.monotonic()
    for _ in range(20):
        shared.http("rebind-private.example.test", GET.format("rebind-private.example.test"))
    found = [each for each in shared.events() if each.get("host") == "rebind-private.example.test"]
    # Each lookup, and the opening record of each connection that waited for one, is an event of its own.
    lookups = int((time.monotonic() - began) / REMEMBER) + 1
    assert len(found) <= min(_folds_since(began) + lookups, 19)
    # What is asked for is asked again where the name server is slow.
    asked = [each["at"] for each in shared.arrivals() if each["kind"] == "dns" and each["type"] == "A"]
    assert len({int(at / REMEMBER) for at in asked}) <= lookups + 1


def test_the_record_comes_before_every_contact(shared: Stand) -> None:
    """The opening record is older than the name server's query, the verdict older than the connection."""
    # No other test has had it resolved a moment ago.
    name = "files.example.test"
    shared.policy("deny", [name])
    shared.http(name, GET.format(name))
    shared.event(host=name, kind="close")
    at = {each["kind"]: each["at"] / 1e6 for each in shared.records()}
    seen = {each["kind"]: each["at"] for each in reversed(shared.arrivals())}
    assert at["open"] < seen["dns"] < at["verdict"] < seen["connect"] < seen["http"] < at["close"]


def test_an_opening_record_shows_while_a_name_is_slow(shared: Stand) -> None:
    """When the host's name server hears of a name its opening record is there, and its verdict is not."""
    shared.policy("deny", ["*.slow.example.test"])

    def shows(host: str) -> bool:
        shared.mark()
        with shared.connect(host, 80) as program:
            program.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            eventually(lambda: shared.leaked(host))
            kinds = [each["kind"] for each in shared.records() if each.get("host", host) == host]
        assert kinds[0] == "open"
        return kinds == ["open"]

    # After some seconds the host gives the name up, and there is a verdict.
    assert any(shows(f"a{number}.slow.example.test") for number in range(TRIES))


def test_a_slow_name_holds_up_nobody(shared: Stand) -> None:
    """While names that take seconds are resolved, another answers at once."""
    shared.policy("deny", [WEB, "*.slow.example.test"])
    slow = [shared.connect(f"b{number}.slow.example.test", 80) for number in range(7)]
    for number, program in enumerate(slow):
        program.send(f"GET / HTTP/1.1\r\nHost: b{number}.slow.example.test\r\n\r\n".encode())
    eventually(lambda: shared.leaked("b6.slow"))
    assert in_time(1, lambda: quick(lambda: shared.http(WEB, GET.format(WEB))))
    for program in slow:
        program.close()


def test_names_of_local_hosts_come_first(shared: Stand) -> None:
    """A name of `[local.hosts]` leads where the configuration says, and no resolver is asked."""
    shared.policy("deny", ["name.test"], hosts={"name.test": ["203.0.113.30"]})
    assert b"203.0.113.30" in shared.http("name.test", GET.format("name.test"))
    assert not [each for each in shared.arrivals() if each["kind"] == "dns"]


def test_a_server_that_is_not_reached_is_told_apart_from_a_refusal(shared: Stand) -> None:
    """A closed port gives a 502, an unknown name too; both are allowed and say how they ended."""
    shared.policy("deny", ["web.example.test:81", "nowhere.example.test"])
    assert b"502 Bad Gateway" in shared.http(WEB, GET.format(WEB), 81)
    event = shared.event(host=WEB, port=81, kind="close")
    assert (event["allowed"], event["ended"]) == (True, "unreachable: connection refused")
    assert b"502 Bad Gateway" in shared.http("nowhere.example.test", GET.format("nowhere.example.test"))
    assert "not resolved" in shared.event(host="nowhere.example.test", kind="close")["ended"]


def test_search_domains_do_not_apply(shared: Stand) -> None:
    """Names are asked absolute."""
    shared.policy("warn")
    shared.http("a.b", GET.format("a.b"))
    assert {each["name"] for each in shared.arrivals() if each["kind"] == "dns"} == {"a.b"}


def test_a_new_policy_cuts_what_it_forbids(shared: Stand) -> None:
    """Live connections that the new rules forbid end at once; `impact` says how many there would be."""
    shared.policy("deny", [WEB, "mail.example.test:25"])
    with shared.connect("mail.example.test", 25) as one, shared.connect(WEB, 80) as other:
        one.read(len(BANNER))
        other.send(b"GET / HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
        other.until(b"}\n")
        narrower = {"mode": "deny", "rules": [], "hosts": {}}
        assert shared.ask("impact", cell=CELL, policy=narrower) == {"cut": 2}
        assert shared.policy("deny", [WEB]) == 1
        assert one.rest() == b"RESET"
        other.send(b"GET /again HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
        assert b"/again" in other.until(b"}\n")
    assert shared.event(host="mail.example.test", kind="close")["ended"].startswith("cut")


def test_inside_a_sandbox_reads_its_policy_and_refusals(shared: Stand) -> None:
    """`http://irons.internal/` answers with JSON and without addresses; nothing can be changed there."""
    shared.policy(
        "deny", [{"pattern": "lan.test:80", "private": ["10.1.2.3"]}], hosts={"lan.test": ["10.1.2.3"]}
    )
    shared.http(EVIL, GET.format(EVIL))
    answer = shared.http("irons.internal", "GET / HTTP/1.1\nHost: irons.internal\n\n")
    seen = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert seen["sandbox"] == {"id": CELL, "name": "box"}
    assert (seen["mode"], seen["rules"][0]["pattern"]) == ("deny", "lan.test:80")
    assert seen["refusals"][0]["host"] == EVIL
    assert seen["refusals"][0]["allow"] == "irons egress allow evil.example.test --sandbox box"
    assert b"10.1.2.3" not in answer
    assert b"405" in shared.http(
        "irons.internal", "POST / HTTP/1.1\nHost: irons.internal\nContent-Length: 0\n\n"
    )
    assert b"404" in shared.http("irons.internal", "GET /etc HTTP/1.1\nHost: irons.internal\n\n")
    assert not shared.arrivals()


def test_datagrams_are_refused_at_once_and_folded(shared: Stand) -> None:
    """Each of many datagrams gets an error at once, and those of a second are one event with their count."""
    shared.policy("warn")
    address = shared.resolve(WEB)
    began = time.monotonic()
    with shared.net.socket(kind=socket.SOCK_DGRAM) as sock:
        # Each is refused within its own system call; how long that takes is the machine's affair too.
        assert min(quick(lambda: _refused(sock, address, 443)) for _ in range(300)) < 0.1
    event = shared.event(host=WEB, protocol="udp")
    assert (event["port"], event["allowed"], event["mode"]) == (443, False, "warn")
    eventually(lambda: shared.counted() == 300)
    assert len([each for each in shared.events() if each.get("protocol") == "udp"]) <= _folds_since(began)


def _folds_since(began: float) -> int:
    """How many events the repeats of one refusal can be: one ends, a second after it began, before the next begins."""
    return int((time.monotonic() - began) / WINDOW) + 1


def test_a_flood_of_datagrams_is_counted_to_the_last(shared: Stand) -> None:
    """What comes faster than it can be read is counted as dropped: nothing is missing in the sum."""
    shared.policy("warn")
    address = shared.resolve(WEB)
    with shared.net.socket(kind=socket.SOCK_DGRAM) as sock:
        for number in range(20_000):
            _refused(sock, address, 1000 + number % 700)
    eventually(lambda: shared.counted() == 20_000)
    assert [each for each in shared.records() if each["kind"] == "dropped"]


def test_pings_are_refused_and_recorded(shared: Stand) -> None:
    """ICMP goes nowhere, and shows."""
    shared.policy("warn")
    address = shared.resolve(WEB)
    with shared.net.socket(kind=socket.SOCK_RAW, proto=socket.IPPROTO_ICMP) as sock:
        _refused(sock, address, 0, b"\x08\0\xf7\xff\0\0\0\0")
    assert shared.event(host=WEB, protocol="icmp")["verdict"] == "blocked"


def _refused(sock: socket.socket, address: str, port: int, data: bytes = b"quic") -> None:
    with pytest.raises(OSError, match=r"Errno"):
        sock.sendto(data, (address, port))


def test_repeats_of_a_refusal_become_one_event(shared: Stand) -> None:
    """The refusals of a second are one event with a count; different ones stay apart."""
    shared.policy("deny")
    began = time.monotonic()
    for number in range(100):
        with shared.connect(EVIL, 5555 + number % 2) as program:
            program.send(b"\0\n").rest()
    for port in (5555, 5556):
        events = eventually(partial(_fifty, shared, port))
        assert len(events) <= _folds_since(began)


def _fifty(stand: Stand, port: int) -> list[dict[str, Any]]:
    events = [each for each in stand.events() if each.get("port") == port]
    return events if sum(each.get("count", 0) for each in events) == 50 else []


def test_a_rule_that_comes_between_two_dials_holds_for_the_second(shared: Stand) -> None:
    """A name's later address is judged by the rules of the moment in which it is dialled, not of the first one's."""
    silent, answering = [f"203.0.113.{200 + number}" for number in range(5)], "203.0.113.10"
    enter = ["nsenter", "-t", str(shared.lab.internet), "-n", "ip", "route"]
    hole = ["blackhole", "203.0.113.200/29", "table", "local"]
    hosts = {WEB: [*silent, answering]}
    subprocess.run([*enter, "add", *hole], check=True)
    try:
        for _ in range(20):
            if _changed_between(shared, hosts, f"{answering}/32", before=3):
                break
        else:
            pytest.fail("the gateway was never met in the middle of its dials")
    finally:
        subprocess.run([*enter, "del", *hole], check=True)


def _changed_between(stand: Stand, hosts: dict[str, list[str]], denied: str, *, before: int) -> bool:
    """Deny an address while the gateway holds still between two dials; False where it was past dial `before` by then."""
    stand.policy("deny", [WEB], hosts=hosts)
    stand.mark()
    with stand.connect(WEB, 80) as program:
        program.send(GET.replace("\n", "\r\n").format(WEB).encode())
        eventually(lambda: _dials(stand))
        with stand.still():
            early = 0 < _dials(stand) <= before
            if early:
                assert stand.server is not None
                narrower = policy("deny", [WEB], deny=[denied], hosts=hosts)
                stand.server.send(
                    {"id": 1_000_000, "op": "policy", "cell": CELL, "sandbox": {}, "policy": narrower}
                )
        answer = program.rest()
    if early:
        assert stand.answer(1_000_000) == {"cut": 0}
        assert answer.startswith(b"HTTP/1.1 403")
        assert stand.event(host=WEB, kind="close")["verdict"] == "blocked"
        assert not stand.arrivals()
    return early


def _dials(stand: Stand) -> int:
    return len([each for each in stand.records() if each["kind"] == "verdict"])
