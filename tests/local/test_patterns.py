"""Patterns: what people may type as a rule, its one spelling, and what it covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_policy.hostnames import HostError, canonical_host
from irons_policy.patterns import (
    PatternError,
    covers,
    parse_network,
    parse_pattern,
    read_never,
    read_pattern,
)

LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,10}[a-z0-9_])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(".".join)
PORTS = st.one_of(st.just(""), st.just(":*"), st.integers(1, 65535).map(lambda port: f":{port}"))
TYPED = st.one_of(
    st.text(max_size=60),
    st.tuples(st.sampled_from(["", "*.", "*"]), NAMES, PORTS).map("".join),
    st.tuples(st.ip_addresses().map(str), PORTS).map("".join),
    st.tuples(st.ip_addresses(v=6).map(lambda address: f"[{address}]"), PORTS).map("".join),
    st.tuples(st.text("aé√ßⓔ。\uff0e.ª\uff11xn-_\uff0a", min_size=1, max_size=20), PORTS).map("".join),
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
)


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("Example.COM.", "example.com"),
        ("example.com:443", "example.com:443"),
        ("example.com:*", "example.com:*"),
        ("*.Example.com:22", "*.example.com:22"),
        ("*", "*"),
        ("*:*", "*:*"),
        ("*:25", "*:25"),
        ("intranet", "intranet"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("my_host.bücher.example", "my_host.xn--bcher-kva.example"),
        ("r3---sn-4g5e6nl7.example.com", "r3---sn-4g5e6nl7.example.com"),
        ("faß.example", "xn--fa-hia.example"),
        ("ⓔvil。example", "evil.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("xn--i-7iq.example", "xn--i-7iq.example"),
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:*", "203.0.113.7:*"),
        ("203.0.113.7/32", "203.0.113.7"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("203.0.113.0/24:22", "203.0.113.0/24:22"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
        ("[2001:db8:0::1]", "2001:db8::1"),
        ("2001:db8::1:443", "2001:db8::1:443"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("[::ffff:192.0.2.1]:22", "192.0.2.1:22"),
    ],
)
def test_patterns_have_one_spelling(typed: str, text: str) -> None:
    """What people type, Unicode included, comes down to one canonical spelling."""
    assert parse_pattern(typed).text == text


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", "empty"),
        (" example.com", "no spaces"),
        ("a.example b.example", "one pattern at a time"),
        ("a.example,b.example", "one pattern at a time"),
        ("example.com:22,443", "one pattern at a time"),
        ("evil\x00.example", r"invisible character, U\+0000"),
        ("ex\u202eample.com", r"invisible character, U\+202E"),
        ("ex\u00adample.com", r"invisible character, U\+00AD"),
        ("localhost:8080", r"the sandbox itself.*\[local.hosts\]"),
        ("a..example", "empty label"),
        ("a" * 64 + ".example", "longer than 63"),
        (".".join(["a" * 50] * 6), "longer than 253"),
        ("ü" * 60 + ".example", "internationalised"),
        ("9" * 5000, "longer than 1024"),
        ("-o.example", "hyphen"),
        ("https://example.com/x", "not a URL; type example.com$"),
        ("HTTPS://user:pw@Example.com:8443/x?y", "not a URL; type example.com:8443$"),
        ("ssh://git@example.com/r", "not a URL; type example.com:22$"),
        ("https://[2001:db8::1]/", "not a URL; type 2001:db8::1$"),
        ("https://[2001:db8::1]:8443/", r"not a URL; type \[2001:db8::1\]:8443$"),
        ("https://*.com/", "not a URL"),
        ("git@example.com:org/repo.git", "not a user at it; type example.com:22$"),
        ("example.com/path", "without a path; type example.com$"),
        ("a.*.example.com", "wildcard stands alone"),
        ("**.example.com", "wildcard stands alone"),
        ("*example.com", "wildcard stands alone"),
        ("\uff0a.example.com", "more than letters"),
        ("example.com:0", "not a port"),
        ("example.com:65536", "not a port"),
        ("example.com:022", "not a port"),
        ("example.com:", "not a port"),
        ("example.com:https", "not a port"),
        ("evil.com:443.allowed.com", "not a port"),
        ("010.0.0.1", "another spelling of the address 8.0.0.1"),
        ("0x7f.1", "another spelling of the address 127.0.0.1"),
        ("192.0.2.1.", "another spelling of the address 192.0.2.1"),
        ("1.2.3.4.5", "ends in a number"),
        ("example.0x1", "ends in a number"),
        ("*.1.2.3.4", "ends in a number"),
        ("\uff11\uff12\uff17.0.0.1", "ends in a number"),
        ("10.0.0.5/8", "type 10.0.0.0/8 or 10.0.0.5"),
        ("10.0.0.0/33", "not a block"),
        ("10.0.0.0/255.0.0.0", "prefix length"),
        ("10.0.0.0/08", "prefix length"),
        ("10.0.0.0/٨", "prefix length"),
        ("fe80::1%eth0", "zones"),
        ("::ffff:1.2.3.4%x.allowed.com", "zones"),
        ("2001:db8::g", "not an IPv6"),
        ("[192.0.2.1]:80", "only IPv6"),
        ("[2001:db8::1]443", "is written"),
        ("[2001:db8::1", "is written"),
        ("xn--a.example", "internationalised"),
        ("xn--abc.example", "internationalised"),
        ("irons.internal", "answered by irons itself"),
    ],
)
def test_other_patterns_are_refused_with_the_reason(typed: str, reason: str) -> None:
    """A pattern that would be misread, or would silently do nothing, is refused, often with what to type instead."""
    with pytest.raises(PatternError, match=reason):
        parse_pattern(typed)


@pytest.mark.parametrize("name", ["com", "co.uk", "xn--p1ai", "kawasaki.jp", "foo.kawasaki.jp", "ck"])
def test_wildcards_over_registries_are_always_refused(name: str) -> None:
    """A wildcard over a suffix under which anyone registers names is refused, --broad or not, and the name is not."""
    for broad in (False, True):
        with pytest.raises(PatternError, match="every name registered"):
            parse_pattern(f"*.{name}", broad=broad)
    assert parse_pattern(name).text == name


@pytest.mark.parametrize("name", ["github.io", "test", "internal", "corp"])
def test_wildcards_over_private_suffixes_need_broad(name: str) -> None:
    """A wildcard over a private or unknown suffix is refused unless asked for by --broad, and read back as stored."""
    with pytest.raises(PatternError, match="--broad"):
        parse_pattern(f"*.{name}:22")
    assert parse_pattern(f"*.{name}:22", broad=True).text == f"*.{name}:22"
    assert read_pattern(f"*.{name}:22").text == f"*.{name}:22"


@pytest.mark.parametrize(
    "name", ["example.com", "someone.github.io", "city.kawasaki.jp", "host.test", "a.b.internal"]
)
def test_wildcards_below_a_suffix_are_accepted(name: str) -> None:
    """A wildcard over a name that someone holds is an ordinary pattern."""
    assert parse_pattern(f"*.{name}").name == name


@pytest.mark.parametrize(
    ("pattern", "host", "port", "matches"),
    [
        ("example.com", "example.com", 443, True),
        ("example.com", "example.com", 80, True),
        ("example.com", "example.com", 22, False),
        ("example.com", "a.example.com", 443, False),
        ("example.com", "notexample.com", 443, False),
        ("*.example.com", "a.example.com", 443, True),
        ("*.example.com", "b.a.example.com", 80, True),
        ("*.example.com", "example.com", 443, False),
        ("*.example.com", "notexample.com", 443, False),
        ("*.example.com:22", "a.example.com", 22, True),
        ("*.example.com:22", "a.example.com", 443, False),
        ("example.com:*", "example.com", 6000, True),
        ("*", "example.com", 443, True),
        ("*", "203.0.113.7", 443, True),
        ("*", "example.com", 22, False),
        ("*:*", "2001:db8::1", 22, True),
        ("203.0.113.0/24", "203.0.113.200", 443, True),
        ("203.0.113.0/24", "203.0.114.1", 443, False),
        ("203.0.113.7", "0xcb007107", 443, True),
        ("203.0.113.7", "::ffff:203.0.113.7", 443, True),
        ("[2001:db8::/32]:443", "2001:db8:1::1", 443, True),
        ("[2001:db8::/32]:443", "2001:db8:1::1", 80, False),
        ("::/0", "203.0.113.7", 443, False),
        ("0.0.0.0/0", "2001:db8::1", 443, False),
        ("0.0.0.0/0", "example.com", 443, False),
    ],
)
def test_patterns_match_what_the_design_says(pattern: str, host: str, port: int, matches: bool) -> None:
    """A name is itself alone, a wildcard any depth but not its apex, an address rule literal addresses alone."""
    parsed = parse_pattern(pattern)
    assert (parsed.covers_host(canonical_host(host)) and parsed.covers_port(port)) == matches


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("example.com", "example.com alone, and no name below it, on ports 443 and 80."),
        (
            "*.example.com:22",
            "Every name below example.com, however deep, but not example.com itself, on port 22.",
        ),
        ("*:*", "Every name and every literal address, on any port."),
        (
            "203.0.113.7",
            "Connections made to 203.0.113.7 itself, on ports 443 and 80; a deny rule also stops names that lead there.",
        ),
        (
            "10.0.0.0/8",
            (
                "Connections made to any address in 10.0.0.0/8, on ports 443 and 80; a deny rule also stops names "
                "that lead there, and an allow rule needs --private too, for this is private (RFC 1918)."
            ),
        ),
        (
            "169.254.169.254",
            (
                "Connections made to 169.254.169.254 itself, on ports 443 and 80; a deny rule also stops names that "
                "lead there, and an allow rule opens nothing, for this is link-local or metadata (RFC 3927)."
            ),
        ),
    ],
)
def test_what_a_pattern_covers_is_said_in_one_sentence(pattern: str, says: str) -> None:
    """Adding a rule can say exactly what it covers, the floor's part included."""
    assert covers(parse_pattern(pattern)) == says


