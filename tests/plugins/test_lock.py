"""`egress suggest` and `egress lock`: from what a sandbox tried to what it may do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.testing import FakeApi, Runner
from irons_plugins.egress.suggestions import looks_random, suggestions
from irons_policy.event import REQUEST_PROTOCOL, Event
from irons_policy.rules import Rule, make_rule

BEGAN = datetime(2026, 2, 19, 12, tzinfo=UTC)


def tried(host: str, times: int = 2, **more: Any) -> list[Event]:
    """Return events of a host, a minute between two."""
    fields = {"port": 443, "protocol": "tls", **more}
    return [
        Event(
            BEGAN + timedelta(minutes=number),
            "one",
            host,
            allowed=True,
            verdict="warn",
            mode="warn",
            **fields,
        )
        for number in range(times)
    ]


def no_rules(_: str) -> list[Rule]:
    """Return the rules of a sandbox that has none."""
    return []


@pytest.fixture
def own(own_api: FakeApi) -> FakeApi:
    """A server of irons' own kind with a sandbox that has tried this and that."""
    own_api.add("one")
    own_api.rules = [
        {"pattern": "*.covered.example", "list": "allow"},
        {"pattern": "evil.example", "list": "deny"},
    ]
    for host, times, port in (
        ("api.example.com", 3, 443),
        ("git.example.com", 2, 22),
        ("a.covered.example", 5, 443),
        ("evil.example", 4, 443),
        ("rare.example", 1, 443),
        ("x9k2m4q7z1w8v3.example", 2, 443),
        ("203.0.113.7", 2, 443),
    ):
        for _ in range(times):
            own_api.record(host, verdict="warn", mode="warn", port=port, protocol="tls")
    return own_api


# What is suggested


def test_hits_times_and_ports_are_counted() -> None:
    """A suggestion has its hits, folded repeats included, and the first and last time."""
    events = [*tried("a.example", 3), *tried("a.example", 1, port=80, protocol="http", count=4)]
    (row,) = suggestions(events, no_rules)
    assert (row.pattern, row.hits, row.ports, row.marks) == ("a.example", 7, (80, 443), ())
    assert (row.first, row.last) == (BEGAN, BEGAN + timedelta(minutes=2))


def test_ports_beyond_the_web_stand_alone() -> None:
    """443 and 80 are one pattern; every other port is a pattern of its own."""
    events = [*tried("a.example"), *tried("a.example", port=22), *tried("2001:db8::1", port=22)]
    assert sorted(row.pattern for row in suggestions(events, no_rules)) == [
        "[2001:db8::1]:22",
        "a.example",
        "a.example:22",
    ]


def test_what_rules_cover_is_not_suggested() -> None:
    """Hosts under an allow rule, and under a deny rule, of either scope, are no suggestions."""
    rules = [
        make_rule("*.a.example", "allow", scope="account"),
        make_rule("b.example", "deny", scope="sandbox"),
        make_rule("c.example:22", "allow", scope="sandbox"),
    ]
    events = [event for host in ("x.a.example", "b.example", "c.example") for event in tried(host)]
    assert [row.pattern for row in suggestions(events, lambda _: rules)] == ["c.example"]


def test_what_was_never_resolved_is_not_suggested() -> None:
    """A name without an address is not a suggestion; one that no server answered at is marked, unless it was reached once."""
    events = [
        *tried("typo.example", outcome="unresolved", cause="unresolved"),
        *tried("down.example", outcome="unreached"),
        *tried("flaky.example", outcome="unreached"),
        *tried("flaky.example", outcome="reached"),
        *tried("refused.example", outcome="refused"),
    ]
    assert {row.pattern: row.marks for row in suggestions(events, no_rules)} == {
        "down.example": ("unreached",),
        "flaky.example": (),
        "refused.example": (),
    }


def test_what_is_no_tcp_connection_is_passed_over() -> None:
    """UDP, ICMP, what the agent only asked for, and names that no rule can have are no suggestions."""
    events = [
        *tried("asked.example", protocol=REQUEST_PROTOCOL),
        *tried("a.example", protocol="udp"),
        *tried("b.example", protocol="icmp"),
        *tried("bad name\n"),
        *tried(""),
        *tried("-oProxyCommand=x"),
    ]
    assert suggestions(events, no_rules) == []


@pytest.mark.parametrize(
    ("host", "times", "marks"),
    [
        ("a.example", 1, ("once",)),
        ("203.0.113.7", 2, ("address",)),
        ("2001:db8::1", 1, ("once", "address")),
        ("x9k2m4q7z1w8v3.example", 2, ("random",)),
        ("a.example", 2, ()),
    ],
)
def test_marks(host: str, times: int, marks: tuple[str, ...]) -> None:
    """Hosts tried once, names that look random, and bare addresses are marked."""
    (row,) = suggestions(tried(host, times), no_rules)
    assert row.marks == marks


