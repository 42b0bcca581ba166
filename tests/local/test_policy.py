"""Verdicts: lists, scopes, modes, the deciding rule, and the address that is finally dialled."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_policy.addresses import unmapped
from irons_policy.causes import Cause
from irons_policy.decide import Live, decide, decide_address, forbidden, judge
from irons_policy.hostnames import HostError, canonical_host
from irons_policy.hostnet import HostNetwork
from irons_policy.modes import Mode
from irons_policy.policy import Policy, PolicyError
from irons_policy.rules import ListName, Rule, Scope, make_rule

GROUND = HostNetwork(own=frozenset({ip_address("192.0.2.2")}), onlink=(ip_network("192.0.2.0/24"),))


def allow(pattern: str, *private: str, scope: Scope = "account") -> Rule:
    """An allow rule."""
    return make_rule(pattern, "allow", scope=scope, private=private)


def deny(pattern: str, scope: Scope = "account") -> Rule:
    """A deny rule."""
    return make_rule(pattern, "deny", scope=scope)


def policy(*rules: Rule, mode: Mode = "deny", hosts: dict[str, Any] | None = None) -> Policy:
    """A policy, by way of its JSON form as the processes pass it."""
    made = Policy.from_json({"mode": mode, "rules": [rule.to_json() for rule in rules], "hosts": hosts or {}})
    assert made.rules == rules
    return made


def test_an_empty_policy_denies_all_in_deny() -> None:
    """No rules means nothing passes, not that nothing is judged."""
    decision = decide(policy(), "example.com", 443)
    assert decision == (
        False,
        "blocked",
        "deny",
        None,
        None,
        None,
        "no rule allows example.com",
        Cause.UNCOVERED,
        False,
    )


def test_warn_waives_the_rules_and_says_so() -> None:
    """In warn, what would not have passed passes with the verdict "warn"; what a rule allows is plainly allowed."""
    held = policy(allow("a.example"), deny("b.example"), mode="warn")
    assert decide(held, "a.example", 443)[:5] == (True, "allowed", "warn", "a.example", "allow")
    denied = decide(held, "b.example", 443)
    assert denied[:6] == (True, "warn", "warn", "b.example", "deny", "account")
    assert denied.reason == "rule b.example (all sandboxes) denies it (let pass: mode warn)"
    assert decide(held, "c.example", 443)[:4] == (True, "warn", "warn", None)


@pytest.mark.parametrize("allowed", ["account", "sandbox"])
@pytest.mark.parametrize("denied", ["account", "sandbox"])
def test_deny_wins_over_allow_in_any_scope(allowed: Scope, denied: Scope) -> None:
    """Account and sandbox lists are unions, and one deny anywhere beats every allow, however narrow."""
    held = policy(allow("api.a.example:443", scope=allowed), deny("*", scope=denied))
    decision = decide(held, "api.a.example", 443)
    assert (decision.allowed, decision.rule, decision.list, decision.scope) == (False, "*", "deny", denied)


def test_the_narrowest_rule_is_the_one_named() -> None:
    """The rule in the report is the narrowest that matches in the deciding list, no matter what their order."""
    rules = [
        allow("*"),
        allow("*:*"),
        allow("*.a.example"),
        allow("*.b.a.example"),
        allow("c.b.a.example:*"),
        allow("c.b.a.example"),
        allow("c.b.a.example:443"),
        allow("c.b.a.example:443", scope="sandbox"),
    ]
    while rules:
        narrowest = rules[-1]
        for order in (rules, rules[::-1]):
            decision = decide(policy(*order), "c.b.a.example", 443)
            if narrowest.pattern.text == "*:*":
                assert decision.rule == "*"
            else:
                assert (decision.rule, decision.scope) == (narrowest.pattern.text, narrowest.scope)
        rules.pop()


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.8", "203.0.113.0/24"),
        ("203.0.9.9", "203.0.0.0/16"),
        ("8.8.8.8", "*"),
    ],
)
def test_the_longest_prefix_is_the_one_named(host: str, rule: str) -> None:
    """Among address rules the longest prefix is the narrowest."""
    held = policy(allow("203.0.0.0/16"), allow("*"), allow("203.0.113.7"), allow("203.0.113.0/24"))
    assert decide(held, host, 443).rule == rule


def test_a_rule_for_another_port_is_hinted_at() -> None:
    """A refusal says so when the host is allowed on other ports only."""
    decision = decide(policy(allow("a.example")), "a.example", 22)
    assert (
        decision.reason
        == "no rule allows port 22 of a.example; rule a.example (all sandboxes) allows 443 and 80"
    )
    assert decision.rule is None


@pytest.mark.parametrize("host", ["a.example%00.b", "a.exa\x00mple", "", "1.2.3.4.5", "fe80::1%eth0"])
def test_malformed_hosts_are_refused_in_both_modes(host: str) -> None:
    """What is not a host raises in warn as in deny, even where everything is allowed."""
    for mode in ("warn", "deny"):
        with pytest.raises(HostError):
            decide(Policy(mode, (allow("*:*"),)), host, 443)


@pytest.mark.parametrize(
    "host",
    [
        "evil.com.allowed.example.evil.com",
        "allowed.example.evil.com",
        "notallowed.example",
        "a.allowed.example",
        "allowed.example.",
        "ALLOWED.example",
    ],
)
def test_no_disguise_of_a_name_passes_and_no_spelling_of_it_fails(host: str) -> None:
    """Prefixes, suffixes and sub-names of an allowed name are other names; case and the last dot are not."""
    folded = host.lower().removesuffix(".")
    assert decide(policy(allow("allowed.example")), host, 443).allowed == (folded == "allowed.example")


@pytest.mark.parametrize(
    "host", ["0x0a000001", "167772161", "012.1", "10.1", "::ffff:a00:1", "[::ffff:10.0.0.1]"]
)
def test_spellings_of_an_address_meet_its_rule_and_no_name_rule(host: str) -> None:
    """Every spelling of an address is judged as the address: by address rules, then by the floor."""
    assert decide(policy(deny("10.0.0.1")), host, 443).rule == "10.0.0.1"
    held = policy(allow("10.0.0.1"))
    assert decide(held, host, 443).allowed
    decision = judge(held, canonical_host(host), 443, GROUND)
    assert not decision.allowed
    assert "RFC 1918" in decision.reason


def test_an_allow_rule_by_address_does_not_open_names() -> None:
    """An allow rule for an address is met by connections to the literal address, never by a name that leads there."""
    held = policy(allow("203.0.113.0/24"))
    assert decide(held, "203.0.113.7", 443).allowed
    assert not decide(held, "a.example", 443).allowed


@pytest.mark.parametrize(
    "address", ["203.0.113.7", "::ffff:203.0.113.7", "64:ff9b::cb00:7107", "2002:cb00:7107::1"]
)
def test_a_deny_rule_by_address_stops_names_that_lead_there(address: str) -> None:
    """A deny rule for an address holds for the address finally dialled, in any form, on the rule's ports."""
    held = policy(allow("a.example:*"), deny("203.0.113.0/24"))
    host = canonical_host("a.example")
    assert decide(held, host, 443).allowed
    refused = decide_address(held, host, 443, ip_address(address), GROUND)
    assert not refused.allowed
    assert (
        refused.reason
        == f"a.example leads to {unmapped(ip_address(address))}, and rule 203.0.113.0/24 (all sandboxes) denies that"
    )
    assert decide_address(held, host, 22, ip_address(address), GROUND).allowed
    assert decide_address(held, host, 443, ip_address("198.51.100.7"), GROUND).allowed


