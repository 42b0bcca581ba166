"""`audit egress`: the log as lines, tables and JSON."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.client.api import connect
from irons.client.models.audit import EventUpdate
from irons.testing import FakeApi, Runner
from irons_plugins.audit.views import line, live, live_of_all
from irons_policy.event import Event

from .conftest import Irons

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)  (?:ALLOWED|DENIED )  [^\x00-\x1f\x7f]*?(?:  \(mode: [^\x00-\x1f\x7f]*\))?"
)


# Text


def test_the_line_of_the_wire_contract(irons_process: Irons, one: FakeApi) -> None:
    """Plain text is the contract's line exactly: local time, padded verdict, host, mode, two spaces between."""
    one.record("example2.com", allowed=False)
    one.record("example.com", mode="warn")
    one.record("bare.example")
    del one.events[2]["mode"]
    done = irons_process("audit", "egress", "one", env={"TZ": "MST7MDT"})
    assert done.stdout.decode() == (
        "2026-02-19T16:42:26-07:00  DENIED   example2.com  (mode: deny)\n"
        "2026-02-19T16:42:27-07:00  ALLOWED  example.com  (mode: warn)\n"
        "2026-02-19T16:42:28-07:00  ALLOWED  bare.example\n"
    )


def test_what_warn_let_pass(run_irons: Runner, own: FakeApi) -> None:
    """What only mode warn let pass is ALLOWED and would-deny in the line, and in the table."""
    own.record("a.example", verdict="warn", mode="warn", reason="no rule allows a.example")
    plain = run_irons("audit", "egress", "one", tty=False).ok().out
    assert "  ALLOWED  a.example  (mode: warn)  (would-deny)\n" in plain
    table = run_irons("audit", "egress", "one", tty=True, env={"COLUMNS": "200"}).ok()
    assert table.lines[0].split() == ["TIME", "VERDICT", "HOST", "REASON"]
    assert "would-deny" in table.lines[1]
    assert "no rule allows a.example" in table.lines[1]


# Tables and lines of `audit`


def busy(api: FakeApi) -> None:
    """Record a connection of each kind, with long names and reasons."""
    api.add("two")
    api.record("pypi.org", "one", verdict="allowed", reason="rule pypi.org (account) allows it")
    api.record("evil.example", "one", allowed=False, verdict="blocked", port=80, count=5, cause="uncovered")
    name = "a-very-long-host-name.of-some.department.example.com"
    reason = "no rule allows a-very-long-host-name.of-some.department.example.com"
    api.record(name, "one", allowed=False, verdict="blocked", port=8443, reason=reason, cause="uncovered")
    api.record("down.example", "one", verdict="allowed", **LOST)
    api.record(
        "2001:db8::1", "one", verdict="warn", mode="warn", port=22, reason="no rule allows 2001:db8::1"
    )
    api.record("dns.example", "one", allowed=False, verdict="blocked", port=53, protocol="udp", cause="never")


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
def test_the_table_fits(run_irons: Runner, own: FakeApi, columns: int) -> None:
    """Each event is one line of the terminal's width; names are cut at their beginning, reasons at their end."""
    busy(own)
    table = run_irons("audit", "one", tty=True, env={"COLUMNS": str(columns), "NO_COLOR": "1"}).ok().lines
    assert len(table) == 7, table
    assert max(map(len, table)) <= columns
    assert "SANDBOX" not in table[0]
    assert re.search(r"denied +…?\S*example:80 \u00d75( |$)", table[2], re.IGNORECASE)
    assert "mple.com:8443" in table[3]
    assert "…" in table[3] or columns == 200
    assert re.search(r"unreached +…?\S*example:443", table[4])
    assert ":22" in table[5]
    assert "ample:53/udp" in table[6]
    assert "no rule" in table[5] or columns < 80


def test_the_sandbox_shows_where_there_are_several(run_irons: Runner, own: FakeApi) -> None:
    """A column names the sandbox only where events of several are shown."""
    busy(own)
    words = ("audit", "--limit", "9")
    assert "SANDBOX" not in run_irons(*words, tty=True, env={"COLUMNS": "80"}).ok().lines[0]
    own.record("a.example", "two")
    table = run_irons(*words, tty=True, env={"COLUMNS": "80", "NO_COLOR": "1"}).ok().lines
    assert table[0].split()[:4] == ["TIME", "VERDICT", "SANDBOX", "HOST"]
    assert table[-1].split()[-2:] == ["two", "a.example:443"]
    assert max(map(len, table)) <= 80


def test_ages_for_people_and_exact_times_for_programs(run_irons: Runner, own: FakeApi) -> None:
    """A table has ages; --wide, a pipe and JSON have the time."""
    three = (datetime.now(UTC) - timedelta(minutes=3, seconds=20)).replace(microsecond=0)
    stamp = three.isoformat().replace("+00:00", "Z")
    own.record("a.example", timestamp=stamp)
    assert run_irons("audit", "one", tty=True).ok().lines[1].startswith("3m ago")
    for words in (("--wide",), ("-o", "plain"), ("-o", "json")):
        out = run_irons("audit", "one", *words, tty=True, env={"TZ": "UTC", "COLUMNS": "200"}).ok().out
        assert stamp in out


