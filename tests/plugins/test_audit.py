"""`audit egress` and `audit why`: the log as lines, tables and JSON, filtered, followed, explained."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.client.api import connect
from irons.client.models.audit import AuditPage, EventUpdate
from irons.testing import EXTENSIONS, FakeApi, Fault, Runner, faults
from irons_plugins.audit.filters import Filter
from irons_plugins.audit.following import AuditLog
from irons_plugins.audit.views import line, live, live_of_all
from irons_policy.event import Event

from .conftest import Irons, until

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)  (?:ALLOWED|DENIED )  [^\x00-\x1f\x7f]*?(?:  \(mode: [^\x00-\x1f\x7f]*\))?"
)


def hosts(api_lines: list[str]) -> list[str]:
    """Return the hosts of plain lines."""
    return [line.split()[2] for line in api_lines]


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


# Pages and filters


@pytest.mark.parametrize("page", [1, 2, 3, 5, 7, 100])
def test_every_page_is_read(run_irons: Runner, one: FakeApi, page: int) -> None:
    """The whole log is printed, in order, no matter what part of it an answer holds."""
    one.page = page
    for number in range(6):
        one.record(f"h{number}.example")
    assert hosts(run_irons("audit", "egress", "one").ok().lines) == [f"h{n}.example" for n in range(6)]


def test_a_server_that_repeats_itself(run_irons: Runner, fake_api: FakeApi) -> None:
    """A server whose token does not move on is asked no further."""
    fake_api.add("one")
    fake_api.record("a.example")
    body = json.dumps({"events": fake_api.events}).encode()
    fake_api.fail(Fault(200, body, {"Content-Type": "application/json"}), on="GET", times=50)
    assert len(run_irons("audit", "egress", "one").ok().lines) == 1
    assert len(fake_api.calls) == 1


@pytest.mark.parametrize("own_server", [False, True])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--limit", "2"], ["c.b.example", "d.example"]),
        (["--limit", "1"], ["d.example"]),
        (["--limit", "0"], []),
        (["--limit", "99"], ["a.example", "b.example", "c.b.example", "d.example"]),
        (["--verdict", "blocked"], ["b.example", "d.example"]),
        (["--verdict", "allowed"], ["a.example"]),
        (["--verdict", "warn"], ["c.b.example"]),
        (["--verdict", "would-deny"], ["c.b.example"]),
        (["--verdict", "WOULD-DENY"], ["c.b.example"]),
        (["--verdict", "would-be-denied"], ["c.b.example"]),
        (["--verdict", "denied"], ["b.example", "d.example"]),
        (["--verdict", "DENIED"], ["b.example", "d.example"]),
        (["--verdict", "refused"], ["b.example", "d.example"]),
        (["--host", "b.example"], ["b.example"]),
        (["--host", "*.example"], ["a.example", "b.example", "c.b.example", "d.example"]),
        (["--host", "*.B.example"], ["c.b.example"]),
        (["--host", "[ab].example"], []),
        (["--since", "2026-02-19T23:42:28Z"], ["c.b.example", "d.example"]),
        (["--until", "2026-02-19T18:42:27-05:00"], ["a.example", "b.example"]),
        (["--since", "1m"], []),
        (["--verdict", "blocked", "--limit", "1"], ["d.example"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_filters(
    run_irons: Runner, fake_api: FakeApi, own_server: bool, words: list[str], expected: list[str]
) -> None:
    """Filters hold at servers that heed them and at those that do not; --limit keeps the newest."""
    fake_api.extensions = EXTENSIONS if own_server else ()
    fake_api.page = 2
    fake_api.add("one")
    fake_api.record("a.example", verdict="allowed")
    fake_api.record("b.example", allowed=False, verdict="blocked")
    fake_api.record("c.b.example", verdict="warn")
    fake_api.record("d.example", allowed=False, verdict="blocked")
    assert hosts(run_irons("audit", "egress", "one", *words).ok().lines) == expected


def test_a_server_without_verdicts(run_irons: Runner, one: FakeApi) -> None:
    """Where a server tells no verdict, whether it passed is the verdict."""
    one.record("a.example")
    one.record("b.example", allowed=False)
    assert hosts(run_irons("audit", "egress", "one", "--verdict", "blocked").ok().lines) == ["b.example"]


def test_all_sandboxes(run_irons: Runner, own: FakeApi) -> None:
    """Without a name the events of all sandboxes are shown, where the server can."""
    own.add("two")
    own.record("a.example", "one")
    own.record("b.example", "two")
    done = run_irons("audit", "egress", "-o", "jsonl").ok()
    assert [(event["sandbox"], event["host"]) for event in done.jsonl()] == [
        ("one", "a.example"),
        ("two", "b.example"),
    ]


def test_all_sandboxes_at_a_plain_server(run_irons: Runner, one: FakeApi) -> None:
    """Where it can't, the error says to name one."""
    done = run_irons("audit", "egress")
    assert done.code == 1
    assert "irons audit egress NAME" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["one", "--since", "soon"],
        ["one", "--until", "2026-13-01"],
        ["one", "--verdict", "maybe"],
        ["one", "--limit", "-1"],
        ["one", "--limit", "many"],
        ["one", "--follow", "-o", "json"],
        ["one", "two"],
        ["a/b"],
    ],
)
def test_words_that_make_no_sense(run_irons: Runner, one: FakeApi, words: list[str]) -> None:
    """Bad times, verdicts and numbers, and a JSON document that never ends, are refused before any request."""
    done = run_irons("audit", "egress", *words)
    assert done.code == 2
    assert one.calls == []


