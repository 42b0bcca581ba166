"""The gateway's verdict and the one that `egress check` tells are the same."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_local.gateway.decide.verdicts import Judged, RefusedError, judge_addresses
from irons_local.gateway.decide.verdicts import judge as judge_attempt
from irons_policy.decide import judge
from irons_policy.hostnames import Host, canonical_host
from irons_policy.hostnet import HostNetwork
from irons_policy.policy import Decision, Policy
from irons_policy.rules import ListName, Rule, make_rule

ADDRESSES = [
    "203.0.113.7",
    "198.51.100.9",
    "10.0.0.5",
    "127.0.0.1",
    "169.254.169.254",
    "192.0.2.2",
    "192.0.2.9",
    "2001:db8::7",
    "fd00::5",
    "64:ff9b::a00:5",
    "::ffff:203.0.113.7",
]
HOSTS = ["web.test", "db.test", "web.db.test", "other.test", *ADDRESSES]
PATTERNS = [
    "*",
    "*:*",
    "web.test",
    "*.db.test:22",
    "db.test:22",
    "203.0.113.0/24",
    "10.0.0.0/8:22",
    "fd00::5",
]
PINS = ["10.0.0.0/8", "192.0.2.9", "fd00::5", "127.0.0.1"]
GROUND = HostNetwork(
    own=frozenset({ip_address("192.0.2.2")}),
    onlink=(ip_network("192.0.2.0/24"),),
    listeners=frozenset({(ip_address("0.0.0.0"), 8080)}),
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Any rule of a small world, some of them with a pin."""
    kind: ListName = draw(st.sampled_from(["allow", "deny"]))
    pattern = draw(st.sampled_from(PATTERNS))
    pins = draw(st.lists(st.sampled_from(PINS), max_size=1)) if kind == "allow" else []
    if "127.0.0.1" in pins:
        pattern = "db.test:22"
    return make_rule(pattern, kind, private=pins)


@pytest.mark.slow
@given(
    st.sampled_from(["warn", "deny"]),
    st.lists(rules(), max_size=6),
    st.dictionaries(st.sampled_from(["web.test", "db.test"]), st.sampled_from(ADDRESSES), max_size=2),
    st.sampled_from(HOSTS),
    st.sampled_from([22, 80, 443, 8080]),
)
def test_a_check_agrees_with_the_gateway(
    mode: str, held: list[Rule], hosts: dict[str, str], name: str, port: int
) -> None:
    """With any rules, pins, fixed names and network, verdict, rule and reason are one and the same."""
    policy = Policy.from_json({"mode": mode, "rules": [rule.to_json() for rule in held], "hosts": hosts})
    host = canonical_host(name)
    told = judge(policy, host, port, GROUND)
    assert _gateway(policy, host, port) == (told.allowed, told.verdict, told.mode, told.rule, told.reason)


def _gateway(policy: Policy, host: Host, port: int) -> tuple[object, ...]:
    """What an attempt is told that is opened to the host, and whose name is not asked of anyone."""
    pool = canonical_host("198.18.0.1")
    try:
        judged = judge_attempt(
            policy, None if host.address else host, host if host.address else pool, (), port, "tcp"
        )
        known = policy.addresses_of(host)
        if known is not None:
            (judged,) = judge_addresses(policy, judged, port, "tcp", known, GROUND).values()
    except RefusedError as error:
        refusal = error.refusal
        return False, "blocked", refusal.mode, refusal.rule, refusal.reason
    return _seen(judged)


def _seen(judged: Judged) -> tuple[object, ...]:
    decision: Decision = judged.decision
    return decision.allowed, decision.verdict, decision.mode, decision.rule, decision.reason