def test_warn_waives_a_deny_rule_by_address_but_not_the_floor() -> None:
    """In warn a denied address is dialled with the verdict "warn"; one beneath the floor is refused all the same."""
    held = policy(deny("203.0.113.0/24"), mode="warn")
    host = canonical_host("a.example")
    waived = decide_address(held, host, 443, ip_address("203.0.113.7"), GROUND)
    assert waived[:5] == (True, "warn", "warn", "203.0.113.0/24", "deny")
    for address in ("10.0.0.1", "127.0.0.1", "169.254.169.254", "192.0.2.2", "192.0.2.9", "::ffff:0:a00:1"):
        refused = decide_address(held, host, 443, ip_address(address), GROUND)
        assert refused[:4] == (False, "blocked", "warn", None)


def test_pins_hold_for_their_host_and_port_alone() -> None:
    """What --private opens is opened for the host and port of its rule, not for others, nor by a deny rule's match."""
    held = policy(
        allow("db.example:5432", "10.0.0.5"),
        allow("*.intra.example", "192.168.0.0/16"),
        allow("db.example"),
        allow("dev.example:8080", "127.0.0.1"),
        allow("lan.example:22", "192.0.2.2"),
        allow("wide.example:22", "192.0.0.0/16"),
    )

    def passes(host: str, port: int, address: str) -> bool:
        return decide_address(held, canonical_host(host), port, ip_address(address), GROUND).allowed

    assert passes("db.example", 5432, "10.0.0.5")
    assert passes("db.example", 5432, "::ffff:10.0.0.5")
    assert passes("db.example", 5432, "203.0.113.5")
    assert not passes("db.example", 5432, "10.0.0.6")
    assert not passes("db.example", 5432, "64:ff9b::a00:5")
    assert not passes("db.example", 443, "10.0.0.5")
    assert passes("a.intra.example", 443, "192.168.7.7")
    assert not passes("intra.example", 443, "192.168.7.7")
    assert passes("dev.example", 8080, "127.0.0.1")
    assert not passes("dev.example", 8080, "127.0.0.2")
    assert passes("lan.example", 22, "192.0.2.2")
    assert not passes("lan.example", 22, "192.0.2.3")
    assert passes("wide.example", 22, "192.0.2.3")
    assert not passes("wide.example", 22, "192.0.2.2")