def test_follow_as_json_names_jsonl(run_irons: Runner, one: FakeApi) -> None:
    """`-o json --follow` is refused in favour of jsonl, from the environment too."""
    done = run_irons("audit", "egress", "one", "--follow", env={"IRONS_OUTPUT": "json"})
    assert done.code == 2
    assert "-o jsonl" in done.error()["hint"]


def test_an_event_without_a_time_is_within_any() -> None:
    """Times filter what has a time."""
    wanted = Filter(since=datetime(2026, 1, 1, tzinfo=UTC))
    assert wanted(Event(None, "one", "a.example", allowed=True))


def test_head_ends_quietly(irons_process: Irons, one: FakeApi) -> None:
    """`irons audit egress … | head` ends without a word."""
    one.page = 5000
    for number in range(20_000):
        one.record(f"h{number}.example")
    command = f"{' '.join(irons_process.argv('audit', 'egress', 'one'))} | head -n 1"
    done = subprocess.run(["sh", "-c", command], env=dict(irons_process.env), capture_output=True, check=True)
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


# Follow


class Follower:
    """`audit egress --follow` in a process of its own."""

    def __init__(self, irons: Irons, *words: str, way: str = "foreground") -> None:
        self.process = irons.start("audit", "egress", "one", "--follow", *words, way=way)
        self.lines: list[str] = []

    def next(self) -> str:
        """Return the next line, as soon as it is there."""
        assert self.process.stdout is not None
        found = self.process.stdout.readline().decode().rstrip("\n")
        assert found, self.process.communicate()[1].decode()
        return found

    def end(self) -> str:
        """Interrupt it, and return what it printed on stderr."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=60)
        assert self.process.returncode == 130
        return said.decode()


def asked_again(api: FakeApi, before: int) -> None:
    """Wait until a server was asked more often than `before`."""
    until(lambda: len(api.calls) > before)


@pytest.mark.parametrize("extensions", [(), EXTENSIONS], ids=["polls", "long poll"])
def test_follow_shows_each_event_once_in_order(
    irons_process: Irons, one: FakeApi, extensions: tuple[str, ...]
) -> None:
    """What is there comes first, then each event as it happens, once, in order; Ctrl-C ends it with 130."""
    one.extensions = extensions
    one.page = 2
    for number in range(5):
        one.record(f"h{number}.example")
    follower = Follower(irons_process)
    assert hosts([follower.next() for _ in range(5)]) == [f"h{n}.example" for n in range(5)]
    for number in range(5, 12):
        one.record(f"h{number}.example")
        assert hosts([follower.next()]) == [f"h{number}.example"]
    assert follower.end() == "irons: interrupted\n"


def test_follow_shows_how_a_connection_ended(irons_process: Irons, one: FakeApi) -> None:
    """What was shown as allowed is shown again once it ended, with what became of it; a repeat with its count; nothing twice."""
    one.extensions = EXTENSIONS
    first, second = one.record("a.example"), one.record("b.example")
    third = one.record("c.example", allowed=False, verdict="blocked")
    follower = Follower(irons_process)
    assert hosts([follower.next() for _ in range(3)]) == ["a.example", "b.example", "c.example"]
    one.change(first, outcome="unreached", ended="connection refused", duration_ms=3)
    assert follower.next().endswith("  ALLOWED  a.example  (mode: deny)  (unreached)")
    one.change(first)
    one.change(second, outcome="reached", duration_ms=4200, bytes_out=1234, bytes_in=56)
    line = "  ALLOWED  b.example  (mode: deny)  (reached, after 4.2 s, 1,234 bytes out, 56 in)"
    assert follower.next().endswith(line)
    one.change(third, count=12)
    assert follower.next().endswith("  DENIED   c.example  (mode: deny)  (12 times)")
    one.record("d.example")
    assert hosts([follower.next()]) == ["d.example"]
    assert follower.end() == "irons: interrupted\n"


def test_a_server_that_tells_the_same_change_again_is_left_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an answer brings nothing new the next question waits, as after an empty one."""
    event = Event(None, "one", "a.example", allowed=True, id=1)
    unread = iter([False, False, False, True])
    page = AuditPage((), token=1, changed=(event,), change_token=5)
    api = SimpleNamespace(extensions={"wait", "audit-changes"}, audit=lambda *_, **__: page)
    slept: list[float] = []

    class Streams:
        stdout_is_tty = True

        @property
        def is_unread(self) -> bool:
            return next(unread)

    monkeypatch.setattr("irons_plugins.audit.following.time.sleep", slept.append)
    log = AuditLog(
        cast("Any", SimpleNamespace(api=api, streams=Streams())), "one", Filter(), None, follow=True
    )
    assert [each.host for each in log.coming()] == ["a.example"]
    assert len(slept) == 2