def test_all_columns(run_irons: Runner, own: FakeApi) -> None:
    """`--wide` shows what the short table leaves out."""
    busy(own)
    table = run_irons("audit", "egress", "one", "--wide", tty=True, env={"COLUMNS": "300"}).ok().lines
    titles = "TIME VERDICT HOST PORT PROTOCOL SANDBOX MODE COUNT OUTCOME CAUSE RULE REASON"
    assert table[0].split() == titles.split()
    assert "no rule allows a-very-long-host-name.of-some.department.example.com" in table[3]


def test_verdicts_have_colours(run_irons: Runner, own: FakeApi) -> None:
    """On a terminal a verdict has its colour: green, red, and yellow for what passed in vain or only in mode warn."""
    busy(own)
    lines = (
        run_irons("audit", "one", tty=True, env={"COLUMNS": "120", "NO_COLOR": "", "FORCE_COLOR": "1"})
        .ok()
        .lines
    )
    codes = [re.search(r"\x1b\[(3\d)m", line) for line in lines[1:]]
    assert [each and each[1] for each in codes] == ["32", "31", "31", "33", "33", "31"]


def test_plain_fields(run_irons: Runner, own: FakeApi) -> None:
    """A pipe gets time, sandbox, verdict, host, port, count, cause and reason, tab-separated; `audit egress` the v0 line."""
    busy(own)
    own.record("a\tb\x1b", "one", allowed=False, verdict="blocked", reason="c\td")
    for words in ((), ("-o", "plain")):
        rows = [line.split("\t") for line in run_irons("audit", "one", *words, env={"TZ": "UTC"}).ok().lines]
        assert {len(row) for row in rows} == {8}
        assert rows[1] == [
            "2026-02-19T23:42:27Z",
            "one",
            "denied",
            "evil.example",
            "80",
            "5",
            "uncovered",
            "",
        ]
        assert rows[3][2:] == ["allowed", "down.example", "443", "1", "unreached", LOST["ended"]]
        assert rows[4][2:5] == ["would-deny", "2001:db8::1", "22"]
        assert rows[6][3] == "a\\tb\\x1b"
    assert LINE.match(run_irons("audit", "egress", "one").ok().lines[1])


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
def test_what_is_followed_on_a_terminal(own: FakeApi, columns: int) -> None:
    """A followed line has a clock, the verdict, the sandbox where there may be several, host and port, the count and why; it fits."""
    busy(own)
    with connect(own.url) as api:
        events = list(api.events())
    for event in [
        *events,
        EventUpdate(*events[1]._replace(count=9)),
        EventUpdate(*events[0]._replace(outcome="reached")),
    ]:
        for shown in (live, live_of_all):
            text = "".join(part for _, part in shown(event, columns))
            assert len(text) <= columns
    texts = ["".join(part for _, part in live_of_all(event, 200)) for event in events]
    assert re.match(r"\S+ \d\d:\d\d:\d\d  denied      one +evil\.example:80  \u00d75$", texts[1])
    assert texts[3].endswith("down.example:443  unreached: unreachable: connection refused")
    again = EventUpdate(*events[1]._replace(count=9))
    assert "".join(part for _, part in live(again, None)).endswith("9 times")


def test_audit_leads_to_its_commands(run_irons: Runner, own: FakeApi) -> None:
    """The words of another command lie below `audit`; any other word is a sandbox, and its help lists both."""
    own.record("a.example")
    assert run_irons("audit", "one").ok().lines == run_irons("audit", "--host", "a.*", "one").ok().lines
    assert run_irons("audit", "why", "one").code == 3
    assert run_irons("audit", "nobody").code == 3
    text = run_irons("audit", "--help").ok().out
    assert text.startswith("usage: irons audit ")
    assert "audit hosts" in text
    assert run_irons("help", "audit").ok().out == text


