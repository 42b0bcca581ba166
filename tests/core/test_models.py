"""What the API answers, as data: every field has the type that it is declared with, even where the server sent another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irons.client.models import audit, egress, events, sandboxes, server
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
    # The modules of some import what their annotations name for type checkers alone.
    named = {"datetime": datetime}
    kinds = {
        **get_type_hints(type(row).__mro__[1], localns=named),
        **get_type_hints(type(row), localns=named),
    }
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


WHOLE: dict[str, Any] = {
    "id": 7,
    "timestamp": "2026-02-19T16:42:26.5Z",
    "sandbox_name": "one",
    "sandbox_id": "sb_0",
    "host": "a.example",
    "port": 443,
    "allowed": True,
    "verdict": "allowed",
    "count": 1,
    "bytes_in": None,
    "duration_ms": 1.5,
}
ODD: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from([*WHOLE, "reason", "another", "mode", "ask"]),
    st.sampled_from(
        (
            None,
            "",
            0,
            -1,
            1 << 70,
            2.5,
            True,
            False,
            [],
            "x",
            "deny",
            "2026-02-19",
            "0001-01-01T00:00:00Z",
            3,
            "9999-12-31T00:00:00Z",
        )
    ),
    max_size=2,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(ODD, max_size=4), st.sets(st.sampled_from(list(WHOLE)), max_size=2), st.integers(0, 20))
def test_a_page_is_read_as_each_of_its_events(
    odd: list[dict[str, Any]], without: set[str], usual: int
) -> None:
    """Events that are read together, column by column, are what each of them is read alone, whatever a server sends."""
    row = {key: value for key, value in WHOLE.items() if key not in without}
    rows = [*({**row, "id": number} for number in range(usual)), *({**row, **each} for each in odd)]
    rows += [{**WHOLE, "id": number, "reason": "because"} for number in range(usual)]
    rows += [{**WHOLE, "id": number, "mode": "deny", "ask": number % 2 == 0} for number in range(usual)]
    assert events.events_of(rows, "mine") == tuple(events.event_of(each, "mine") for each in rows)


@settings(max_examples=200, deadline=None)
@given(st.lists(ODD, max_size=4), st.sets(st.sampled_from(list(WHOLE)), max_size=3), st.integers(0, 20))
def test_columns_are_read_as_the_events_they_are_of(
    odd: list[dict[str, Any]], without: set[str], usual: int
) -> None:
    """An answer that has a list of values for each field is read as one that has an object for each event."""
    names = [key for key in (*WHOLE, "reason", "mode", "ask") if key not in without]
    whole = {key: value for key, value in WHOLE.items() if key not in without}
    rows = [*({**whole, "id": number} for number in range(usual)), *({**whole, **each} for each in odd)]
    rows = [{name: row[name] for name in names if row.get(name) is not None} for row in rows]
    columns = {name: [row.get(name) for row in rows] for name in names}
    assert events.events_in_columns(columns, "mine") == tuple(events.event_of(each, "mine") for each in rows)


@pytest.mark.parametrize(
    "columns", [{"id": [1], "host": []}, {"id": [1], "host": "a"}, {"id": [1] * 100_001}]
)
def test_columns_that_are_none(columns: dict[str, Any]) -> None:
    """Lists of different lengths, and lists that are too long, are refused; no event gets the values of another."""
    with pytest.raises(ApiError):
        audit.AuditPage.of({"columns": columns}, "mine")


@pytest.mark.parametrize("count", [1, 20])
def test_an_event_of_mode_ask(count: int) -> None:
    """The wire has it as `deny` with a further field, in a page of few events and of many."""
    found = events.events_of([{**WHOLE, "mode": "deny", "ask": True}] * count, "mine")
    assert {event.mode for event in found} == {"ask"}
