"""Hosts as sandboxes send them: one spelling, and nothing that could be read in two ways."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_policy.addresses import embedded, loose_ipv4, unmapped
from irons_policy.hostnames import HostError, canonical_host

NUMBERS = st.one_of(
    st.integers(0, 2**33).map(str),
    st.integers(0, 2**33).map(hex),
    st.integers(0, 2**33).map(lambda value: f"0{value:o}"),
    st.sampled_from(["0", "00", "09", "0x", "1e3", "0b1", "1_0", "-1", "+1", ""]),
)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        (b"example.com", "example.com"),
        ("my_host._tcp.example.com", "my_host._tcp.example.com"),
        ("r3---sn-4g5e6nl7.example.com", "r3---sn-4g5e6nl7.example.com"),
        ("localhost", "localhost"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        (".".join(["a" * 49] * 5) + ".", ".".join(["a" * 49] * 5)),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:C000:201", "192.0.2.1"),
        ("192.0.2.1.", "192.0.2.1"),
        ("0xcb007142", "203.0.113.66"),
        ("3405803842", "203.0.113.66"),
        ("0XCB.0.0x71.66", "203.0.113.66"),
        ("0313.0.29250", "203.0.114.66"),
        ("127.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("010.0.0.1", "8.0.0.1"),
        ("12.example", "12.example"),
        ("0x7f.example", "0x7f.example"),
    ],
)
def test_hosts_have_one_spelling(raw: str | bytes, text: str) -> None:
    """Case, a trailing dot and every spelling of an address fold into one text."""
    assert canonical_host(raw).text == text


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "empty"),
        (".", "empty label"),
        ("a..example", "empty label"),
        (".example", "empty label"),
        ("example..", "empty label"),
        ("-example.com", "hyphen"),
        ("a" * 64 + ".example", "longer than 63"),
        (".".join(["a" * 50] * 5), "longer than 253"),
        ("a" * 100_000, "longer than 253"),
        ("evil.example\x00.allowed.example", "control character"),
        ("evil.example\n", "control character"),
        ("evil example", "space"),
        ("ⓔvil.example", "not ASCII"),
        ("evil。example", "not ASCII"),
        ("example\uff0ecom", "not ASCII"),
        (b"\xc3\xa9.example", "not ASCII"),
        ("user@evil.example", "more than letters"),
        ("evil.example/?", "more than letters"),
        ("evil.example\\.allowed.example", "more than letters"),
        ("*.example.com", "more than letters"),
        ("a%2eexample", "more than letters"),
        ("example.123", "ends in a number"),
        ("example.0x7f", "ends in a number"),
        ("example.0x", "ends in a number"),
        ("1.2.3.4.5", "ends in a number"),
        ("256.1.1.1", "ends in a number"),
        ("1.2.3.08", "ends in a number"),
        ("4294967296", "ends in a number"),
        ("1.2.65536", "ends in a number"),
        ("fe80::1%eth0", "zone"),
        ("::ffff:1.2.3.4%x.allowed.example", "zone"),
        ("[::1%25lo]", "zone"),
        ("[[::1]]", "neither"),
        ("[::1", "neither"),
        ("evil:443", "neither"),
        ("[example.com]", "neither"),
        ("::ffff:01.2.3.4", "neither"),
    ],
)
def test_other_hosts_are_refused_with_the_reason(raw: str | bytes, reason: str) -> None:
    """What is malformed or could be read in two ways is refused, and the message says why."""
    with pytest.raises(HostError, match=reason):
        canonical_host(raw)


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300), st.from_regex(r"[0-9a-fx.:\[\]_-]{0,40}")))
def test_every_input_is_refused_or_settles(raw: str | bytes) -> None:
    """Any input is refused with a HostError or gives a text that reads as itself and cannot be taken for a name."""
    try:
        host = canonical_host(raw)
    except HostError:
        return
    assert canonical_host(host.text) == host
    assert host.text.isascii()
    assert host.text == host.text.lower()
    assert len(host.text) <= 253
    assert (host.address is not None) == _is_address(host.text)


@given(st.lists(NUMBERS, min_size=1, max_size=5).map(".".join))
def test_loose_spellings_are_those_of_the_c_library(text: str) -> None:
    """An IPv4 spelling is read just as inet_aton(3) reads it, and where the two differ it is refused."""
    ours = loose_ipv4(text)
    if ours is not None:
        assert IPv4Address(socket.inet_aton(text)) == ours
        return
    try:
        theirs = socket.inet_aton(text)
    except OSError:
        return
    pytest.fail(f"{text} is {IPv4Address(theirs)} to the C library")


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_every_embedding_shows_what_it_carries(inner: IPv4Address) -> None:
    """Each IPv6 form that carries an IPv4 address shows it, in whichever place it is."""
    number = int(inner)
    high, low = number >> 16, number & 0xFFFF
    forms = {
        "IPv4-mapped": f"::ffff:{inner}",
        "SIIT": f"::ffff:0:{inner}",
        "NAT64": f"64:ff9b::{inner}",
        "6to4": f"2002:{high:x}:{low:x}::1",
    }
    forms |= {"ISATAP": f"2001:db8::5efe:{inner}"}
    if number > 1:
        forms["IPv4-compatible"] = f"::{inner}"
    for form, text in forms.items():
        assert (form, inner) in embedded(ip_address(text))
    server = (0x20010000 << 96) | (number << 64)
    client = (0x20010000 << 96) | (~number & 0xFFFF_FFFF)
    assert ("Teredo", inner) in embedded(IPv6Address(server))
    assert ("Teredo", inner) in embedded(IPv6Address(client))
    if number:
        base = int(IPv6Address("64:ff9b:1::"))
        for value in (
            number,
            number << 24,
            (number >> 24) << 64 | (number & 0xFF_FFFF) << 32,
            (number >> 16) << 64 | (number & 0xFFFF) << 40,
        ):
            assert ("NAT64", inner) in embedded(IPv6Address(base | value))


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_mapped_addresses_are_the_ipv4_address(inner: IPv4Address) -> None:
    """An IPv4-mapped address and the IPv4 address are one host."""
    assert unmapped(IPv6Address(f"::ffff:{inner}")) == inner
    assert canonical_host(f"[::ffff:{inner}]") == canonical_host(str(inner))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