@pytest.mark.parametrize(
    "label",
    [
        *(
            "www",
            "api",
            "registry-1",
            "files",
            "pythonhosted",
            "githubusercontent",
            "objects-origin",
            "example",
        ),
        *(
            "archive",
            "security",
            "crates",
            "static",
            "elasticsearch",
            "cloudflarestorage",
            "windowsupdate",
            "ns1",
        ),
        *(
            "us-east-1",
            "s3-eu-west-1",
            "debian",
            "download-cf",
            "kubernetes",
            "x86-64",
            "production",
            "ec2",
            "v2",
        ),
    ],
)
def test_names_that_people_made(label: str) -> None:
    """Ordinary labels do not look random."""
    assert not looks_random(label)


@pytest.mark.parametrize(
    "label",
    [
        "d2l3jyjp24noqc",
        "a3f9c2e1b7d4",
        "xkcdqwrtzpmnbv",
        "4ab1f0c2d9e8a7b6c5d4",
        "mzxw6ytboi4dcnjq",
        "q" * 40,
    ],
)
def test_names_that_programs_made(label: str) -> None:
    """Labels that carry data look random."""
    assert looks_random(label)


@given(
    st.lists(
        st.builds(lambda host, port: tried(host, 1, port=port), st.text(max_size=30), st.integers(-1, 70000))
    )
)
def test_hostile_logs_are_survived(logs: list[list[Event]]) -> None:
    """No matter what hosts and ports a log has, every suggestion is a pattern that can be a rule."""
    from irons_policy.patterns import read_pattern

    for row in suggestions([event for log in logs for event in log], no_rules):
        assert read_pattern(row.pattern).text == row.pattern


# The commands


def test_suggest(run_irons: Runner, own: FakeApi) -> None:
    """`egress suggest` lists the most tried first, with marks."""
    done = run_irons("egress", "suggest", "one", "-o", "json").ok().json()
    assert [(row["pattern"], row["hits"], row["marks"]) for row in done] == [
        ("api.example.com", 3, []),
        ("203.0.113.7", 2, ["address"]),
        ("git.example.com:22", 2, []),
        ("x9k2m4q7z1w8v3.example", 2, ["random"]),
        ("rare.example", 1, ["once"]),
    ]
    assert "API.EXAMPLE" not in run_irons("egress", "suggest", "one", tty=True).ok().out


def test_lock_shows_asks_and_locks(run_irons: Runner, own: FakeApi) -> None:
    """`egress lock` shows the difference, asks, allows what is not marked, and sets the sandbox's mode to deny."""
    own.cut = 3
    done = run_irons("egress", "lock", "one", tty=True, stdin="y\n").ok()
    assert done.err.splitlines() == [
        "left out: 203.0.113.7 (a bare address); --also 203.0.113.7 takes it",
        "left out: x9k2m4q7z1w8v3.example (looks random); --also x9k2m4q7z1w8v3.example takes it",
        "left out: rare.example (tried once); --also rare.example takes it",
        "mode: warn (inherited) -> deny",
        "+ allow api.example.com",
        "+ allow git.example.com:22",
        "this cuts 3 live connections",
        "Apply this policy to one? [y/N] one is locked: what no rule allows is blocked from now on",
    ]
    assert done.out == "", "the difference was shown once, with the question"
    assert own.sandboxes["one"].mode == "deny"
    assert own.mode == "warn"
    assert [rule["pattern"] for rule in own.sandboxes["one"].rules] == [
        "api.example.com",
        "git.example.com:22",
    ]
    assert len(own.rules) == 2


def test_lock_changes_nothing_unasked(run_irons: Runner, own: FakeApi) -> None:
    """A no changes nothing; without a person --yes is needed."""
    assert run_irons("egress", "lock", "one", tty=True, stdin="n\n").code == 1
    done = run_irons("egress", "lock", "one")
    assert done.code == 2
    assert "--yes" in done.err
    assert own.sandboxes["one"].mode is None
    assert own.sandboxes["one"].rules == []


def test_lock_takes_what_is_named(run_irons: Runner, own: FakeApi) -> None:
    """`--also` takes a marked suggestion, or anything else; `--skip` leaves one out; rules that are there stay."""
    own.sandboxes["one"].rules = [{"pattern": "kept.example", "list": "allow", "note": "mine"}]
    words = ["--also", "203.0.113.7", "--also", "*.more.example", "--skip", "git.example.com:22", "--yes"]
    done = run_irons("egress", "lock", "one", *words).ok()
    assert done.lines == [
        "mode: warn (inherited) -> deny",
        "+ allow *.more.example",
        "+ allow 203.0.113.7",
        "+ allow api.example.com",
    ]
    assert [rule["pattern"] for rule in own.sandboxes["one"].rules] == [
        "kept.example",
        "*.more.example",
        "203.0.113.7",
        "api.example.com",
    ]
    assert own.sandboxes["one"].rules[0]["note"] == "mine"
    again = run_irons("egress", "lock", "one", *words).ok()
    assert (again.out, again.err.splitlines()[-1]) == ("", "one is locked already")


@pytest.mark.parametrize("words", [["--also", "a b"], ["--skip", "a b"]])
def test_lock_of_no_pattern(run_irons: Runner, own: FakeApi, words: list[str]) -> None:
    """A pattern that is not one is refused before any request."""
    assert run_irons("egress", "lock", "one", *words).code == 2
    assert own.calls == []