def test_names_may_have_fixed_addresses_beneath_the_same_floor() -> None:
    """[local.hosts] names lead where it says, under the floor and the pins like any other."""
    held = policy(
        allow("web.test"),
        allow("web.test:8080", "127.0.0.1"),
        hosts={"Web.Test": ["203.0.113.9"], "loop.test": ["127.0.0.1"]},
    )
    web = canonical_host("web.test")
    assert held.addresses_of(web) == (ip_address("203.0.113.9"),)
    assert held.addresses_of(canonical_host("198.51.100.1")) == (ip_address("198.51.100.1"),)
    assert held.addresses_of(canonical_host("a.web.test")) is None
    assert judge(held, web, 443, GROUND).rule == "web.test"
    opened = policy(allow("loop.test"), hosts={"loop.test": ["127.0.0.1"]})
    assert "this machine's own" in judge(opened, canonical_host("loop.test"), 443, GROUND).reason
    assert judge(opened, canonical_host("elsewhere.test"), 443, GROUND).rule is None


def test_a_check_by_address_sees_what_the_dial_would() -> None:
    """What egress check says of a literal address holds the floor and the deny rules too, in the mode's terms."""
    held = policy(
        deny("203.0.113.0/24"), mode="warn", hosts={"a.test": ["203.0.113.9"], "b.test": ["10.0.0.1"]}
    )
    assert judge(held, canonical_host("a.test"), 443, GROUND)[:4] == (True, "warn", "warn", "203.0.113.0/24")
    assert judge(held, canonical_host("b.test"), 443, GROUND)[:2] == (False, "blocked")
    assert judge(held, canonical_host("127.0.0.1"), 443, GROUND)[:2] == (False, "blocked")
    assert judge(held, canonical_host("198.51.100.1"), 443, GROUND)[:2] == (True, "warn")


def test_a_check_tells_of_the_address_that_fares_best() -> None:
    """Of the addresses of a name one that may be dialled is enough, were it only for the mode."""
    held = policy(
        deny("203.0.113.0/24"),
        mode="warn",
        hosts={"some.test": ["10.0.0.1", "203.0.113.9"], "none.test": ["10.0.0.1", "169.254.169.254"]},
    )
    assert judge(held, canonical_host("some.test"), 443, GROUND)[:2] == (True, "warn")
    assert judge(held, canonical_host("none.test"), 443, GROUND)[:2] == (False, "blocked")


def test_an_allow_rule_by_address_forbids_nothing() -> None:
    """Where an allowed name leads to an address that an allow rule names, both let it pass, on every port that the name has."""
    held = policy(allow("a.test:*"), allow("203.0.113.0/24"))
    host, address = canonical_host("a.test"), ip_address("203.0.113.9")
    for port in (443, 22):
        assert decide_address(held, host, port, address, GROUND).verdict == "allowed"


