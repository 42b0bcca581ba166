"""Questions for SRV and TXT records, as they leave for the host's name servers, and what is taken of the answers.

An answer comes from outside. Only the records that were asked for are taken, a few of them, and each part is checked:
targets must be names in our own spelling. dnslib writes questions; it does not read answers, since the time it takes
to follow the names in one has no bound.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from dnslib import QTYPE, RCODE, DNSHeader, DNSQuestion, DNSRecord

from irons_policy.decide import Kind
from irons_policy.hostnames import HostError, canonical_host

MOST_BYTES = 4096
MOST_RECORDS = 32

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_SRV = struct.Struct("!HHH")
_IN = 1
_QR, _TC, _OPCODE, _RCODE = 0x8000, 0x0200, 0x7800, 0x000F
_POINTER, _LABEL = 0xC0, 0x3F
_MOST_NAME = 255
_MOST_POINTERS = 16


class BadAnswerError(Exception):
    """What came is not an answer to the question, or is malformed."""


class Srv(NamedTuple):
    """One SRV record (RFC 2782); `target` is a canonical name, or empty where the service is not offered."""

    priority: int
    weight: int
    port: int
    target: str


class Txt(NamedTuple):
    """One TXT record (RFC 1035): its strings, of up to 255 bytes each."""

    strings: tuple[bytes, ...]


Found = Srv | Txt


class Answer(NamedTuple):
    """A name server's answer.

    Attributes:
        rcode: its response code.
        truncated: it did not fit, and is to be asked for by TCP.
        records: those of the type that was asked for, at most `MOST_RECORDS`.
    """

    rcode: int
    truncated: bool
    records: tuple[Found, ...]

    @property
    def settled(self) -> bool:
        """True where the server answered the question: with records, or that there are none."""
        return self.rcode in {int(RCODE.NOERROR), int(RCODE.NXDOMAIN)}


def question(identity: int, name: str, kind: Kind) -> bytes:
    """The message that asks for the records of a canonical name.

    Args:
        identity: 0 to 65535, not to be guessed.
        name: canonical.
        kind: their type.
    """
    header = DNSHeader(id=identity, rd=1)
    return bytes(DNSRecord(header, q=DNSQuestion(name, getattr(QTYPE, kind))).pack())


def read_answer(data: bytes, identity: int, name: str, kind: Kind) -> Answer:
    """Read an answer to such a question.

    Raises:
        BadAnswerError: it is none, or malformed.
    """
    wanted = int(getattr(QTYPE, kind))
    try:
        known, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
        if known != identity or not flags & _QR or flags & _OPCODE or questions != 1:
            raise BadAnswerError("it is not an answer to the question")
        asked, at = _name(data, _HEADER.size)
        if b".".join(asked).lower() != name.encode("ascii") or data[at : at + 4] != struct.pack(
            "!HH", wanted, _IN
        ):
            raise BadAnswerError("it answers another question")
        rcode = flags & _RCODE
        if flags & _TC:
            return Answer(rcode, True, ())
        records = tuple(_records(data, at + 4, answers, wanted))
    except (struct.error, IndexError) as error:
        raise BadAnswerError("it is cut short") from error
    return Answer(rcode, False, records)


def _records(data: bytes, at: int, count: int, wanted: int) -> Iterator[Found]:
    taken = 0
    for _ in range(count):
        if taken == MOST_RECORDS:
            return
        _, at = _name(data, at)
        kind, group, _, size = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if at + size > len(data):
            raise BadAnswerError("it is cut short")
        if kind == wanted and group == _IN:
            found = _srv(data, at, at + size) if wanted == QTYPE.SRV else _txt(data[at : at + size])
            if found is not None:
                taken += 1
                yield found
        at += size


def _srv(data: bytes, at: int, end: int) -> Srv | None:
    """The record; None where its target is not a name that could be judged."""
    priority, weight, port = _SRV.unpack_from(data, at)
    labels, after = _name(data, at + _SRV.size)
    if after != end:
        raise BadAnswerError("a record has a wrong length")
    if not labels:
        return Srv(priority, weight, port, "")
    if any(b"." in label for label in labels):
        return None
    try:
        target = canonical_host(b".".join(labels))
    except HostError:
        return None
    return Srv(priority, weight, port, target.text) if target.address is None else None


def _txt(data: bytes) -> Txt:
    strings: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        if end > len(data):
            raise BadAnswerError("a record has a wrong length")
        strings.append(data[at + 1 : end])
        at = end
    return Txt(tuple(strings))


def _name(data: bytes, at: int) -> tuple[list[bytes], int]:
    """The labels of the name at a place, and where it ends there; in bounded time, no matter where it points."""
    labels: list[bytes] = []
    end = -1
    length = pointers = 0
    while size := data[at]:
        if size & _POINTER == _POINTER:
            end = end if end >= 0 else at + 2
            pointers += 1
            if pointers > _MOST_POINTERS:
                raise BadAnswerError("a name has no end")
            at = (size & _LABEL) << 8 | data[at + 1]
            continue
        length += size + 1
        if size & _POINTER or length > _MOST_NAME:
            raise BadAnswerError("a name is malformed")
        if at + 1 + size >= len(data):
            raise BadAnswerError("it is cut short")
        labels.append(data[at + 1 : at + 1 + size])
        at += 1 + size
    return labels, end if end >= 0 else at + 1