def test_follow_marks_updates_in_json(irons_process: Irons, one: FakeApi) -> None:
    """A program tells an event that it has seen from a new one: the update has its id and `update`."""
    one.extensions = EXTENSIONS
    event = one.record("a.example")
    follower = Follower(irons_process, "-o", "jsonl")
    before = json.loads(follower.next())
    one.change(event, outcome="unresolved")
    assert json.loads(follower.next()) == {**before, "outcome": "unresolved", "update": True}
    follower.end()


def test_follow_by_outcome_shows_what_ends_so_later(irons_process: Irons, one: FakeApi) -> None:
    """A connection that did not fit the filter while it was open is shown when it does."""
    one.extensions = EXTENSIONS
    one.record("a.example", outcome="unreached")
    event, other = one.record("b.example"), one.record("c.example")
    follower = Follower(irons_process, "--outcome", "unreached")
    assert hosts([follower.next()]) == ["a.example"]
    one.change(other, outcome="reached")
    one.change(event, outcome="unreached")
    assert follower.next().endswith("  ALLOWED  b.example  (mode: deny)  (unreached)")
    follower.end()


def test_follow_in_the_background_of_a_script_takes_ctrl_c(irons_process: Irons, one: FakeApi) -> None:
    """Where the shell that started it had SIGINT ignored, it ends the follower all the same, with 130."""
    one.record("a.example")
    follower = Follower(irons_process, way="background")
    assert hosts([follower.next()]) == ["a.example"]
    assert follower.end() == "irons: interrupted\n"


def test_follow_at_a_server_without_tokens(irons_process: Irons, one: FakeApi) -> None:
    """A server that answers with the whole log each time is followed too, each event once."""
    one.tokens = False
    one.record("a.example")
    follower = Follower(irons_process)
    assert hosts([follower.next()]) == ["a.example"]
    asked = len(one.calls)
    until(lambda: len(one.calls) > asked + 1)
    one.record("b.example")
    one.record("c.example")
    assert hosts([follower.next(), follower.next()]) == ["b.example", "c.example"]
    follower.end()


