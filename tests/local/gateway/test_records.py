"""What is taken of name servers' answers to SRV and TXT questions, and what a sandbox gets of it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from dnslib import QTYPE, RCODE, RR, SRV, TXT, A, DNSLabel, DNSRecord
from hypothesis import example, given
from hypothesis import strategies as st
from tests.local.gateway.live_talks import Loop

from irons_local.gateway.accept.dns import Wanted, compose, wanted
from irons_local.gateway.reach.nameservers import NameServers, ResolvConf, UnansweredError, parse_resolv_conf
from irons_local.gateway.reach.records import (
    MOST_BYTES,
    MOST_RECORDS,
    BadAnswerError,
    Found,
    Srv,
    Txt,
    question,
    read_answer,
)
from irons_policy.decide import Kind, owner_of, question_rule
from irons_policy.policy import Policy

NAME = "_mongodb._tcp.db.example.test"


def answered(kind: Kind, *data: SRV | TXT, name: str = NAME, identity: int = 7) -> bytes:
    """A name server's answer."""
    reply = DNSRecord.parse(question(identity, name, kind)).reply()
    for each in data:
        reply.add_answer(RR(name, getattr(QTYPE, kind), rdata=each))
    return bytes(reply.pack())


def policy(*allow: str, deny: tuple[str, ...] = (), mode: str = "deny") -> Policy:
    """A policy with these rules."""
    rules = [
        {"list": kind, "scope": "account", "private": [], "broad": False, "pattern": pattern}
        for kind, patterns in (("allow", allow), ("deny", deny))
        for pattern in patterns
    ]
    return Policy.from_json({"mode": mode, "rules": rules, "hosts": {}})


@pytest.mark.parametrize(
    ("name", "kind", "rules", "rule"),
    [
        (NAME, "SRV", policy("db.example.test:27017"), "db.example.test:27017"),
        (NAME, "SRV", policy("*.example.test"), "*.example.test"),
        (NAME, "SRV", policy("*"), "*"),
        (NAME, "SRV", policy("db.example.test", mode="warn"), "db.example.test"),
        (NAME, "SRV", policy(mode="warn"), None),
        (NAME, "SRV", policy("other.example.test"), None),
        (NAME, "SRV", policy("*.example.test", deny=("db.example.test:25",)), None),
        (NAME, "SRV", policy("db.example.test", deny=("*",), mode="warn"), None),
        ("db.example.test", "TXT", policy("db.example.test"), "db.example.test"),
        ("_dmarc.db.example.test", "TXT", policy("db.example.test"), "db.example.test"),
        ("db.example.test", "TXT", policy("*.example.test"), None),
        ("db.example.test", "TXT", policy("*"), None),
        ("x.db.example.test", "TXT", policy("db.example.test"), None),
        ("db.example.test", "TXT", policy("*.example.test", "db.example.test"), "db.example.test"),
        ("_kerberos-master._tcp.db.example.test", "SRV", policy("db.example.test"), "db.example.test"),
        ("_secrets-of-an-agent._tcp.db.example.test", "SRV", policy("db.example.test"), None),
        ("_a._b._tcp.db.example.test", "SRV", policy("db.example.test"), None),
        ("_secrets-of-an-agent.db.example.test", "TXT", policy("db.example.test"), None),
        ("_a._b", "SRV", policy("*"), None),
        ("_http._tcp.irons.internal", "SRV", policy("*"), None),
        ("_http._tcp.localhost", "SRV", policy("*"), None),
        # apt asks for it, and would name db.example.test to the target.
        ("_http._tcp.db.example.test", "SRV", policy("db.example.test"), None),
        ("_https._tcp.db.example.test", "SRV", policy("*"), None),
        ("_http-alt._tcp.db.example.test", "SRV", policy("db.example.test"), "db.example.test"),
    ],
)
def test_a_question_leaves_only_where_a_rule_covers_its_name(
    name: str, kind: Kind, rules: Policy, rule: str | None
) -> None:
    """The name without its leading `_labels` needs an allow rule, and no deny rule; TXT an exact one; the mode does not matter."""
    found = question_rule(rules, name, kind)
    assert (found.pattern.text if found else None) == rule


def test_the_owner_is_the_name_without_its_leading_underscored_labels() -> None:
    """Only leading labels count."""
    assert owner_of("_ldap._tcp.dc._msdcs.example.test") == "dc._msdcs.example.test"
    assert owner_of("_a._b") == ""


