"""Rules and lists of them: made with reasons, read back, compared by what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_policy.rules import ListName, Rule, RuleError, diff_rules, make_rule

PATTERNS = st.sampled_from(
    ["a.example", "*.a.example", "a.example:22", "*", "203.0.113.0/24", "[2001:db8::/32]:443"]
)
RULES = st.builds(
    make_rule,
    PATTERNS,
    st.sampled_from(["allow", "deny"]),
    scope=st.sampled_from(["account", "sandbox"]),
    note=st.sampled_from(["", "why"]),
)


@pytest.mark.parametrize(
    ("pattern", "kind", "private", "reason"),
    [
        ("*.com", "allow", [], "every name registered"),
        ("*.com", "deny", [], "every name registered"),
        ("a.example", "deny", ["10.0.0.1"], "no place"),
        ("a.example", "allow", ["ten"], "neither an address"),
        ("a.example", "allow", ["10.0.0.1/8"], "bits set"),
        ("a.example:22", "allow", ["169.254.169.254"], "no rule opens that"),
        ("a.example:22", "allow", ["::ffff:169.254.169.254"], "no rule opens that"),
        ("a.example:22", "allow", ["fe80::/64"], "no rule opens that"),
        ("a.example", "allow", ["127.0.0.1"], "only for one port"),
        ("a.example:*", "allow", ["::1"], "only for one port"),
        ("a.example:22", "allow", ["127.0.0.0/8"], "one exact address"),
    ],
)
def test_a_rule_that_would_do_nothing_is_refused(
    pattern: str, kind: ListName, private: list[str], reason: str
) -> None:
    """A rule that the floor or its own list would render idle is refused when it is made, with the reason."""
    with pytest.raises(RuleError, match=reason):
        make_rule(pattern, kind, private=private)


def test_a_rule_keeps_what_it_was_made_of() -> None:
    """A made rule has the canonical pattern, its networks once each, and reads back from its JSON."""
    rule = make_rule(
        "DB.Example:5432",
        "allow",
        scope="sandbox",
        private=["10.0.0.5", "::ffff:10.0.0.5", "192.168.0.0/16"],
        note="the staging database",
    )
    assert rule.pattern.text == "db.example:5432"
    assert rule.private == (ip_network("10.0.0.5/32"), ip_network("192.168.0.0/16"))
    assert rule.to_json() == {
        "pattern": "db.example:5432",
        "list": "allow",
        "scope": "sandbox",
        "private": ["10.0.0.5", "192.168.0.0/16"],
        "broad": False,
        "note": "the staging database",
    }
    assert Rule.from_json(rule.to_json()) == rule


def test_an_accepted_rule_is_read_without_the_public_suffixes() -> None:
    """A stored rule reads back though a later list of public suffixes would refuse it."""
    rule = make_rule("*.github.io", "allow", broad=True)
    assert Rule.from_json(rule.to_json()) == rule
    assert Rule.from_json({"pattern": "*.com", "list": "deny"}).pattern.text == "*.com"


@pytest.mark.parametrize(
    "obj",
    [
        None,
        [],
        {},
        {"pattern": "a.example"},
        {"pattern": "a.example", "list": "maybe"},
        {"pattern": "a.example", "list": "allow", "scope": "world"},
        {"pattern": "a..example", "list": "allow"},
        {"pattern": 7, "list": "allow"},
        {"pattern": "a.example", "list": []},
        {"pattern": "a.example", "list": "allow", "private": "10.0.0.1"},
        {"pattern": "a.example", "list": "allow", "private": [10]},
        {"pattern": "a.example", "list": "allow", "private": ["x"]},
        {"pattern": "a.example", "list": "allow", "note": 1},
    ],
)
def test_malformed_rules_are_refused(obj: object) -> None:
    """JSON that is not a rule is refused with a RuleError."""
    with pytest.raises(RuleError):
        Rule.from_json(obj)


@given(RULES)
def test_a_rule_reads_back_from_its_json(rule: Rule) -> None:
    """No matter what a rule says, its JSON says it too."""
    assert Rule.from_json(json.loads(json.dumps(rule.to_json()))) == rule


@given(st.permutations(["10.0.0.5", "192.168.0.0/16", "2001:db8::/32", "10.0.0.0/8"]))
def test_the_order_of_private_networks_makes_no_difference(private: list[str]) -> None:
    """Rules that open the same networks are equal and spelled alike, in any order and however often each is given."""
    rule = make_rule("a.example", "allow", private=[*private, private[0]])
    other = make_rule("a.example", "allow", private=sorted(private))
    assert rule == other
    assert hash(rule) == hash(other)
    assert rule.pins == ("10.0.0.0/8", "10.0.0.5", "192.168.0.0/16", "2001:db8::/32")
    assert not diff_rules([rule], [other])


@pytest.mark.parametrize(
    "changed",
    [
        {"list": "deny"},
        {"private": (ip_network("10.0.0.5/32"),)},
        {"broad": True},
        {"note": "why"},
    ],
)
def test_everything_that_a_rule_says_makes_it_another(changed: dict[str, Any]) -> None:
    """List, private networks, `broad` and note make a rule another one; the time it was stored at does not."""
    rule = make_rule("*.a.example", "allow")
    other = replace(rule, **changed)
    assert other != rule
    (change,) = diff_rules([rule], [other])
    assert (change.kind, change.before, change.after) == ("changed", rule, other)
    later = replace(rule, created_at=1)
    assert later == rule
    assert not diff_rules([rule], [later])


@given(st.lists(RULES, max_size=6), st.lists(RULES, max_size=6))
def test_a_difference_leads_from_one_list_to_the_other(some: list[Rule], others: list[Rule]) -> None:
    """Dropping what was removed and adding what was added or changed gives the other rules; equal lists have no difference."""
    old = {(rule.scope, rule.pattern.text): rule for rule in some}
    new = {(rule.scope, rule.pattern.text): rule for rule in others}
    changes = diff_rules(old.values(), new.values())
    held = dict(old)
    for change in changes:
        key = change.rule.scope, change.rule.pattern.text
        assert held.get(key) == change.before
        if change.after is None:
            assert change.kind == "removed"
            del held[key]
        else:
            assert change.kind == ("added" if change.before is None else "changed")
            held[key] = change.after
    assert held == new
    assert not diff_rules(new.values(), new.values())
    kinds = [change.kind == "removed" for change in changes]
    assert kinds == sorted(kinds)


@pytest.mark.process
def test_stored_rules_are_read_without_the_tables() -> None:
    """A confined process reads a rule for an internationalised name without importing what it may be unable to."""
    made = make_rule("*.b\u00fccher.example", "allow").to_json()
    code = (
        "import json, sys; from irons_policy.rules import Rule; "
        "rule = Rule.from_json(json.loads(sys.argv[1])); "
        "assert rule.pattern.text == '*.xn--bcher-kva.example'; assert 'idna' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(made)], check=True)