def test_follow_is_immediate_with_a_long_poll(irons_process: Irons, one: FakeApi) -> None:
    """Where the server has a long poll, an event is on the screen at once, and the server is not asked in between."""
    one.extensions = EXTENSIONS
    one.record("a.example")
    follower = Follower(irons_process)
    follower.next()
    until(lambda: any("wait" in call.query for call in one.calls))
    delays = []
    for number in range(5):
        began, asked = time.monotonic(), len(one.calls)
        one.record(f"{number}.example")
        assert hosts([follower.next()]) == [f"{number}.example"]
        # A busy machine can only make it longer.
        delays.append(time.monotonic() - began)
        assert len(one.calls) - asked <= 1
        asked_again(one, asked)
    assert min(delays) < 0.3
    follower.end()


def test_follow_asks_every_second_or_faster(irons_process: Irons, one: FakeApi) -> None:
    """Where it has none, it is asked at least once a second."""
    one.record("a.example")
    follower = Follower(irons_process)
    follower.next()
    pauses = []
    for _ in range(4):
        began, asked = time.monotonic(), len(one.calls)
        asked_again(one, asked)
        pauses.append(time.monotonic() - began)
    # A busy machine can only make one longer.
    assert min(pauses) < 1
    follower.end()


def test_follow_survives_failed_polls(irons_process: Irons, one: FakeApi) -> None:
    """Failed polls are survived with one warning, and nothing is lost or shown twice."""
    one.record("a.example")
    follower = Follower(irons_process)
    assert hosts([follower.next()]) == ["a.example"]
    for fault in (faults.error(500, "down"), faults.html(500), faults.cut_json(), faults.broken_off()):
        one.fail(fault, on="GET /sandboxes/one/audit")
    one.record("b.example")
    assert hosts([follower.next()]) == ["b.example"]
    one.record("c.example")
    assert hosts([follower.next()]) == ["c.example"]
    said = follower.end().splitlines()
    assert said == ["irons: down; trying on", "irons: the server answers again", "irons: interrupted"]


def test_follow_of_nobody_ends(irons_process: Irons, fake_api: FakeApi) -> None:
    """A sandbox that is not there is not followed."""
    assert irons_process("audit", "egress", "one", "--follow").returncode == 3


def test_follow_with_filters_and_a_limit(irons_process: Irons, one: FakeApi) -> None:
    """--limit cuts what is there already, filters hold for what comes, and -o jsonl is an object a line."""
    one.extensions = EXTENSIONS
    for number in range(4):
        one.record(f"h{number}.example", allowed=False, verdict="blocked")
    follower = Follower(irons_process, "--limit", "1", "--verdict", "blocked", "-o", "jsonl")
    assert json.loads(follower.next())["host"] == "h3.example"
    for number in range(4, 7):
        one.record(f"a{number}.example", verdict="allowed")
        one.record(f"h{number}.example", allowed=False, verdict="blocked")
    assert [json.loads(follower.next())["host"] for _ in range(3)] == [
        "h4.example",
        "h5.example",
        "h6.example",
    ]
    follower.end()


def test_a_reader_that_goes_away_ends_it(irons_process: Irons, one: FakeApi) -> None:
    """When whoever read the lines has gone, following ends with the next one."""
    one.record("a.example")
    follower = Follower(irons_process)
    follower.next()
    assert follower.process.stdout is not None
    follower.process.stdout.close()
    one.record("b.example")
    one.record("c.example")
    assert follower.process.wait(60) == 0
    assert follower.process.stderr is not None
    assert follower.process.stderr.read() == b""


def test_following_into_a_table_is_lines(run_irons: Runner, one: FakeApi) -> None:
    """On a terminal too, what is followed comes as lines: a table is never finished. They have the port and the reason."""
    one.record("a.example")
    out = io.StringIO()
    one.fail(faults.error(401, "the key was revoked"), on="nothing")
    calls = len(one.calls)
    one.key = None

    class Stop(io.StringIO):
        def write(self, text: str) -> int:
            out.write(text)
            if "\n" in text:
                raise KeyboardInterrupt
            return len(text)

    assert run_irons("audit", "egress", "one", "--follow", tty=True, stdout=Stop()).code == 130
    assert re.fullmatch(r"\S+ \d\d:\d\d:\d\d  allowed     a\.example\n", out.getvalue())
    assert len(one.calls) > calls


