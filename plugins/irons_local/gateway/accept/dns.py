"""What a cell's resolver answers (RFC 1035): a synthetic address for every name, and nothing that came from outside.

No query leaves. Names are answered alike whether they exist or may be reached, so an answer tells nothing and a
query carries nothing out; a name is resolved, by the host, only when a connection to it is about to be dialled.
Questions for SRV and TXT records are recognised here; `questions` says which of them the gateway asks itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import NamedTuple

from dnslib import (
    AAAA,
    CLASS,
    OPCODE,
    QTYPE,
    RCODE,
    RR,
    SRV,
    TXT,
    A,
    DNSError,
    DNSHeader,
    DNSQuestion,
    DNSRecord,
)
from dnslib.buffer import BufferError as DnsBufferError
from dnslib.label import DNSBuffer, DNSLabelError

from irons_local.gateway.reach.records import MOST_BYTES, Found, Srv
from irons_local.gateway.shared.synthetic_names import NamesFullError
from irons_policy.decide import Kind
from irons_policy.hostnames import HostError, canonical_host

MAX_QUERY = 4096
TTL = 5
"""Seconds; the addresses never change, but a program that watches its cache should see it breathe."""

_HEADER = 12
_MAX_LABEL = 63
_MAX_NAME = 255

AddressOf = Callable[[str], IPv4Address]
Named = Callable[[str], bool]


_SRV_IN, _TXT_IN = b"\0\x21\0\1", b"\0\x10\0\1"
_OPT = b"\0\0\x29"
_PLAIN_UDP = 512


class Wanted(NamedTuple):
    """A question for SRV or TXT records.

    Attributes:
        query: the message.
        name: the canonical name.
        kind: the type.
        room: bytes that an answer by UDP may have.
    """

    query: bytes
    name: str
    kind: Kind
    room: int


def wanted(query: bytes | bytearray) -> Wanted | None:
    """Read a query as a question for SRV or TXT records; None for any other, which `answer` answers."""
    if _SRV_IN not in query and _TXT_IN not in query:
        return None
    if not _HEADER <= len(query) <= MAX_QUERY or not _plain(query):
        return None
    # One question, which is a query and no answer, of the operation 0.
    if query[2] & 0xF8 or query[4:6] != b"\0\1":
        return None
    labels: list[bytes] = []
    at = _HEADER
    while size := query[at]:
        labels.append(bytes(query[at + 1 : at + 1 + size]))
        at += 1 + size
    tail = bytes(query[at + 1 : at + 5])
    if tail not in {_SRV_IN, _TXT_IN}:
        return None
    name = _canonical(tuple(labels))
    if name is None:
        return None
    rest = query[at + 5 :]
    room = int.from_bytes(rest[3:5], "big") if rest[:3] == _OPT and len(rest) >= 11 else _PLAIN_UDP
    kind: Kind = "SRV" if tail == _SRV_IN else "TXT"
    return Wanted(bytes(query), name, kind, max(_PLAIN_UDP, min(room, MOST_BYTES)))


def compose(question: Wanted, found: Sequence[Found] | None, room: int) -> bytes:
    """The answer that has these records.

    Args:
        question: what was asked.
        found: the records; None where no one could say.
        room: bytes that it may have. By UDP what does not fit is to be asked for by TCP; beyond `MOST_BYTES`
            records are left out.
    """
    buffer = DNSBuffer(question.query)
    header = DNSHeader.parse(buffer)
    asked = DNSQuestion.parse(buffer)
    reply = DNSRecord(DNSHeader(id=header.id, qr=1, rd=header.rd, ra=1), q=asked)
    if found is None:
        reply.header.rcode = RCODE.SERVFAIL
        return bytes(reply.pack())
    kind = getattr(QTYPE, question.kind)
    size = len(reply.pack())
    for each in found:
        record = RR(asked.qname, kind, ttl=TTL, rdata=_rdata(each))
        # The owner is a pointer of two bytes, before ten of type, class, TTL and length.
        size += 12 + (
            8 + len(each.target) if isinstance(each, Srv) else sum(1 + len(part) for part in each.strings)
        )
        if size > MOST_BYTES:
            break
        if size > room:
            truncated = DNSRecord(DNSHeader(id=header.id, qr=1, rd=header.rd, ra=1, tc=1), q=asked)
            return bytes(truncated.pack())
        reply.add_answer(record)
    return bytes(reply.pack())


def _rdata(found: Found) -> SRV | TXT:
    if isinstance(found, Srv):
        return SRV(found.priority, found.weight, found.port, found.target)
    return TXT(list(found.strings))


def _unnamed(_: str) -> bool:
    return False


def answer(query: bytes | bytearray, address_of: AddressOf, named: Named = _unnamed) -> bytes:
    """Answer one query.

    Args:
        query: the message as it came, hostile or not.
        address_of: gives the address that stands for a canonical name; may raise `NamesFullError` or `OSError`.
        named: tells whether the policy names a name of a single label; any other of these does not exist.

    Returns:
        The answer, or nothing where the bytes deserve none.
    """
    if not _HEADER <= len(query) <= MAX_QUERY:
        return b""
    try:
        buffer = DNSBuffer(bytes(query))
        header = DNSHeader.parse(buffer)
        if header.qr:
            return b""
        question = DNSQuestion.parse(buffer) if header.q == 1 and _plain(query) else None
    except (DNSError, DnsBufferError, DNSLabelError, ValueError, IndexError):
        return _failure(query, RCODE.FORMERR)
    if header.opcode != OPCODE.QUERY:
        return _failure(query, RCODE.NOTIMP)
    if question is None:
        return _failure(query, RCODE.FORMERR)
    reply = DNSRecord(
        DNSHeader(id=header.id, qr=1, opcode=OPCODE.QUERY, rd=header.rd, ra=1),
        q=question,
    )
    if question.qclass != CLASS.IN:
        reply.header.rcode = RCODE.REFUSED
    else:
        reply.header.rcode = _fill(reply, question, address_of, named)
    try:
        return bytes(reply.pack())
    except (DNSError, DnsBufferError, DNSLabelError, ValueError):
        return _failure(query, RCODE.FORMERR)


def _fill(reply: DNSRecord, question: DNSQuestion, address_of: AddressOf, named: Named) -> int:
    name = _name(question)
    if name is None or question.qtype == QTYPE.PTR:
        return int(RCODE.NXDOMAIN)
    if name == "localhost":
        if question.qtype == QTYPE.A:
            reply.add_answer(RR(question.qname, QTYPE.A, ttl=TTL, rdata=A("127.0.0.1")))
        elif question.qtype == QTYPE.AAAA:
            reply.add_answer(RR(question.qname, QTYPE.AAAA, ttl=TTL, rdata=AAAA("::1")))
        return int(RCODE.NOERROR)
    if "." not in name and not named(name):
        return int(RCODE.NXDOMAIN)
    if question.qtype == QTYPE.A:
        try:
            address = address_of(name)
        except (NamesFullError, OSError):
            return int(RCODE.SERVFAIL)
        reply.add_answer(RR(question.qname, QTYPE.A, ttl=TTL, rdata=A(str(address))))
    # AAAA too has no data: one path is enough, and the host dials whichever family the name really has.
    return int(RCODE.NOERROR)


def _plain(query: bytes | bytearray) -> bool:
    """True where the question's name is spelled out within RFC 1035's limits: no pointers, which only answers need."""
    at = _HEADER
    while at < len(query) and query[at]:
        if query[at] > _MAX_LABEL:
            return False
        at += 1 + query[at]
    return at < len(query) and at - _HEADER < _MAX_NAME


def _name(question: DNSQuestion) -> str | None:
    return _canonical(question.qname.label if question.qname else ())


def _canonical(labels: tuple[bytes, ...]) -> str | None:
    if not labels or any(b"." in label for label in labels):
        return None
    try:
        host = canonical_host(b".".join(labels))
    except HostError:
        return None
    return host.text if host.address is None else None


def _failure(query: bytes | bytearray, rcode: int) -> bytes:
    identity = int.from_bytes(query[:2], "big")
    return bytes(DNSRecord(DNSHeader(id=identity, qr=1, ra=1, rcode=rcode)).pack())
