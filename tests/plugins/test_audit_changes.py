"""`audit changes`: the change log as a table, lines and JSON, filtered and followed; and what faces claim to be."""

from __future__ import annotations

import json
import subprocess

import pytest

from irons.client.api import PAGE_SIZE, connect
from irons.testing import EXTENSIONS, FakeApi, Runner, faults
from irons_plugins.audit.change_views import colour, told, who_here

from .conftest import Irons, until

WIDTHS = (40, 80, 100, 200)


@pytest.fixture
def changed(own: FakeApi) -> FakeApi:
    """A server whose rules, mode, keys and sandboxes were changed."""
    own.log_change("rule-added", "one", subject="pypi.org", after={"list": "allow"})
    own.log_change("mode-set", before={"mode": "warn"}, after={"mode": "deny"}, claimed_face="prompt")
    own.log_change("key-made", subject="laptop", after={"id": "key_1", "label": "laptop"})
    own.log_change(
        "sandbox-stopped",
        "one",
        by="irons",
        before={"status": "ready"},
        after={"status": "stopping"},
        reason="stopped after it was idle for 10 min",
        uid=None,
        claimed_face="",
        request="",
    )
    return own


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_fits_the_terminal(run_irons: Runner, changed: FakeApi, width: int) -> None:
    """No line is wider than the terminal, and each row has an age (of an old change the date), not a time."""
    shown = run_irons("audit", "changes", tty=True, env={"COLUMNS": str(width), "NO_COLOR": "1"}).ok().lines
    assert max(map(len, shown)) <= width
    assert shown[0].split()[:2] == ["TIME", "WHO"]
    assert all(line.startswith("2026-02-19  ") for line in shown[1:])
    assert len(shown) == 5


def test_the_table_says_who_changed_what(run_irons: Runner, changed: FakeApi) -> None:
    """Author, claim, scope and change are in a row; a change of all sandboxes says so."""
    out = run_irons("audit", "changes", tty=True, env={"COLUMNS": "120", "NO_COLOR": "1"}).ok().lines
    rows = [line.split()[1:] for line in out[1:]]
    assert rows[0] == ["uid", "1000", "cli", "one", "added", "allow", "pypi.org"]
    assert rows[1] == [
        "uid",
        "1000",
        "prompt",
        "all",
        "sandboxes",
        "mode",
        "deny,",
        "was",
        "warn",
        "(log",
        "only)",
    ]
    assert rows[2] == ["uid", "1000", "cli", "made", "API", "key", "laptop"]
    assert rows[3] == [
        "irons",
        "one",
        "stopped:",
        "stopped",
        "after",
        "it",
        "was",
        "idle",
        "for",
        "10",
        "min",
    ]


def test_a_pipe_gets_every_field(run_irons: Runner, changed: FakeApi) -> None:
    """Tab-separated: time, who, claimed face, request, sandbox, what, subject, before, after, reason."""
    lines = run_irons("audit", "changes", tty=False, env={"TZ": "UTC"}).ok().lines
    assert lines[1].split("\t") == [
        "2026-02-19T23:42:27Z",
        "uid 1000",
        "prompt",
        "0123456789abcdef",
        "",
        "mode-set",
        "",
        "mode warn",
        "mode deny",
        "",
    ]
    assert all(line.count("\t") == 9 for line in lines)


def test_json_is_the_record_as_it_is(run_irons: Runner, changed: FakeApi) -> None:
    """JSON has exact times, the states as objects, and the client's claim under a name that says so."""
    first = run_irons("audit", "changes", "one", "-o", "json").ok().json()[0]
    assert first["time"] == "2026-02-19T23:42:26Z"
    assert (first["by"], first["uid"], first["claimed_face"]) == ("uid", 1000, "cli")
    assert (first["before"], first["after"]) == ({}, {"list": "allow"})
    assert len(run_irons("audit", "changes", "one", "-o", "json").ok().json()) == 2


def test_wide_filters_and_limits(run_irons: Runner, changed: FakeApi) -> None:
    """`--wide` shows requests and states; times go to the server; `--limit` keeps the newest."""
    wide = run_irons("audit", "changes", "--wide", tty=True, env={"COLUMNS": "250"}).ok().out
    assert "0123456789abcdef" in wide
    assert "mode warn" in wide
    assert len(run_irons("audit", "changes", "--limit", "2", tty=False).ok().lines) == 2
    run_irons("audit", "changes", "--since", "2026-01-01T00:00:00Z").ok()
    assert changed.calls[-2].query["since"] == "2026-01-01T00:00:00Z"
    assert run_irons("audit", "changes", "--limit", "-1").code == 2
    assert run_irons("audit", "changes", "-f", "-o", "json").code == 2
    assert run_irons("audit", "changes", "none").code == 3


def test_hostile_text_of_the_log_is_cleaned(run_irons: Runner, own: FakeApi) -> None:
    """Labels, reasons and claims come from others: no control character of theirs reaches a terminal."""
    own.log_change(
        "key-made", subject="a\x1b[2Jb", claimed_face="c\x1b]0;d", reason="\u202eq", after={"x\x1b": "\r"}
    )
    for words in ([], ["--wide"]):
        for tty in (True, False):
            out = (
                run_irons("audit", "changes", *words, tty=tty, env={"COLUMNS": "200", "NO_COLOR": "1"})
                .ok()
                .out
            )
            assert not set(out) & {"\x1b", "\u202e", "\r"}


