"""Rules and lists of them: made with reasons, in one list at most, compared by what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_policy.rules import ListName, Rule, RuleError, Scope, diff_rules, drop_rule, make_rule, put_rule

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
    """JSON that is no rule is refused with a RuleError."""
    with pytest.raises(RuleError):
        Rule.from_json(obj)


@given(st.lists(RULES, max_size=8))
def test_a_pattern_is_in_one_list_at_most(rules: list[Rule]) -> None:
    """However rules are added, each pattern of a scope stands once, in the list it was last added to."""
    held: tuple[Rule, ...] = ()
    last: dict[tuple[Scope, str], Rule] = {}
    for rule in rules:
        before = last.get((rule.scope, rule.pattern.text))
        held, changed = put_rule(held, rule)
        assert changed == (before != rule)
        last[rule.scope, rule.pattern.text] = rule
    assert len(held) == len(last)
    assert set(held) == set(last.values())
    for rule in held:
        assert Rule.from_json(json.loads(json.dumps(rule.to_json()))) == rule


@given(st.lists(RULES, max_size=6), st.lists(RULES, max_size=6))
def test_a_difference_leads_from_one_list_to_the_other(some: list[Rule], others: list[Rule]) -> None:
    """Taking away what was removed and adding what was added or changed gives the other rules; equal ones differ not."""
    old: tuple[Rule, ...] = ()
    new: tuple[Rule, ...] = ()
    for rule in some:
        old, _ = put_rule(old, rule)
    for rule in others:
        new, _ = put_rule(new, rule)
    diff = diff_rules(old, new)
    held = old
    for rule in diff.removed:
        held, dropped = drop_rule(held, rule.pattern.text, rule.scope)
        assert dropped == rule
    for rule in (*diff.added, *diff.changed):
        held, _ = put_rule(held, rule)
    assert set(held) == set(new)
    assert not diff_rules(new, new)
    assert bool(diff) == (set(old) != set(new))


def test_a_rule_is_dropped_by_any_spelling() -> None:
    """A rule goes by whatever spelling its pattern is typed in; one that is not there leaves the list as it is."""
    held, _ = put_rule((), make_rule("*.bücher.example", "deny"))
    assert drop_rule(held, "*.B\u00dcCHER.example.")[0] == ()
    assert drop_rule(held, "*.bücher.example", "sandbox") == (held, None)
    assert drop_rule(held, "other.example") == (held, None)
    with pytest.raises(RuleError):
        drop_rule(held, "https://x.example/")


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