def test_records_are_taken_as_they_are() -> None:
    """SRV and TXT records of the question come back whole, in order; all else in the answer is left out."""
    data = answered("SRV", SRV(1, 2, 27017, "A.Example.test"), SRV(0, 0, 0, "."))
    assert read_answer(data, 7, NAME, "SRV").records == (
        Srv(1, 2, 27017, "a.example.test"),
        Srv(0, 0, 0, ""),
    )
    data = answered("TXT", TXT([b"one", b""]), TXT(b"\xff" * 255))
    assert read_answer(data, 7, NAME, "TXT").records == (Txt((b"one", b"")), Txt((b"\xff" * 255,)))
    mixed = DNSRecord.parse(answered("SRV", SRV(1, 2, 3, "a.test")))
    mixed.add_answer(RR(NAME, QTYPE.A, rdata=A("203.0.113.1")))
    mixed.add_ar(RR("a.test", QTYPE.A, rdata=A("203.0.113.1")))
    assert read_answer(bytes(mixed.pack()), 7, NAME, "SRV").records == (Srv(1, 2, 3, "a.test"),)


@pytest.mark.parametrize("target", ["10.0.0.1", "0x7f.1", "a b.test", "-x.test", "*.test"])
def test_a_target_that_cannot_be_judged_is_left_out(target: str) -> None:
    """Addresses and odd characters are no targets."""
    data = answered("SRV", SRV(0, 0, 1, target), SRV(0, 0, 2, "a.test"))
    assert read_answer(data, 7, NAME, "SRV").records == (Srv(0, 0, 2, "a.test"),)


def test_many_records_are_cut() -> None:
    """At most 32 are taken."""
    data = answered("SRV", *(SRV(0, 0, port, "a.test") for port in range(100)))
    assert len(read_answer(data, 7, NAME, "SRV").records) == MOST_RECORDS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        answered("SRV", identity=8),
        answered("TXT"),
        answered("SRV", name="_x._tcp.db.example.test"),
        question(7, NAME, "SRV"),
        answered("SRV", SRV(0, 0, 1, "a.test"))[:-1],
    ],
    ids=["empty", "another id", "another type", "another name", "a question", "cut"],
)
def test_what_is_not_the_answer_is_refused(data: bytes) -> None:
    """Only an answer to the very question counts."""
    with pytest.raises(BadAnswerError):
        read_answer(data, 7, NAME, "SRV")


def test_names_that_point_at_one_another_end() -> None:
    """Pointers in a ring, and names longer than 255 bytes by way of pointers, are malformed."""
    good = answered("SRV")
    loop = good[:6] + b"\0\1" + good[8:] + b"\xc0" + bytes([len(good)])
    with pytest.raises(BadAnswerError):
        read_answer(loop + b"\0\x21\0\1" + b"\0" * 6, 7, NAME, "SRV")
    long = b"\x3f" + b"a" * 63
    at = len(good)
    data = good[:6] + b"\0\1" + good[8:] + long * 4 + b"\xc0" + bytes([at])
    with pytest.raises(BadAnswerError):
        read_answer(data, 7, NAME, "SRV")


@given(st.binary(max_size=600))
@example(b"\xc0\0" * 300)
def test_any_answer_is_survived(data: bytes) -> None:
    """Behind a plausible header hostile bytes are an answer or malformed, and nothing else."""
    head = answered("SRV")[:6] + b"\xff\xff\0\0\0\0" + answered("SRV")[12:]
    for hostile in (data, head + data):
        try:
            found = read_answer(hostile, 7, NAME, "SRV")
        except BadAnswerError:
            continue
        assert len(found.records) <= MOST_RECORDS