@given(
    host=st.text(max_size=30),
    mode=st.text(max_size=10),
    allowed=st.booleans(),
    at=st.none() | st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_a_line_is_one_line(host: str, mode: str, allowed: bool, at: datetime | None) -> None:
    """No matter what a sandbox puts into a host name, an event is one line without control or bidi characters."""
    text = line(Event(at, "one", host, allowed, mode=mode))
    assert len(text.splitlines()) == 1
    assert not any(c in text for c in "\x1b\x07\u202e\u2066\u200f\x85\u2028")
    if at is not None:
        assert LINE.fullmatch(text)


def test_hostile_hosts_forge_no_line(run_irons: Runner, one: FakeApi) -> None:
    """A newline in a host name does not make a second event, in any format."""
    one.record("a\n2026-02-19T16:42:26-07:00  ALLOWED  forged.example  (mode: deny)\x1b[2J", allowed=False)
    for form in ("plain", "table", "jsonl"):
        out = run_irons("audit", "egress", "one", "-o", form, tty=form == "table").ok().out
        assert "\x1b" not in out
        assert not any(row.startswith("2026-02-19T16:42:26-07:00  ALLOWED") for row in out.splitlines())
    assert run_irons("audit", "egress", "one").ok().out.count("\n") == 1


def test_as_json(run_irons: Runner, own: FakeApi) -> None:
    """JSON has every field under its own key, times in UTC, numbers as numbers."""
    own.record(
        "a.example", allowed=False, verdict="blocked", bytes_in=7, duration_ms=1.5, address="203.0.113.9"
    )
    found = run_irons("audit", "egress", "one", "-o", "json").ok().json()
    assert found == [
        {
            "time": "2026-02-19T23:42:26Z",
            "sandbox": "one",
            "host": "a.example",
            "allowed": False,
            "verdict": "blocked",
            "mode": "deny",
            "protocol": "",
            "port": 443,
            "rule": "",
            "reason": "",
            "count": 1,
            "id": 1,
            "sandbox_id": "",
            "bytes_in": 7,
            "bytes_out": None,
            "duration_ms": 1.5,
            "ended": "",
            "address": "203.0.113.9",
            "cause": "",
            "outcome": "",
            "connection": "",
        }
    ]
    assert run_irons("audit", "egress", "one", "-o", "jsonl").ok().jsonl() == found


def test_an_empty_log(run_irons: Runner, one: FakeApi) -> None:
    """Without events stdout is empty; a person gets a line about it on stderr."""
    assert run_irons("audit", "egress", "one").ok().out == ""
    done = run_irons("audit", "egress", "one", tty=True).ok()
    assert (done.out, done.err) == ("", "There are no events.\n")


def test_a_log_of_odd_events(run_irons: Runner, one: FakeApi) -> None:
    """Fields that are missing, or of another type, or unknown, do not break the log."""
    one.events = [
        {"sandbox_name": "one"},
        {
            "sandbox_name": "one",
            "timestamp": "yesterday",
            "host": None,
            "allowed": "yes",
            "port": "x",
            "new": [1],
        },
    ]
    assert run_irons("audit", "egress", "one").ok().out == "-  DENIED   \n-  DENIED   \n"
    assert len(run_irons("audit", "egress", "one", "-o", "json").ok().json()) == 2


def test_times_zone_is_the_machines(irons_process: Irons, one: FakeApi) -> None:
    """In UTC the zone is written as Z."""
    one.record("a.example")
    done = irons_process("audit", "egress", "one", env={"TZ": "UTC"})
    assert done.stdout.startswith(b"2026-02-19T23:42:26Z  ALLOWED  a.example")


# What was let through and not reached, and what was rotated out


LOST: dict[str, Any] = {
    "outcome": "unreached",
    "ended": "unreachable: connection refused",
    "cause": "unreached",
}


def test_what_was_not_reached_shows(run_irons: Runner, own: FakeApi) -> None:
    """A connection that was let through and not reached says so in line and table, with how it ended; others do not."""
    own.record("down.example", verdict="allowed", reason="rule down.example (account) allows it", **LOST)
    own.record(
        "up.example", verdict="allowed", outcome="reached", reason="rule up.example (account) allows it"
    )
    lines = run_irons("audit", "egress", "one", tty=False).ok().out.splitlines()
    assert lines[0].endswith("  ALLOWED  down.example  (mode: deny)  (unreached)")
    assert lines[1].endswith("  ALLOWED  up.example  (mode: deny)")
    table = run_irons("audit", "egress", "one", tty=True, env={"COLUMNS": "200"}).ok().lines
    assert re.search(r"unreached +down\.example:443 +unreachable: connection refused", table[1])
    assert "reached" not in table[2]


def test_only_one_outcome(run_irons: Runner, own: FakeApi, one: FakeApi) -> None:
    """`--outcome` is asked of the server; for one without outcomes there is an error."""
    own.record("down.example", verdict="allowed", **LOST)
    own.record("up.example", verdict="allowed", outcome="reached")
    found = run_irons("audit", "egress", "one", "--outcome", "unreached", "-o", "json").ok().json()
    assert [event["host"] for event in found] == ["down.example"]
    assert own.calls[-1].query["outcome"] == "unreached"
    own.extensions = ("audit-filters",)
    assert (
        "says what became of connections" in run_irons("audit", "egress", "one", "--outcome", "reached").err
    )


def test_what_was_rotated_out_is_said(run_irons: Runner, own: FakeApi) -> None:
    """Behind the events, and in JSON too, stderr says how many earlier ones there were."""
    own.record("a.example")
    own.rotated = [{"sandbox_name": "one", "events": 1234, "before": "2026-02-19T20:00:00Z"}]
    said = "irons: 1,234 events of one before 2026-02-19T20:00:00Z were rotated out; irons audit hosts one counts them\n"
    for form in ("plain", "table", "json"):
        done = run_irons("audit", "egress", "one", "-o", form, env={"TZ": "UTC"}).ok()
        assert done.err == said
    own.rotated = [{"sandbox_name": "one", "events": 1, "before": None}]
    assert "1 event of one was rotated out" in run_irons("audit", "egress", "one").ok().err
    own.rotated = []
    assert run_irons("audit", "egress", "one").ok().err == ""
