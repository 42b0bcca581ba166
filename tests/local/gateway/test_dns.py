"""What a cell's resolver answers."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from dnslib import CLASS, OPCODE, QTYPE, RCODE, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from irons_local.gateway.accept.dns import answer
from irons_local.gateway.shared.synthetic_names import NamesFullError

MADE_UP = IPv4Address("198.18.0.7")


def ask(name: str, kind: str = "A") -> DNSRecord:
    """The answer to a well-formed question."""
    return DNSRecord.parse(answer(DNSRecord.question(name, kind).pack(), lambda _: MADE_UP))


@pytest.mark.parametrize("name", ["web.example.test", "WEB.Example.Test", "_tcp.x.test", "a." * 100 + "test"])
def test_every_name_has_the_synthetic_address(name: str) -> None:
    """A question for any well-formed name is answered at once by a made-up address."""
    reply = ask(name)
    assert reply.header.rcode == RCODE.NOERROR
    assert [str(each.rdata) for each in reply.rr] == [str(MADE_UP)]


@pytest.mark.parametrize("kind", ["AAAA", "TXT", "MX", "SRV", "HTTPS", "ANY", "NULL", "CNAME", "NS", "SOA"])
def test_every_other_type_has_no_data(kind: str) -> None:
    """No type but A is answered with data."""
    reply = ask("web.example.test", kind)
    assert (reply.header.rcode, reply.rr) == (RCODE.NOERROR, [])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("web", "A"),
        ("1.0.0.127.in-addr.arpa", "PTR"),
        ("a.127", "A"),
        ("a.0x7f", "A"),
        ("a b.test", "A"),
        (".", "A"),
    ],
)
def test_what_is_no_name_does_not_exist(name: str, kind: str) -> None:
    """Single labels, pointers, addresses and odd characters are answered with NXDOMAIN."""
    assert ask(name, kind).header.rcode == RCODE.NXDOMAIN


def test_a_single_label_exists_where_the_policy_names_it() -> None:
    """A name without a dot is answered like any other where it is named, and only there."""
    query = DNSRecord.question("intranet", "A").pack()
    named = DNSRecord.parse(answer(query, lambda _: MADE_UP, lambda name: name == "intranet"))
    assert [str(each.rdata) for each in named.rr] == [str(MADE_UP)]
    other = DNSRecord.parse(answer(query, lambda _: MADE_UP, lambda name: name == "other"))
    assert other.header.rcode == RCODE.NXDOMAIN


def test_localhost_is_the_sandbox_itself() -> None:
    """`localhost` keeps its meaning."""
    assert str(ask("localhost").rr[0].rdata) == "127.0.0.1"
    assert str(ask("localhost", "AAAA").rr[0].rdata) == "::1"
    assert ask("localhost", "TXT").rr == []


def test_dots_within_a_label_make_no_name() -> None:
    """A label that holds a dot is not read as two."""
    query = DNSHeader(id=1, rd=1, q=1)
    raw = DNSRecord(query, q=DNSQuestion("x.test")).pack().replace(b"\x01x", b"\x03a.b")
    assert DNSRecord.parse(answer(raw, lambda _: MADE_UP)).header.rcode == RCODE.NXDOMAIN


def test_a_name_that_cannot_be_kept_is_not_answered() -> None:
    """Without room for the name there is no address."""

    def full(_: str) -> IPv4Address:
        raise NamesFullError("full")

    reply = DNSRecord.parse(answer(DNSRecord.question("a.test").pack(), full))
    assert (reply.header.rcode, reply.rr) == (RCODE.SERVFAIL, [])


def test_other_messages_are_refused() -> None:
    """Answers get no answer, other operations and classes are refused, two questions are malformed."""
    question = DNSRecord.question("a.test")
    question.header.qr = 1
    assert answer(question.pack(), lambda _: MADE_UP) == b""
    update = DNSRecord(DNSHeader(opcode=OPCODE.UPDATE), q=DNSQuestion("a.test"))
    assert DNSRecord.parse(answer(update.pack(), lambda _: MADE_UP)).header.rcode == RCODE.NOTIMP
    chaos = DNSRecord(q=DNSQuestion("version.bind", QTYPE.TXT, CLASS.CH))
    assert DNSRecord.parse(answer(chaos.pack(), lambda _: MADE_UP)).header.rcode == RCODE.REFUSED
    two = DNSRecord(questions=[DNSQuestion("a.test"), DNSQuestion("b.test")])
    assert DNSRecord.parse(answer(two.pack(), lambda _: MADE_UP)).header.rcode == RCODE.FORMERR


@pytest.mark.parametrize(
    "name",
    [
        b"\1a\xc0\x0c",
        b"\1a" * 2000 + b"\0",
        b"\x40" + b"a" * 64 + b"\0",
        b"\1a",
        b"\xff" * 300,
    ],
    ids=["loop", "long", "long label", "no end", "pointers"],
)
def test_names_that_are_traps_are_malformed(name: bytes) -> None:
    """Pointers, endless and over-long names get a FORMERR."""
    query = b"\0\7\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1"
    assert DNSRecord.parse(answer(query[:4096], lambda _: MADE_UP)).header.rcode == RCODE.FORMERR


LABELS = st.lists(st.binary(min_size=1, max_size=63), max_size=6)


@given(LABELS)
def test_every_spelling_of_a_name_is_survived(labels: list[bytes]) -> None:
    """Any bytes in labels are answered: as a name, as none, or as malformed."""
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    reply = answer(b"\0\7\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1", lambda _: MADE_UP)
    assert DNSRecord.parse(reply).header.rcode in {RCODE.NOERROR, RCODE.NXDOMAIN, RCODE.FORMERR}


@given(st.binary(max_size=600))
def test_any_bytes_are_survived(data: bytes) -> None:
    """Hostile bytes get an answer of their own id, or none."""
    reply = answer(data, lambda _: MADE_UP)
    assert not reply or reply[:2] == data[:2]


@given(st.binary(max_size=80), st.integers(0, 7))
def test_mangled_questions_are_survived(data: bytes, count: int) -> None:
    """A plausible header before hostile bytes changes nothing."""
    head = (7).to_bytes(2, "big") + b"\x01\0" + count.to_bytes(2, "big") + b"\0\0\0\0\0\0"
    reply = answer(head + data, lambda _: MADE_UP)
    assert not reply or DNSRecord.parse(reply).header.id == 7