@pytest.mark.slow
@given(TYPED, st.booleans())
def test_every_pattern_is_refused_or_settles(typed: str, broad: bool) -> None:
    """Anything that is typed is refused with a PatternError or has a spelling that parses to the same pattern."""
    try:
        pattern = parse_pattern(typed, broad=broad)
    except PatternError as refused:
        pattern, reason = None, str(refused)
    else:
        reason = ""
    assert reason.isprintable()
    if pattern is None:
        return
    assert parse_pattern(pattern.text, broad=broad) == pattern
    assert read_pattern(pattern.text) == pattern
    assert pattern.text.isascii()
    assert covers(pattern).count(". ") == 0


@given(NAMES)
def test_every_name_a_sandbox_may_send_can_be_a_rule(name: str) -> None:
    """A plain name that is not an address is one and the same as a host and as a pattern."""
    try:
        host = canonical_host(name)
    except HostError:
        return
    if "xn--" not in name and host.address is None and name != "irons.internal":
        pattern = parse_pattern(name)
        assert pattern.name == host.text
        assert pattern.covers_host(host)


@pytest.mark.parametrize("text", ["example.com", "10.0.0.1:22", "*", "", "10.0.0.5/8", "fe80::1%lo"])
def test_private_addresses_are_addresses_or_blocks(text: str) -> None:
    """--private takes an address or a block and nothing else."""
    with pytest.raises(PatternError):
        parse_network(text)


@pytest.mark.parametrize("given_", [None, "a.example", [None], ["a b"], [["a.example"]], {"a.example": 1}])
def test_what_is_not_a_list_of_patterns_is_refused(given_: object) -> None:
    """It names what is wrong, and is never read as nothing."""
    with pytest.raises(PatternError):
        read_never(given_)
