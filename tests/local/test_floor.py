"""The floor: which addresses stay shut, which a pin opens, and by which disguises no one gets through."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from irons_policy import floor
from irons_policy.addresses import embedded, network_of, unmapped
from irons_policy.causes import Cause
from irons_policy.floor import Pin, refusal
from irons_policy.hostnet import HostNetwork

ANYWHERE = (Pin(ip_network("0.0.0.0/0"), True), Pin(ip_network("::/0"), True))
GROUND = HostNetwork(
    own=frozenset({ip_address("192.0.2.2"), ip_address("2001:db8:1::2"), ip_address("10.1.0.1")}),
    onlink=(ip_network("192.0.2.0/24"), ip_network("2001:db8:1::/64"), ip_network("10.1.0.0/16")),
    listeners=frozenset(
        {(ip_address("127.0.0.1"), 2222), (ip_address("0.0.0.0"), 7443), (ip_address("203.0.113.80"), 9)}
    ),
    own_networks=(ip_network("127.0.0.0/8"), ip_network("198.51.100.0/28")),
)
INNER = st.one_of(
    st.sampled_from(
        ["10.0.0.1", "127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "192.0.2.2", "203.0.113.9"]
    ),
    st.ip_addresses(v=4).map(str),
).map(IPv4Address)
ADDRESSES = st.one_of(
    st.ip_addresses(),
    INNER,
    st.sampled_from(
        [row.network for row in floor.NEVER + floor.LOOPBACK + floor.FLOOR + floor.EMBEDDING]
    ).flatmap(lambda network: st.ip_addresses(network=network)),
    st.tuples(
        st.sampled_from(["::", "::ffff:", "::ffff:0:", "64:ff9b::", "64:ff9b:1::", "2001:db8::5efe:"]), INNER
    ).map(lambda pair: IPv6Address(f"{pair[0]}{pair[1]}")),
)


@pytest.mark.parametrize(
    "text",
    [
        "8.8.8.8",
        "203.0.113.9",
        "198.51.100.200",
        "192.0.3.1",
        "172.15.255.255",
        "172.32.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "192.31.196.1",
        "2001:db8::9",
        "2600::1",
        "3fff::1",
        "2001:200::1",
        "::ffff:203.0.113.9",
        "64:ff9b::203.0.113.9",
        "2002:cb00:7109::1",
        "2001:0:cb00:7109:0:0:34ff:8ef6",
        "2001:db8::5efe:203.0.113.9",
    ],
)
def test_ordinary_addresses_pass(text: str) -> None:
    """Global addresses pass, documentation ranges and IPv6 forms of such addresses among them."""
    assert refusal(ip_address(text), 443, (), GROUND) is None


FLOORED = [
    ("0.1.2.3", "RFC 1122"),
    ("10.0.0.1", "RFC 1918"),
    ("172.16.0.1", "RFC 1918"),
    ("172.31.255.255", "RFC 1918"),
    ("192.168.1.1", "RFC 1918"),
    ("100.64.0.1", "RFC 6598"),
    ("100.127.255.255", "RFC 6598"),
    ("192.0.0.8", "RFC 6890"),
    ("192.88.99.1", "RFC 7526"),
    ("198.18.0.1", "RFC 2544"),
    ("198.19.255.255", "RFC 2544"),
    ("240.0.0.1", "RFC 1112"),
    ("255.255.255.254", "RFC 1112"),
    ("192.0.2.77", "own network"),
    ("2001:db8:1::77", "own network"),
    ("fc00::1", "RFC 4193"),
    ("fd12:3456::1", "RFC 4193"),
    ("fec0::1", "RFC 3879"),
    ("100::1", "RFC 6666"),
    ("2001:1::1", "RFC 2928"),
    ("5f00::1", "RFC 9602"),
    ("4000::1", "RFC 4291"),
    ("200::1", "RFC 4291"),
    ("64:ff9b:1::a00:1", "RFC 8215"),
    ("64:ff9b:1::203.0.113.9", "RFC 8215"),
    ("64:ff9b:2::1", "RFC 4291"),
    ("::ffff:10.0.0.1", "RFC 1918"),
    ("::10.0.0.1", "IPv4-compatible"),
    ("::ffff:0:10.0.0.1", "SIIT"),
    ("64:ff9b::10.0.0.1", "NAT64"),
    ("64:ff9b::192.0.2.77", "own network"),
    ("2002:a00:1::1", "6to4"),
    ("2001:0:a00:1::1", "Teredo"),
    ("2001:0:cb00:7109:0:0:f5ff:fffe", "Teredo"),
    ("2001:db8::5efe:10.0.0.1", "ISATAP"),
    ("2001:db8::200:5efe:10.0.0.1", "ISATAP"),
]


@pytest.mark.parametrize(("text", "names"), FLOORED)
def test_the_floor_holds_until_a_pin_opens_it(text: str, names: str) -> None:
    """What is private, reserved or on this machine's networks, in any disguise, opens only for a pin that holds it."""
    address = ip_address(text)
    held = refusal(address, 443, (), GROUND)
    assert held is not None
    assert held.cause is Cause.FLOOR
    assert names in held.reason
    assert text in held.reason or str(unmapped(address)) in held.reason
    assert refusal(address, 443, (Pin(network_of(unmapped(address)), False),), GROUND) is None
    assert refusal(address, 443, (Pin(ip_network("203.0.113.0/24"), True),), GROUND) == held


