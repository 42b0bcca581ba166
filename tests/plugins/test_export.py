"""`audit export`: to stdout, to files, on and on, and over kills at any moment."""

from __future__ import annotations

import csv
import io
import json
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from irons.testing import EXTENSIONS, FakeApi, Runner

from .conftest import Irons, until


def rows(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_go_to_stdout_as_json_lines(run_irons: Runner, own: FakeApi) -> None:
    """Without --to the records are printed, each as it is now, with exact times and the type."""
    own.record("a.example")
    own.record("b.example", allowed=False, count=7)
    own.unsettled = {1}
    found = run_irons("audit", "export", tty=True).ok().jsonl()
    assert [(row["type"], row["host"], row["count"]) for row in found] == [
        ("egress", "a.example", 1),
        ("egress", "b.example", 7),
    ]
    assert found[0]["time"] == "2026-02-19T23:42:26Z"
    assert len(run_irons("audit", "export", "one").ok().jsonl()) == 2


def test_csv_has_a_head_and_guards_formulas(run_irons: Runner, own: FakeApi) -> None:
    """A CSV begins with the names of its columns; a host that is a formula is not one in a spreadsheet."""
    own.record("=cmd()", reason='+1,"x"')
    own.log_change("rule-added", subject="@sum", after={"list": "allow"})
    (row,) = csv.DictReader(io.StringIO(run_irons("audit", "export", "--format", "csv").ok().out))
    assert (row["type"], row["host"], row["reason"], row["port"]) == ("egress", "'=cmd()", '\'+1,"x"', "443")
    out = run_irons("audit", "export", "--changes", "--format", "csv").ok().out
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["type"], row["subject"], row["after"]) == ("change", "'@sum", '{"list": "allow"}')


def test_a_cursor_goes_on_and_keeps_back_what_may_change(
    run_irons: Runner, own: FakeApi, tmp_path: Path
) -> None:
    """Each run adds what is new; an open connection is written once it has ended, with its last count."""
    words = ("audit", "export", "--cursor", str(tmp_path / "c"), "--to", str(tmp_path / "out"))
    own.record("a.example")
    own.record("b.example")
    own.unsettled = {1}
    done = run_irons(*words).ok()
    assert "1 record written to" in done.err
    assert [row["id"] for row in rows(tmp_path / "out")] == [2]
    own.record("c.example")
    own.events[0]["count"] = 9
    own.unsettled = set()
    run_irons(*words).ok()
    assert [(row["id"], row["count"]) for row in rows(tmp_path / "out")] == [(2, 1), (1, 9), (3, 1)]
    run_irons(*words).ok()
    assert len(rows(tmp_path / "out")) == 3


def test_an_export_goes_on_in_another_file(run_irons: Runner, own: FakeApi, tmp_path: Path) -> None:
    """With another --to nothing is written twice, and what was torn is cut from the former file first."""
    first, second, cursor = tmp_path / "1", tmp_path / "2", str(tmp_path / "c")
    own.record("a.example")
    run_irons("audit", "export", "--cursor", cursor, "--to", str(first)).ok()
    with first.open("a") as file:
        file.write('{"torn')
    own.record("b.example")
    run_irons("audit", "export", "--cursor", cursor, "--to", str(second)).ok()
    assert ([row["id"] for row in rows(first)], [row["id"] for row in rows(second)]) == ([1], [2])
    assert run_irons("audit", "export", "--cursor", cursor, "--to", str(first)).code == 2
    second.unlink()
    assert "missing" in run_irons("audit", "export", "--cursor", cursor, "--to", str(tmp_path / "3")).err


def test_what_retention_took_is_one_record(run_irons: Runner, own: FakeApi, tmp_path: Path) -> None:
    """A gap in the ids is one record that says how many are missing."""
    words = ("audit", "export", "--cursor", str(tmp_path / "c"), "--to", str(tmp_path / "out"))
    for name in "abcde":
        own.record(f"{name}.example")
    own.rotated_ids = {2, 3}
    run_irons(*words).ok()
    found = rows(tmp_path / "out")
    assert [row["type"] for row in found] == ["rotated", "egress", "egress", "egress"]
    assert (found[0]["count"], found[0]["log"]) == (2, "events")
    own.events.clear()
    own.rotated_ids = set()
    assert "another log" in run_irons(*words).err


def test_what_does_not_fit_together_is_refused(run_irons: Runner, own: FakeApi, tmp_path: Path) -> None:
    """A cursor without a file, one file for both, a full file without a cursor, and another output format are errors."""
    own.record("a.example")
    full = tmp_path / "full"
    full.write_text("precious\n")
    for words in (
        ("--cursor", "c"),
        ("--cursor", str(full), "--to", str(full)),
        ("--to", str(full)),
        ("--to", str(full), "--cursor", str(tmp_path / "c")),
        ("-o", "json"),
    ):
        assert run_irons("audit", "export", *words).code == 2, words
    assert full.read_text() == "precious\n"
    own.extensions = ("audit-filters",)
    assert run_irons("audit", "export").code not in (0, 2)


@pytest.mark.parametrize("log", ["events", "changes"])
def test_a_kill_at_any_moment_loses_and_repeats_nothing(
    irons_process: Irons, one: FakeApi, tmp_path: Path, log: str
) -> None:
    """Killed again and again while it follows, and gone on with each time, the file has each record once."""
    one.extensions = EXTENSIONS
    out = tmp_path / "out"
    words = ["audit", "export", "--follow", "--cursor", str(tmp_path / "c"), "--to", str(out)]
    if log == "changes":
        words.append("--changes")
    over = threading.Event()
    moments = random.Random(7)

    def happen() -> None:
        number = 0
        while not over.wait(0.002):
            number += 1
            if log == "changes":
                one.log_change("rule-added", subject=f"h{number}.example", after={"list": "allow"})
            else:
                one.record(f"h{number}.example")

    happening = threading.Thread(target=happen)
    happening.start()
    try:
        size = 0
        for _ in range(6):
            process = irons_process.start(*words)
            until(lambda size=size: out.exists() and out.stat().st_size > size)  # type: ignore[misc]
            over.wait(moments.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            size = out.stat().st_size
    finally:
        over.set()
        happening.join()
    words.remove("--follow")
    done = irons_process(*words)
    assert done.returncode == 0, done.stderr
    total = len(one.change_log if log == "changes" else one.events)
    assert [row["id"] for row in rows(out)] == list(range(1, total + 1))
