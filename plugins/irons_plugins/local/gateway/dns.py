"""What a cell's resolver answers (RFC 1035): a synthetic address for every name, and nothing that came from outside.

No query leaves. Names are answered alike whether they exist or may be reached, so an answer tells nothing and a
query carries nothing out; a name is resolved, by the host, only when a connection to it is about to be dialled.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from dnslib import AAAA, CLASS, OPCODE, QTYPE, RCODE, RR, A, DNSError, DNSHeader, DNSQuestion, DNSRecord
from dnslib.buffer import BufferError as DnsBufferError
from dnslib.label import DNSBuffer, DNSLabelError

from irons_plugins.local.gateway.names import NamesFullError
from irons_plugins.local.policy import HostError, canonical_host

MAX_QUERY = 4096
TTL = 5
"""Seconds; the addresses never change, but a program that watches its cache should see it breathe."""

_HEADER = 12
_MAX_LABEL = 63
_MAX_NAME = 255

AddressOf = Callable[[str], IPv4Address]
Named = Callable[[str], bool]


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
    labels: tuple[bytes, ...] = question.qname.label if question.qname else ()
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