NEVER = [
    "0.0.0.0",
    "::",
    "169.254.169.254",
    "169.254.0.1",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "fd00:42::42",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "febf::1",
    "224.0.0.1",
    "239.255.255.255",
    "255.255.255.255",
    "ff02::1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::a9fe:a9fe",
    "::ffff:0:a9fe:a9fe",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:0:a9:fea9:fe00:0",
    "64:ff9b:1:a9:fe:a9fe::",
    "64:ff9b:1:a9fe:a9:fe00::",
    "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::1",
    "2001:0:cb00:7109:0:0:5601:5601",
    "2001:db8::5efe:a9fe:a9fe",
]


@pytest.mark.parametrize("text", NEVER)
def test_some_addresses_never_open(text: str) -> None:
    """Link-local, metadata, multicast and unspecified addresses, in any disguise, open for no pin at all."""
    address = ip_address(text)
    exact = Pin(network_of(unmapped(address)), True)
    for pins in ((), ANYWHERE, (exact,)):
        held = refusal(address, 80, pins, GROUND)
        assert held is not None
        assert held.cause is Cause.NEVER
        assert "no rule opens that" in held.reason


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "192.0.2.2",
        "10.1.0.1",
        "2001:db8:1::2",
        "198.51.100.3",
        "::ffff:127.0.0.1",
        "::7f00:1",
        "64:ff9b::127.0.0.1",
        "2002:7f00:1::1",
        "2001:db8::5efe:c000:202",
    ],
)
def test_own_addresses_open_one_at_a_time(text: str) -> None:
    """This machine's addresses open only for a pin of that one address on a rule for one port."""
    address = ip_address(text)
    exact = network_of(unmapped(address))
    wide = exact.supernet(new_prefix=exact.prefixlen - 1)
    for pins in (
        (),
        ANYWHERE,
        (Pin(exact, False),),
        (Pin(wide, True),),
        (Pin(ip_network("192.0.2.0/32"), True),),
    ):
        held = refusal(address, 8080, pins, GROUND)
        assert held is not None
        assert held.cause is Cause.FLOOR
        assert "this machine's own" in held.reason
    assert refusal(address, 8080, (Pin(exact, True),), GROUND) is None


