"""Patterns by what they cover: the first one that a host, or another pattern, has something in common with."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_policy.hostnames import canonical_host
from irons_policy.patterns import Pattern, read_pattern
from irons_policy.policy import PatternIndex, Policy

_HOSTS = ("example", "a.example", "b.a.example", "other", "192.0.2.7", "198.51.100.1", "2001:db8::1")
_PLACES = (
    *_HOSTS[:4],
    "*.example",
    "*.a.example",
    "*",
    "192.0.2.0/24",
    "192.0.2.7",
    "0.0.0.0/0",
    "2001:db8::/32",
)


def overlap(one: Pattern, other: Pattern) -> bool:
    """Whether the index of one finds it by the other."""
    return PatternIndex((one,)).overlapping(other) is one


@given(
    st.sampled_from(_PLACES), st.sampled_from(_PLACES), st.sampled_from(("", ":80", ":22", ":*")), st.data()
)
def test_patterns_overlap_where_both_cover_something(
    one: str, other: str, port: str, data: st.DataObject
) -> None:
    """What is covered by both is an overlap, whichever comes first."""

    def spelled(place: str, port: str) -> str:
        return f"[{place}]{port}" if ":" in place and port else f"{place}{port}"

    first = read_pattern(spelled(one, port))
    second = read_pattern(spelled(other, data.draw(st.sampled_from(("", ":80", ":22", ":*")))))
    both = any(
        each.covers_port(number)
        and each.covers_host(host)
        and other_.covers_port(number)
        and other_.covers_host(host)
        for each, other_ in [(first, second)]
        for host in map(canonical_host, _HOSTS)
        for number in (22, 80, 443, 9)
    )
    assert overlap(first, second) is overlap(second, first)
    assert overlap(first, second) >= both
    assert overlap(first, first)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.example", "b.example"),
        ("*.a.example", "a.example"),
        ("*.a.example", "*.b.example"),
        ("a.example:22", "a.example:80"),
        ("192.0.2.0/24", "198.51.100.0/24"),
        ("192.0.2.0/24", "2001:db8::/32"),
        ("192.0.2.0/24", "*.example"),
    ],
)
def test_patterns_that_have_nothing_in_common_do_not_overlap(one: str, other: str) -> None:
    """A rule for one leaves the other as it is."""
    assert not overlap(read_pattern(one), read_pattern(other))
    assert not overlap(read_pattern(other), read_pattern(one))


def _overlap_by_pairs(one: Pattern, other: Pattern) -> bool:
    """Whether two patterns have something in common, as it is told of two."""
    if one.ports is not None and other.ports is not None and not {*one.ports} & {*other.ports}:
        return False
    if "any" in (one.kind, other.kind):
        return True
    if one.network is not None and other.network is not None:
        return one.network.version == other.network.version and one.network.overlaps(other.network)
    if one.network is not None or other.network is not None:
        return False
    return _reaches(one, other) or _reaches(other, one)


def _reaches(wide: Pattern, other: Pattern) -> bool:
    if wide.kind == "name":
        return other.kind == "name" and wide.name == other.name
    return other.name.endswith("." + wide.name) or (other.kind == "below" and other.name == wide.name)


_NAMES = st.lists(st.sampled_from(("a", "b", "ab")), min_size=1, max_size=4).map(".".join)
_BLOCKS = st.one_of(
    st.tuples(st.integers(0, 7), st.integers(0, 32)).map(lambda of: (of[0] << 29 | of[0] << 3, 32, of[1])),
    st.tuples(st.integers(0, 7), st.integers(0, 128)).map(lambda of: (of[0] << 125 | of[0] << 3, 128, of[1])),
)


def _block(of: tuple[int, int, int]) -> str:
    number, width, prefix = of
    network = (IPv4Network if width == 32 else IPv6Network)(
        (number >> (width - prefix) << (width - prefix), prefix)
    )
    return f"[{network}]" if width == 128 else str(network)


_SOME = st.tuples(
    st.one_of(_NAMES, _NAMES.map("*.{}".format), st.just("*"), _BLOCKS.map(_block)),
    st.sampled_from(("", ":443", ":22", ":*")),
).map(lambda parts: read_pattern("".join(parts) if parts[1] else parts[0].strip("[]")))


@given(st.lists(_SOME, max_size=12), _SOME)
def test_of_many_patterns_it_is_the_first_that_overlaps(patterns: list[Pattern], asked: Pattern) -> None:
    """The index of many finds what looking at one after the other finds."""
    wanted = next((each for each in patterns if _overlap_by_pairs(each, asked)), None)
    assert PatternIndex(patterns).overlapping(asked) == wanted


@given(st.lists(_SOME, max_size=12), st.one_of(_NAMES, _BLOCKS), st.sampled_from((22, 80, 443)))
def test_of_many_patterns_it_is_the_first_that_covers(
    patterns: list[Pattern], place: str | tuple[int, int, int], port: int
) -> None:
    """What no person is asked about in a policy is found as by looking at one pattern after the other."""
    host = canonical_host(
        place if isinstance(place, str) else str((IPv4Address if place[1] == 32 else IPv6Address)(place[0]))
    )
    wanted = next((each for each in patterns if each.covers_port(port) and each.covers_host(host)), None)
    assert Policy(never=tuple(patterns)).unasked(host, port) == wanted
