"""The one codec of netlink: what is written is read again, and what is cut short is refused."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_local.linux import netlink
from irons_local.linux.netlink import NetlinkMessage, acknowledged, attribute, attributes, message, messages

NUMBERS = st.integers(0, 0xFFFF)
ATTRIBUTES = st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=5)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, ATTRIBUTES, NUMBERS), max_size=4))
def test_what_is_written_is_read(
    sent: list[tuple[int, int, list[tuple[int, bytes]], int]],
) -> None:
    """Messages of one datagram come back in their order, with their attributes, no matter what the padding."""
    data, expected = b"", []
    for kind, flags, parts, sequence in sent:
        body = b"".join(attribute(*each) for each in parts)
        data += message(kind, flags, body, sequence)
        expected.append(NetlinkMessage(kind, flags, sequence, body))
        assert list(attributes(body)) == parts
    assert list(messages(data)) == expected


@given(st.binary(max_size=120))
def test_any_bytes_are_survived(data: bytes) -> None:
    """Bytes that are not netlink end, or end with an error, and never in a loop."""
    list(attributes(data))
    try:
        list(messages(data))
    except OSError:
        assert len(data) >= 16


@pytest.mark.parametrize("length", [0, 15, 21])
def test_a_message_that_is_cut_short_is_refused(length: int) -> None:
    """A length below the header's or beyond the datagram is an error, after the messages before it."""
    cut = struct.pack("=IHHII", length, 1, 0, 0, 0) + b"\0\0\0\0"
    found = messages(message(7, 0, b"") + cut)
    assert next(found).kind == 7
    with pytest.raises(OSError, match="cut short"):
        next(found)


@pytest.mark.parametrize("number", [0, errno.EPERM])
def test_an_acknowledgement_is_an_error_of_number_zero(number: int) -> None:
    """The kernel's refusal is raised with its number; an acknowledgement is silent."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        far.send(message(netlink.ERROR, 0, struct.pack("=i", -number) + bytes(16)))
        if number:
            with pytest.raises(PermissionError):
                acknowledged(near)
        else:
            acknowledged(near)
