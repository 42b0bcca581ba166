"""What the API answers, as data: every field has the type that it is declared with, even where the server sent another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irons.client.models import audit, egress, sandboxes, server
from irons.errors import ApiError

READERS: dict[type, Callable[[Mapping[str, Any]], object]] = {
    sandboxes.Sandbox: sandboxes.Sandbox.of,
    sandboxes.SshAddress: sandboxes.SshAddress.of,
    sandboxes.AuthorizedKey: sandboxes.AuthorizedKey.of,
    egress.EgressRules: egress.EgressRules.of,
    egress.RulesChanged: lambda row: egress.RulesChanged.of(row, ["a.example", "b.example"]),
    egress.PolicyDiff: egress.PolicyDiff.of,
    egress.ModeInfo: lambda row: egress.ModeInfo.of(row, "one"),
    egress.ModeChanged: egress.ModeChanged.of,
    egress.CheckResult: lambda row: egress.CheckResult.of(row, "a.example"),
    audit.AuditPage: lambda row: audit.AuditPage.of(row, "one"),
    audit.HostTried: audit.HostTried.of,
    audit.Totals: audit.Totals.of,
    server.ServerInfo: server.ServerInfo.of,
    server.ImageInfo: server.ImageInfo.of,
    server.ApiKey: server.ApiKey.of,
    server.NewApiKey: server.NewApiKey.of,
}
WORDS = ("deny", "allow", "a.example", "2026-02-19T16:42:26Z", "")
KEYS = {
    "status", "metadata", "labels", "ttl", "created_at", "port", "host_keys", "memory", "allowed_domains", "rules", "list",
    "pattern", "private", "broad", "note", "mode", "differs", "cut", "changed", "added", "live", "outcome", "addresses",
    "resolve_ms", "proxy", "allowed", "covered", "rule", "events", "rotated", "unrecorded", "before", "count", "page_token",
    "first", "connections", "extensions", "size", "used_at", "key", "denied_domains", "removed",
}  # fmt: skip
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.just(1 << 70)
    | st.floats(allow_nan=False)
    | st.sampled_from(WORDS)
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(KEYS)), inner, max_size=4)
    ),
    max_leaves=12,
)
ANSWERS = st.dictionaries(st.sampled_from(sorted(KEYS)), VALUES, max_size=8)


def fits(value: object, kind: Any) -> bool:
    """Tell whether a value has a declared type, as deep as that goes."""
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(item, arguments[0]) for item in value)
    if origin is not None:
        return isinstance(value, Mapping) and all(
            fits(key, arguments[0]) and fits(item, arguments[1]) for key, item in value.items()
        )
    if kind in (bool, int, float, str, datetime, type(None)):
        return type(value) is kind
    return isinstance(value, kind) and typed(value)


def typed(row: Any) -> bool:
    """Tell whether each field of a named tuple has its type."""
    kinds = {**get_type_hints(type(row).__mro__[1]), **get_type_hints(type(row))}
    return all(fits(getattr(row, name), kinds[name]) for name in row._fields)


@pytest.mark.parametrize("kind", READERS, ids=lambda kind: kind.__name__)
@settings(max_examples=40, deadline=None)
@given(answer=ANSWERS)
def test_every_field_has_its_type(kind: type, answer: dict[str, Any]) -> None:
    """An answer whose fields are of any type becomes data whose fields are of theirs."""
    row = READERS[kind](answer)
    assert isinstance(row, kind)
    assert typed(row), row


def test_a_plain_server_lists_patterns_alone() -> None:
    """Its rules have nothing else; a server of irons' own adds what it knows of each, in the order of the lists."""
    plain = {"allowed_domains": ["a.example", "b.example"], "denied_domains": ["c.example"]}
    rules = egress.EgressRules.of(plain).rules
    assert [(rule.list, rule.pattern, rule.note) for rule in rules] == [
        ("allow", "a.example", None),
        ("allow", "b.example", None),
        ("deny", "c.example", None),
    ]
    more = [{"list": "allow", "pattern": "b.example", "note": "why", "private": ["10.0.0.5"], "broad": True}]
    told = egress.EgressRules.of({**plain, "rules": more}).rules
    assert told[0] == rules[0]
    assert told[1] == egress.ListedRule("allow", "b.example", ("10.0.0.5",), "why", broad=True)


def test_too_many_rows_are_an_error() -> None:
    """A list of more rows than any log has on one page is refused, not made objects of."""
    with pytest.raises(ApiError):
        egress.PolicyDiff.of({"added": [{}] * 100_001})
