"""Netlink messages and attributes, written and read (netlink(7), rtnetlink(7)).

Every module that speaks to the kernel by netlink uses these; what the messages mean is theirs.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

NETFILTER = 12
"""The protocol `NETLINK_NETFILTER`, which Python's `socket` does not name."""

REQUEST, ACK, DUMP, EXCL, CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
DUMP_INTERRUPTED = 0x10
ERROR, DONE = 2, 3

ADDRESS = struct.Struct("=BBBBI")
"""`struct ifaddrmsg`: family, prefix length, flags, scope, index of the device."""

ROUTE = struct.Struct("=BBBBBBBBI")
"""`struct rtmsg`: family, prefix lengths of destination and source, TOS, table, protocol, scope, type, flags."""

IFA_ADDRESS, IFA_LOCAL = 1, 2

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF


class NetlinkMessage(NamedTuple):
    """One message of the kernel's.

    Attributes:
        kind: its type.
        flags: its `NLM_F_…`.
        sequence: the number of the request that it answers.
        body: what follows its header.
    """

    kind: int
    flags: int
    sequence: int
    body: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def message(kind: int, flags: int, payload: bytes, sequence: int = 0) -> bytes:
    """One message with its header."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def messages(data: bytes) -> Iterator[NetlinkMessage]:
    """The messages of one datagram.

    Raises:
        OSError: one is cut short; those before it have been given.
    """
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            raise OSError("the kernel's answer is cut short")
        yield NetlinkMessage(kind, flags, sequence, data[at + _HEADER.size : at + length])
        at += length + 3 & ~3


def attributes(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type and value of the attributes from an offset on; the first that cannot be read ends them."""
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3


def error_number(body: bytes) -> int:
    """The errno in the body of an `ERROR` message; 0 is an acknowledgement."""
    return -int(struct.unpack_from("=i", body)[0])


def acknowledged(sock: socket.socket) -> None:
    """Read the kernel's acknowledgement of the message just sent.

    Raises:
        OSError: the kernel refused the message.
    """
    for found in messages(sock.recv(4096)):
        if found.kind == ERROR and (number := error_number(found.body)):
            raise OSError(number, os.strerror(number), "netlink")