def test_changes_are_followed(irons_process: Irons, one: FakeApi) -> None:
    """With --follow each change is printed as it is made, also after the server failed once."""
    one.extensions = EXTENSIONS
    one.log_change("rule-added", subject="a.example", after={"list": "allow"})
    process = irons_process.start("audit", "changes", "--follow", "-o", "jsonl")
    assert isinstance(process, subprocess.Popen)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["what"] == "rule-added"
    one.fail(faults.error(500), on="GET /audit/changes")
    one.log_change("mode-set", after={"mode": "warn"})
    assert json.loads(process.stdout.readline())["what"] == "mode-set"
    until(lambda: one.calls[-1].query.get("pageToken") == "2")


def test_an_older_server_has_no_change_log(run_irons: Runner, own: FakeApi) -> None:
    """A server without the extension is named as the reason."""
    own.extensions = tuple(each for each in own.extensions if each != "change-log")
    done = run_irons("audit", "changes")
    assert done.code != 0
    assert "records changes" in done.err


def test_faces_say_what_they_are(run_irons: Runner, own: FakeApi, irons_env: dict[str, str]) -> None:
    """The command line claims `cli`, and a program that uses the library `library`."""
    run_irons("egress", "allow", "a.example").ok()
    assert {call.headers["X-Irons-Face"] for call in own.calls} == {"cli"}
    own.calls.clear()
    with connect(own.url, env=irons_env) as api:
        api.allow("b.example")
        api.face = "mcp"
        api.deny("b.example")
        with pytest.raises(ValueError, match="printable"):
            api.face = "a\r\nb: c"
    assert [call.headers["X-Irons-Face"] for call in own.calls] == ["library", "mcp"]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            {"what": "rule-changed", "subject": "a", "before": {"list": "allow"}, "after": {"list": "deny"}},
            "changed deny a (list deny, was allow)",
        ),
        ({"what": "rule-removed", "subject": "a", "before": {"list": "deny"}}, "removed deny a"),
        (
            {"what": "rule-added", "subject": "a", "after": {"list": "allow", "private": ["10.0.0.7"]}},
            "added allow a (private 10.0.0.7)",
        ),
        (
            {"what": "mode-set", "after": {"mode": None}, "before": {"mode": "deny"}},
            "mode of all sandboxes, was deny",
        ),
        ({"what": "policy-applied", "after": {"rules": 3}}, "policy of 3 rules applied"),
        ({"what": "key-revoked", "subject": "k"}, "revoked API key k"),
        (
            {"what": "access-added", "subject": "SHA256:x", "after": {"comment": "me@here"}},
            "access for me@here",
        ),
        ({"what": "access-removed", "subject": "SHA256:x"}, "no access for SHA256:x"),
        (
            {
                "what": "terms-changed",
                "after": {"ttl": 7200, "rm": True, "ends_at": "later"},
                "before": {"ttl": 7200, "ends_at": "soon"},
            },
            "ends at later, was soon; destroyed at its end: yes, was none",
        ),
        ({"what": "terms-changed", "before": {"idle_stop": 60}}, "idle stop none, was 60 s"),
        ({"what": "hold-released"}, "lives on without its client"),
        ({"what": "sandbox-created", "after": {"image": "debian", "cpus": 1}}, "created image debian"),
        ({"what": "sandbox-failed", "reason": "no disk"}, "failed: no disk"),
        ({"what": "later-kind", "subject": "x"}, "later-kind x"),
    ],
)
def test_changes_in_words(row: dict[str, object], text: str) -> None:
    """Each kind of change has words, and one of a newer server its own name."""
    whole = {"subject": "", "before": {}, "after": {}, "reason": "", **row}
    assert told(whole) == text
    assert colour(whole) in ("", "red", "yellow")


def test_users_have_names_on_their_own_machine() -> None:
    """The user of the server's machine is named by this one's list of users, where it has the number."""
    row = {"by": "uid", "uid": 0, "key_label": "", "key_id": ""}
    assert who_here(row) == "root"
    assert who_here({**row, "uid": 4_000_000_123}) == "uid 4000000123"
    assert who_here({**row, "by": "key", "key_label": "ci"}) == "key ci"
    assert who_here({**row, "by": "irons"}) == "irons"


def test_questions_are_told_with_their_end(run_irons: Runner, own: FakeApi) -> None:
    """An answer with its terminal, and a question without one with what ended it."""
    after = {"answer": "once", "question": "q_1", "waited": 1}
    own.log_change("question-answered", "one", subject="a.example:443", after=after)
    own.log_change("question-answered", "one", subject="b.example:443", after={**after, "terminal": "pts/3"})
    own.log_change(
        "question-ended", "one", subject="c.example:443", before={"question": "q_3"}, reason="no one answered"
    )
    out = run_irons("audit", "changes", tty=True, env={"COLUMNS": "150", "NO_COLOR": "1"}).ok().lines
    assert [" ".join(line.split()[4:]) for line in out[1:]] == [
        "answered once about a.example:443",
        "answered once about b.example:443 at pts/3",
        "no answer about c.example:443: no one answered",
    ]


def test_what_made_room_is_counted(run_irons: Runner, own: FakeApi) -> None:
    """Also changes that are gone between others, on later pages, are counted."""
    for number in range(PAGE_SIZE + 5):
        own.log_change("rule-added", "one", subject=f"h{number}.example", after={"list": "allow"})
    own.rotated_changes = {1, PAGE_SIZE + 3, PAGE_SIZE + 4}
    done = run_irons("audit", "changes").ok()
    assert len(done.lines) == PAGE_SIZE + 2
    assert done.err.splitlines() == [
        "irons: 1 earlier changes made room for others",
        "irons: 2 changes between these made room for others",
    ]
