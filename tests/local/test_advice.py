"""Advice: the command that would let a refused connection pass, safe to paste."""

from __future__ import annotations

import shlex
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_policy.decide import decide
from irons_policy.hostnames import HostError, canonical_host
from irons_policy.policy import Policy
from irons_policy.remedy import suggestion
from irons_policy.rules import Scope, make_rule


@pytest.mark.parametrize(
    ("host", "port", "command"),
    [
        ("example.com", 443, "irons egress allow example.com --all"),
        ("Example.com.", 80, "irons egress allow example.com --all"),
        ("example.com", 22, "irons egress allow example.com:22 --all"),
        ("203.0.113.7", 443, "irons egress allow 203.0.113.7 --all"),
        ("2001:db8::1", 443, "irons egress allow 2001:db8::1 --all"),
        ("2001:db8::1", 22, "irons egress allow '[2001:db8::1]:22' --all"),
        ("a b", 443, None),
        ("-o.example", 443, None),
        ("$(reboot).example", 443, None),
        ("xn--a.example", 443, None),
        ("10.0.0.5", 443, "irons egress allow 10.0.0.5:443 --private 10.0.0.5 --all"),
        ("127.0.0.1", 80, "irons egress allow 127.0.0.1:80 --private 127.0.0.1 --all"),
        ("fd00::1", 80, "irons egress allow '[fd00::1]:80' --private fd00::1 --all"),
        ("169.254.169.254", 80, None),
        ("irons.internal", 80, None),
        ("1.2.3.4.5", 443, None),
    ],
)
def test_the_command_names_the_host_or_nothing(host: str, port: int, command: str | None) -> None:
    """A well-formed host gives the allow command for it and its port; anything else gives none."""
    assert suggestion(host, port) == command


def test_a_deny_rule_is_to_be_removed_where_it_stands() -> None:
    """Where a deny rule decided and an allow rule covers the host, the command takes that rule out of its scope."""
    allow = make_rule("*.a.example:*", "allow")
    account = Policy("deny", (make_rule("*.a.example", "deny"), allow))
    decision = decide(account, "x.a.example", 443)
    assert (
        suggestion("x.a.example", 443, decision=decision, sandbox="box")
        == "irons egress remove '*.a.example' --all"
    )
    own = Policy("deny", (make_rule("*.a.example", "deny", scope="sandbox"), allow))
    decision = decide(own, "x.a.example", 443)
    command = suggestion("x.a.example", 443, decision=decision, sandbox="box")
    assert command == "irons egress remove '*.a.example' --sandbox box"


@pytest.mark.parametrize(
    ("rule", "scope", "command"),
    [
        (
            "*.a.example",
            "account",
            "irons egress remove '*.a.example' --all && irons egress allow x.a.example --sandbox box",
        ),
        (
            "*.a.example",
            "sandbox",
            "irons egress remove '*.a.example' --sandbox box && irons egress allow x.a.example --sandbox box",
        ),
        (
            "x.a.example",
            "account",
            "irons egress remove x.a.example --all && irons egress allow x.a.example --sandbox box",
        ),
        ("x.a.example", "sandbox", "irons egress allow x.a.example --sandbox box"),
    ],
)
def test_a_deny_rule_alone_in_the_way_leads_to_no_second_refusal(
    rule: str, scope: Scope, command: str
) -> None:
    """Where no rule allows the host, the command removes the deny rule and allows it; one rule takes the other's place."""
    policy = Policy("deny", (make_rule(rule, "deny", scope=scope),))
    decision = decide(policy, "x.a.example", 443)
    assert suggestion("x.a.example", 443, decision=decision, sandbox="box") == command


def test_a_private_address_is_to_be_pinned_with_its_port() -> None:
    """Where the floor refused an address, the command pins that one; for what never opens there is none."""
    command = suggestion("db.example", 443, private=ip_address("::ffff:10.0.0.5"), sandbox="box")
    assert command == "irons egress allow db.example:443 --private 10.0.0.5 --sandbox box"
    for shut in ("169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1"):
        assert suggestion("db.example", 443, private=ip_address(shut)) is None


@given(st.text(max_size=80), st.integers(1, 65535))
def test_a_suggested_command_allows_just_that(host: str, port: int) -> None:
    """No matter what a sandbox sent, a command is plain words that allow that host and port, or there is none."""
    command = suggestion(host, port)
    if command is None:
        return
    words = shlex.split(command)
    assert words[:3] == ["irons", "egress", "allow"]
    assert words[4:] in (["--all"], ["--private", words[-2], "--all"])
    assert not words[3].startswith("-")
    try:
        asked = canonical_host(host)
    except HostError:
        pytest.fail("a command for what is no host")
    assert decide(Policy("deny", (make_rule(words[3], "allow"),)), asked, port).allowed