@given(st.data())
def test_mangled_answers_are_survived(data: st.DataObject) -> None:
    """So are good answers with bytes of another value."""
    good = bytearray(answered("SRV", SRV(1, 2, 3, "a.test"), SRV(1, 2, 3, "b.a.test")))
    for _ in range(data.draw(st.integers(1, 8))):
        good[data.draw(st.integers(12, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_answer(bytes(good), 7, NAME, "SRV")
    except BadAnswerError:
        return
    assert all(len(each.target) <= 253 for each in found.records if isinstance(each, Srv))


def asked(name: str, kind: str, *, size: int = 0) -> Wanted:
    """A sandbox's question, with room for an answer of `size`, where that is given."""
    query = bytes(DNSRecord.question(name, kind).pack())
    if size:
        query = query[:11] + b"\1" + query[12:] + b"\0\0\x29" + struct.pack("!HIH", size, 0, 0)
    found = wanted(query)
    assert found is not None
    return found


def test_only_srv_and_txt_questions_are_told_apart() -> None:
    """Any other type, class or operation is answered as ever; names have their one spelling."""
    found = asked("_MongoDB._tcp.DB.example.test.", "SRV")
    assert (found.name, found.kind, found.room) == (NAME, "SRV", 512)
    assert asked("db.example.test", "TXT", size=1232).room == 1232
    assert asked("db.example.test", "TXT", size=65_535).room == MOST_BYTES
    for kind in ("A", "AAAA", "MX", "HTTPS", "ANY", "NULL"):
        assert wanted(DNSRecord.question("db.example.test", kind).pack()) is None
    plain = bytes(DNSRecord.question("db.example.test", "TXT").pack())
    for broken in (plain[:2] + b"\x80" + plain[3:], plain[:5] + b"\2" + plain[6:], plain[:-1], b"\0\x10\0\1"):
        assert wanted(broken) is None
    assert wanted(DNSRecord.question("10.0.0.1", "TXT").pack()) is None


@given(st.binary(max_size=300))
def test_any_question_is_survived(data: bytes) -> None:
    """Hostile bytes are a question or none, and one can be answered."""
    for query in (data, b"\0\7\1\0\0\1\0\0\0\0\0\0" + data + b"\0\0\x21\0\1"):
        found = wanted(query)
        if found is not None:
            assert DNSRecord.parse(compose(found, (), 512)).header.id == int.from_bytes(query[:2], "big")


TARGETS = st.from_regex(r"[a-z0-9_]{1,20}(\.[a-z]{1,20}){1,3}", fullmatch=True)
FOUND: st.SearchStrategy[Found] = st.one_of(
    st.builds(Srv, st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 65535), TARGETS),
    st.builds(Txt, st.lists(st.binary(max_size=255), min_size=1, max_size=8).map(tuple)),
)


@pytest.mark.slow
@given(st.lists(FOUND, max_size=MOST_RECORDS), st.sampled_from([512, 1232, MOST_BYTES]))
def test_an_answer_fits_its_room(found: list[Found], room: int) -> None:
    """By UDP it is whole or says that it is not; it never has more than 4 KiB."""
    for kind in ("SRV", "TXT"):
        chosen = [each for each in found if isinstance(each, Srv if kind == "SRV" else Txt)]
        data = compose(asked(NAME, kind), chosen, room)
        assert len(data) <= room
        reply = DNSRecord.parse(data)
        if room == MOST_BYTES or len(reply.rr) == len(chosen):
            assert not reply.header.tc
        else:
            assert reply.header.tc
            assert not reply.rr


def test_a_question_that_nobody_answered_fails() -> None:
    """The program gets the code for trying again, not the one for an empty answer."""
    assert DNSRecord.parse(compose(asked(NAME, "SRV"), None, 512)).header.rcode == RCODE.SERVFAIL


def test_resolv_conf_is_read_as_glibc_does() -> None:
    """Three servers at most, options within bounds, and this machine where none is named."""
    text = (
        b"# no\nnameserver 203.0.113.53\nnameserver fe80::1%eth0 ; why\nnameserver nonsense\nnameserver\n"
        b"nameserver 2001:db8::53\nnameserver 203.0.113.54\noptions timeout:30 attempts:1\noptions use-vc\n"
    )
    assert parse_resolv_conf(text) == ResolvConf(
        (ip_address("203.0.113.53"), ip_address("fe80::1%eth0"), ip_address("2001:db8::53")), 3, 1, True
    )
    assert parse_resolv_conf(b"options timeout:x attempts:\n") == ResolvConf()


class Server:
    """A name server on loopback that answers as the test says: by UDP with one function, by TCP with another."""

    def __init__(
        self, udp: Callable[[bytes], list[bytes]], tcp: Callable[[bytes], bytes] = lambda _: b""
    ) -> None:
        self.udp, self.tcp = udp, tcp
        self.asked: list[str] = []

    async def start(self) -> int:
        """Listen, and give the port."""
        loop = asyncio.get_running_loop()
        server = self

        class Udp(asyncio.DatagramProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport: Any = transport

            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                server.asked.append("udp")
                for answer in server.udp(data):
                    self.transport.sendto(answer, addr)

        async def by_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            server.asked.append("tcp")
            size = int.from_bytes(await reader.readexactly(2), "big")
            writer.write(server.tcp(await reader.readexactly(size)))
            writer.close()

        self._tcp = await asyncio.start_server(by_tcp, "127.0.0.1", 0)
        port = int(self._tcp.sockets[0].getsockname()[1])
        self._udp, _ = await loop.create_datagram_endpoint(Udp, local_addr=("127.0.0.1", port))
        return port

    def stop(self) -> None:
        """Listen no more."""
        self._tcp.close()
        self._udp.close()


def ask(server: Server, tmp_path: Path, options: str = "", *, silent: bool = False) -> tuple[Found, ...]:
    """Ask the server for the records of `NAME`, on a clock that stands.

    Args:
        server: who answers.
        tmp_path: where resolv.conf is.
        options: more of it.
        silent: nothing will come: put the clock forward.
    """
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"nameserver 127.0.0.1\noptions attempts:1 timeout:1 {options}\n")

    async def main() -> tuple[Found, ...]:
        port = await server.start()
        try:
            asking = loop.create_task(NameServers(loop, conf, port).ask(NAME, "SRV"))
            while silent and not asking.done():
                await asyncio.sleep(0)
                loop.skipped += 0.1 if server.asked else 0.0
            return await asking
        finally:
            server.stop()

    loop = Loop(stands=True)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main())


def good(query: bytes, *, port: int = 1) -> bytes:
    """The right answer to a query."""
    return answered("SRV", SRV(0, 0, port, "a.test"), identity=int.from_bytes(query[:2], "big"))


def truncated(query: bytes) -> bytes:
    """The answer that says it does not fit."""
    data = good(query)
    return data[:2] + bytes([data[2] | 2]) + data[3:]


def test_an_answer_to_another_question_is_passed_over(tmp_path: Path) -> None:
    """A datagram with another id, as a forger would send, changes nothing."""

    def udp(query: bytes) -> list[bytes]:
        forged = bytes([query[0] ^ 1]) + good(query, port=666)[1:]
        return [b"", forged, good(query)]

    assert ask(Server(udp), tmp_path) == (Srv(0, 0, 1, "a.test"),)


def test_a_truncated_answer_is_asked_for_by_tcp(tmp_path: Path) -> None:
    """So is everything where resolv.conf says `use-vc`."""

    def tcp(query: bytes) -> bytes:
        return len(good(query)).to_bytes(2, "big") + good(query)

    server = Server(lambda query: [truncated(query)], tcp)
    assert ask(server, tmp_path) == (Srv(0, 0, 1, "a.test"),)
    assert server.asked == ["udp", "tcp"]
    server = Server(lambda _: [], tcp)
    assert ask(server, tmp_path, "use-vc") == (Srv(0, 0, 1, "a.test"),)
    assert server.asked == ["tcp"]


@pytest.mark.parametrize(
    ("udp", "tcp", "why"),
    [
        (lambda _: [], b"", "no answer in time"),
        (lambda query: [truncated(query)], b"\xff\xff" + b"x" * 5000, "too large"),
        (lambda query: [truncated(query)], b"", "closed"),
        (lambda query: [good(query)[:-1]], b"", "cut short"),
        (lambda query: [good(query)[:3] + b"\x82" + good(query)[4:]], b"", "code 2"),
        (lambda query: [b"\0\0" + query[2:]] * 40, b"", "other questions"),
    ],
    ids=["silent", "large", "closed", "cut", "failed", "flood"],
)
def test_a_server_that_does_not_answer_is_told_of(
    udp: Callable[[bytes], list[bytes]], tcp: bytes, why: str, tmp_path: Path
) -> None:
    """Silence, too much, too little, failures and floods of other answers end with the reason, in bounded time."""
    with pytest.raises(UnansweredError, match=why):
        ask(Server(udp, lambda _: tcp), tmp_path, silent=why == "no answer in time")


def test_labels_that_hold_dots_are_no_target() -> None:
    """A label `a.b` is not read as two."""
    data = answered("SRV", SRV(0, 0, 1, DNSLabel([b"a.b", b"test"])))
    assert read_answer(data, 7, NAME, "SRV").records == ()