@pytest.mark.parametrize(
    ("text", "port", "open_"),
    [
        ("127.0.0.1", 2222, False),
        ("::ffff:127.0.0.1", 2222, False),
        ("127.0.0.1", 2223, True),
        ("127.0.0.2", 2222, True),
        ("127.0.0.9", 7443, False),
        ("192.0.2.2", 7443, False),
        ("10.1.0.1", 7443, False),
        ("203.0.113.5", 7443, True),
        ("203.0.113.80", 9, False),
    ],
)
def test_irons_own_listeners_never_open(text: str, port: int, open_: bool) -> None:
    """Where irons itself listens stays shut even for an exact pin; a wildcard listener stands for every own address."""
    address = ip_address(text)
    pins = (Pin(network_of(unmapped(address)), True),)
    assert (refusal(address, port, pins, GROUND) is None) == open_


def test_zones_are_refused() -> None:
    """An address with a zone is refused, no matter what is pinned."""
    held = refusal(IPv6Address("2001:db8::9%eth0"), 443, ANYWHERE, HostNetwork())
    assert held is not None
    assert (held.cause, "zone" in held.reason) == (Cause.NEVER, True)


@pytest.mark.slow
@given(ADDRESSES, st.integers(1, 65535), st.lists(ADDRESSES, max_size=3), st.booleans())
def test_no_pin_opens_what_never_opens(
    address: IPv4Address | IPv6Address, port: int, pinned: list[IPv4Address | IPv6Address], one_port: bool
) -> None:
    """No matter what is pinned, neither an address that never opens nor one that carries it is dialled."""
    pins = [Pin(network_of(each), one_port) for each in [address, *pinned]]
    faces = [unmapped(address), *(inner for _, inner in embedded(address))]
    if any(floor.never(face) for face in faces):
        assert refusal(address, port, [*pins, *ANYWHERE], GROUND) is not None


@given(ADDRESSES, st.integers(1, 65535))
def test_nothing_special_passes_without_a_pin(address: IPv4Address | IPv6Address, port: int) -> None:
    """Without a pin, nothing passes that Python's own table calls private, the documentation ranges left aside."""
    if refusal(address, port, (), GROUND) is not None:
        return
    face = unmapped(address)
    documentation = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")
    assume(not any(face in ip_network(network) for network in documentation))
    for each in [face, *(inner for _, inner in embedded(address))]:
        if isinstance(each, IPv4Address) and not any(
            each in ip_network(network) for network in documentation
        ):
            assert not each.is_private
            assert not each.is_link_local
            assert not each.is_multicast
            assert not each.is_reserved
        assert not floor.own(each, GROUND)
        assert not any(each in network for network in GROUND.onlink)


@given(ADDRESSES, st.integers(1, 65535))
def test_mapped_and_plain_are_judged_alike(address: IPv4Address | IPv6Address, port: int) -> None:
    """An IPv4 address and its mapped form get one verdict, with and without pins."""
    if isinstance(address, IPv6Address):
        return
    mapped = IPv6Address(f"::ffff:{address}")
    for pins in ((), ANYWHERE, (Pin(network_of(address), True),)):
        assert refusal(address, port, pins, GROUND) == refusal(mapped, port, pins, GROUND)


@pytest.mark.parametrize(
    ("network", "step"),
    [
        ("10.0.0.0/8", "floor"),
        ("10.2.0.0/16", "floor"),
        ("0.0.0.0/0", None),
        ("203.0.113.0/24", None),
        ("169.254.0.0/16", "never"),
        ("127.0.0.0/8", "own"),
        ("::1/128", "own"),
        ("64:ff9b::a00:1/128", "floor"),
        ("64:ff9b::a9fe:a9fe/128", "never"),
        ("64:ff9b::cb00:7109/128", None),
        ("2001::cb00:7109/128", "never"),
    ],
)
def test_a_person_is_told_how_a_network_is_held(network: str, step: str | None) -> None:
    """Before a rule is made, the table says at which step it would hold a whole network."""
    held = floor.held(ip_network(network))
    assert (held[0] if held else None) == step