def test_times_zone_is_the_machines(irons_process: Irons, one: FakeApi) -> None:
    """In UTC the zone is written as Z."""
    one.record("a.example")
    done = irons_process("audit", "egress", "one", env={"TZ": "UTC"})
    assert done.stdout.startswith(b"2026-02-19T23:42:26Z  ALLOWED  a.example")


def test_a_long_log_is_whole(run_irons: Runner, own: FakeApi) -> None:
    """A server that sends the newest to who asks once is asked page by page, so that nothing of the log is left out."""
    own.newest = 5
    for number in range(12):
        own.record(
            f"h{number}.example", verdict="blocked" if number % 3 else "allowed", allowed=number % 3 == 0
        )
    done = run_irons("audit", "egress", "one").ok()
    assert hosts(done.lines) == [f"h{number}.example" for number in range(12)]
    assert done.err == ""
    assert len(run_irons("audit", "egress", "one", "--verdict", "blocked").ok().lines) == 8
    assert hosts(run_irons("audit", "egress", "one", "--limit", "2").ok().lines) == [
        "h10.example",
        "h11.example",
    ]
    with connect(own.url) as api:
        assert [event.host for event in api.events("one")] == [f"h{number}.example" for number in range(12)]


def test_what_a_server_leaves_out_is_said(run_irons: Runner, own: FakeApi) -> None:
    """Where a server goes on to leave events out, their number is on stderr."""
    own.record("a.example")
    body = json.dumps({"events": own.events, "page_token": 1, "left_out": 1234}).encode()
    own.fail(Fault(200, body, {"Content-Type": "application/json"}), times=2)
    done = run_irons("audit", "egress", "one").ok()
    assert hosts(done.lines) == ["a.example"]
    assert "left out 1,234 earlier events" in done.err


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


# audit hosts


HOSTS = [
    {
        "host": "a.example",
        "port": 443,
        "verdict": "allowed",
        "first": "2026-02-19T20:00:00Z",
        "last": "2026-02-19T21:00:00Z",
        "count": 12,
        "reached": 11,
        "bytes_in": 34_567,
        "bytes_out": 891,
    },
    {
        "host": "*.flood.example",
        "verdict": "blocked",
        "first": "2026-02-19T20:00:00Z",
        "last": "2026-02-19T22:00:00Z",
        "count": 60_000,
        "reached": 0,
        "folded": "domain",
    },
]


def test_hosts(run_irons: Runner, own: FakeApi) -> None:
    """A row per host, port and verdict, with times, counts and bytes."""
    own.hosts = HOSTS
    table = run_irons("audit", "hosts", "one", tty=True, env={"COLUMNS": "200", "TZ": "UTC"}).ok().lines
    assert table[0].split()[:6] == ["LAST", "VERDICT", "HOST", "PORT", "COUNT", "REACHED"]
    assert "891 / 34,567" in table[1]
    assert "*.flood.example" in table[2]
    found = run_irons("audit", "hosts", "one", "-o", "json").ok().json()
    assert found[0] == {**HOSTS[0], "folded": ""}
    assert (found[1]["folded"], found[1]["port"], found[1]["bytes_in"]) == ("domain", None, None)


def test_hosts_filtered(run_irons: Runner, own: FakeApi) -> None:
    """Verdict, host and number are asked of the server; a number below one is refused."""
    own.hosts = HOSTS
    args = ("audit", "hosts", "one", "--verdict", "blocked", "--host", "*.flood.*", "--limit", "99999")
    assert len(run_irons(*args, "-o", "json").ok().json()) == 1
    assert own.calls[-1].query == {"verdict": "blocked", "host": "*.flood.*", "limit": "20000"}
    assert run_irons("audit", "hosts", "one", "--limit", "0").code == 2


def test_hosts_at_a_plain_server(run_irons: Runner, one: FakeApi) -> None:
    """For a server without summaries there is an error."""
    assert "sums up what sandboxes tried" in run_irons("audit", "hosts", "one").err
