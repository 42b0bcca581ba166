"""Mode `ask` with nobody to be asked: it is `deny` in each verdict, and who does not know it reads `deny`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_local.gateway.decide.verdicts import RefusedError, check_named
from irons_policy.decide import decide, judge
from irons_policy.hostnames import canonical_host
from irons_policy.hostnet import HostNetwork
from irons_policy.modes import MODES, read_mode, wire_mode
from irons_policy.policy import Policy, PolicyError
from irons_policy.rules import make_rule

RULES = (
    make_rule("open.example", "allow"),
    make_rule("*.shut.example", "deny"),
    make_rule("ssh.example:22", "allow"),
)
HOSTS = ("open.example", "a.shut.example", "ssh.example", "new.example", "127.0.0.1", "203.0.113.9")


@given(st.sampled_from(HOSTS), st.sampled_from((22, 80, 443)))
def test_each_verdict_is_that_of_deny(host: str, port: int) -> None:
    """Nothing but the name of the mode differs, with the floor and without it."""
    ask, deny = Policy("ask", RULES), Policy("deny", RULES)
    assert decide(ask, host, port) == decide(deny, host, port)._replace(mode="ask")
    place = canonical_host(host)
    told = judge(ask, place, port, HostNetwork())
    assert told == judge(deny, place, port, HostNetwork())._replace(mode="ask")


def test_a_second_name_is_refused() -> None:
    """Only `warn` lets a second name pass."""
    names = (canonical_host("other.example"),)
    with pytest.raises(RefusedError, match=r"other\.example was asked for"):
        check_named(Policy("ask", RULES), canonical_host("open.example"), names, 443, "tls")


@pytest.mark.parametrize("mode", MODES)
def test_a_policy_is_carried_as_a_gateway_from_before_reads_it(mode: Any) -> None:
    """It is read back as it was; what does not know the further field reads `deny`, never `warn`."""
    carried = Policy(mode, RULES).to_json()
    assert Policy.from_json(carried).mode == mode
    assert carried["mode"] == ("warn" if mode == "warn" else "deny")
    assert read_mode(wire_mode(mode)) == mode


@pytest.mark.parametrize("fields", [{"mode": "ask"}, {"mode": "prompt", "ask": True}, {"ask": True}])
def test_a_policy_of_no_known_mode_is_refused(fields: dict[str, Any]) -> None:
    """The further field alone makes no mode."""
    with pytest.raises(PolicyError, match="warn or deny"):
        Policy.from_json(fields)


@pytest.mark.parametrize("ask", [False, None, "true", 1])
def test_only_true_means_ask(ask: object) -> None:
    """Anything else is the plain mode; in `warn` it says nothing."""
    assert read_mode({"mode": "deny", "ask": ask}) == "deny"
    assert read_mode({"mode": "warn", "ask": True}) == "warn"
