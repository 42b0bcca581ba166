"""Reading what the kernel refused."""

from __future__ import annotations

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from irons_local.gateway.accept.nflog import packets, parse


def udp4(port: int = 443, fragment: int = 0) -> bytes:
    """The beginning of a datagram."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, 28, 1, fragment, 64, 17, 0)
    return (
        head + socket.inet_aton("100.64.0.2") + socket.inet_aton("198.18.0.1") + struct.pack(">HH", 9, port)
    )


def udp6(*, extensions: bytes = b"", following: int = 17) -> bytes:
    """The same by IPv6."""
    head = struct.pack(">IHBB", 0x60000000, 8, following, 64)
    ends = socket.inet_pton(socket.AF_INET6, "fd64::2") + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    return head + ends + extensions + struct.pack(">HH", 9, 443)


def message(payload: bytes) -> bytes:
    """A message of the kernel's around a packet."""

    def attribute(kind: int, value: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)

    body = b"\0\0\0\5" + attribute(10, b"x\0") + attribute(9, payload)
    return struct.pack("=IHHII", 16 + len(body), 4 << 8, 0, 0, 0) + body


def test_packets_are_read() -> None:
    """Protocol, address and port of both families; a later fragment has no port."""
    found = parse(udp4())
    assert found is not None
    assert (found.protocol, str(found.address), found.port) == ("udp", "198.18.0.1", 443)
    assert parse(udp4(fragment=5)) == found._replace(port=0)
    six = parse(udp6())
    assert six is not None
    assert (six.protocol, str(six.address), six.port) == ("udp", "2001:db8::1", 443)
    assert parse(udp6(extensions=b"\x11\0" + b"\0" * 6, following=60)) == six
    assert parse(udp6(extensions=b"\x11\0\0\x08" + b"\0" * 4, following=44)) == six._replace(port=0)


def test_messages_are_read() -> None:
    """Each message of a datagram; one without a packet that can be read is passed over."""
    assert list(packets(message(udp4()) + message(b"\0") + message(udp6()))) == [parse(udp4()), parse(udp6())]


@given(st.binary(max_size=200))
def test_any_packet_is_survived(data: bytes) -> None:
    """Hostile packets are read or not."""
    parse(data)
    parse(b"\x45" + data)
    parse(b"\x60" + data)


@given(st.binary(max_size=200))
def test_any_message_is_survived(data: bytes) -> None:
    """Odd lengths end the reading."""
    list(packets(data))
    list(packets(struct.pack("=IHHII", 16 + len(data), 4 << 8, 0, 0, 0) + data))


def test_packets_before_a_message_that_is_cut_short_are_read() -> None:
    """A datagram that the kernel cut short costs its last message, and not those before it."""
    whole = message(udp4())
    assert list(packets(whole + message(udp6())[:-1])) == [parse(udp4())]


@given(st.binary(max_size=200))
def test_any_datagram_is_survived(data: bytes) -> None:
    """Reading any datagram ends without an error."""
    list(packets(message(udp4()) + data))
