"""`audit egress`: every page of the log is read once, and filters are the server's."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime

import pytest

from irons.client.api import connect
from irons.testing import EXTENSIONS, FakeApi, Fault, Runner
from irons_plugins.audit.filters import Filter
from irons_policy.event import Event

from .conftest import Irons, hosts


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


@pytest.mark.parametrize("words", [[], ["-o", "plain"], ["-o", "jsonl"], ["-o", "json"]])
@pytest.mark.parametrize(
    "command",
    [["audit", "egress", "one"], ["audit", "egress", "--all"], ["audit", "one"], ["audit", "--all"]],
)
def test_a_long_log_is_read_in_columns(
    run_irons: Runner, own: FakeApi, command: list[str], words: list[str]
) -> None:
    """What is printed of a long log is the same from a server that answers with columns, which has no object for each event."""
    own.newest = 5
    own.add("two")
    for number in range(40):
        own.record(
            f"h{number}.example", ("one", "two")[number % 2], verdict="warn" if number % 3 else "allowed"
        )
    own.record(
        "b.example", allowed=False, verdict="blocked", mode="deny", ask=True, reason="no rule", port=25
    )
    columns = own.extensions
    own.extensions = tuple(each for each in columns if each != "audit-columns")
    expected = run_irons(*command, *words).ok().out
    own.extensions = columns
    asked = len(own.calls)
    assert run_irons(*command, *words).ok().out == expected
    named = [call.query["columns"].split(",") for call in own.calls[asked:] if "columns" in call.query]
    assert named
    # Without it each event of all sandboxes is read by itself.
    assert all("sandbox_name" in names for names in named)
    assert len(expected) > 20 * 20


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
    own.fail(Fault(200, body, {"Content-Type": "application/json"}), on="GET /sandboxes", times=2)
    done = run_irons("audit", "egress", "one").ok()
    assert hosts(done.lines) == ["a.example"]
    assert "left out 1,234 earlier events" in done.err