def test_a_name_in_the_configuration_may_have_its_one_address_alone() -> None:
    """Next to a list of addresses, one as a string is understood."""
    assert policy(hosts={"a.test": "203.0.113.9"}).addresses_of(canonical_host("a.test")) == (
        ip_address("203.0.113.9"),
    )


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that asks for ever more names and addresses takes no more memory than the bound, and is judged alike."""
    monkeypatch.setattr("irons_policy.decide._REMEMBERED", 20)
    held = policy(allow("*.a.test"))
    for number in range(50):
        host, address = canonical_host(f"n{number}.a.test"), ip_address(f"203.0.113.{number}")
        for _ in range(2):
            assert decide(held, host, 443).allowed
            assert not decide(held, canonical_host(f"n{number}.b.test"), 443).allowed
            assert decide_address(held, host, 443, address, GROUND).allowed
        assert 0 < len(held.verdicts.hosts) <= 20
        assert 0 < len(held.verdicts.on(GROUND)) <= 20


def test_new_rules_forbid_live_connections() -> None:
    """A new policy says which open connections it forbids, by rule, by address and by the floor, and why."""
    lives = [
        Live(canonical_host("a.example"), 443, ip_address("203.0.113.1")),
        Live(canonical_host("a.example"), 22, ip_address("203.0.113.1")),
        Live(canonical_host("b.example"), 443, ip_address("198.51.100.1")),
        Live(canonical_host("c.example"), 443, ip_address("10.0.0.1")),
        Live(canonical_host("d.example"), 443),
    ]
    open_all = policy(allow("*:*"), allow("c.example", "10.0.0.1"))
    assert forbidden(open_all, lives, GROUND) == []
    tight = policy(
        allow("a.example"),
        allow("b.example"),
        allow("c.example"),
        allow("d.example"),
        deny("198.51.100.0/24"),
    )
    cut = dict(forbidden(tight, lives, GROUND))
    assert set(cut) == {lives[1], lives[2], lives[3]}
    assert "port 22" in cut[lives[1]]
    assert "198.51.100.0/24" in cut[lives[2]]
    assert "RFC 1918" in cut[lives[3]]
    assert set(dict(forbidden(policy(mode="warn"), lives, GROUND))) == {lives[3]}


@pytest.mark.parametrize(
    "obj",
    [
        None,
        [],
        {},
        {"mode": "open"},
        {"mode": []},
        {"mode": "deny", "rules": {}},
        {"mode": "deny", "rules": [{"pattern": "*"}]},
        {"mode": "deny", "rules": [], "hosts": []},
        {"mode": "deny", "rules": [], "hosts": {"*.test": ["203.0.113.1"]}},
        {"mode": "deny", "rules": [], "hosts": {"a.test:80": ["203.0.113.1"]}},
        {"mode": "deny", "rules": [], "hosts": {"10.0.0.1": ["203.0.113.1"]}},
        {"mode": "deny", "rules": [], "hosts": {"a.test": ["b.test"]}},
        {"mode": "deny", "rules": [], "hosts": {"a.test": 7}},
        {"mode": "deny", "rules": [], "hosts": {7: []}},
    ],
)
def test_half_a_policy_is_no_policy(obj: object) -> None:
    """A malformed policy is refused whole."""
    with pytest.raises(PolicyError):
        Policy.from_json(obj)


PATTERNS = [
    "*",
    "*:*",
    "a.test",
    "*.a.test",
    "*.b.a.test:22",
    "b.a.test:*",
    "203.0.113.0/24",
    "203.0.113.7:22",
]
HOSTS = ["a.test", "b.a.test", "c.b.a.test", "xa.test", "203.0.113.7", "203.0.113.8", "2001:db8::1"]


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Any rule of a small world."""
    kind: ListName = draw(st.sampled_from(["allow", "deny"]))
    scope: Scope = draw(st.sampled_from(["account", "sandbox"]))
    return make_rule(draw(st.sampled_from(PATTERNS)), kind, scope=scope)


@pytest.mark.slow
@given(st.lists(rules(), max_size=8), st.sampled_from(HOSTS), st.sampled_from([22, 80, 443, 8080]))
def test_verdicts_are_those_of_the_plain_definition(given_rules: list[Rule], name: str, port: int) -> None:
    """The indexed verdict equals the definition read out rule by rule, does not depend on order, and warn waives it."""
    host = canonical_host(name)
    held = Policy("deny", tuple(given_rules))
    hits = [rule for rule in given_rules if rule.pattern.covers_host(host) and rule.pattern.covers_port(port)]
    denied = any(rule.list == "deny" for rule in hits)
    allowed = any(rule.list == "allow" for rule in hits)
    decision = decide(held, host, port)
    assert decision.allowed == (allowed and not denied)
    assert decision.list == ("deny" if denied else "allow" if allowed else None)
    assert decision == decide(Policy("deny", tuple(reversed(given_rules))), host, port)
    warned = decide(Policy("warn", tuple(given_rules)), host, port)
    assert warned.allowed
    assert (warned.verdict == "allowed") == decision.allowed
    assert warned[3:6] == decision[3:6]
    assert Policy.from_json(json.loads(json.dumps(held.to_json()))) == held
