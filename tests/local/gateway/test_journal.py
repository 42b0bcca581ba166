"""The write-ahead audit log, the folding of refusals, and the names that are kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from irons_local.gateway.budget.bucket import Bucket
from irons_local.gateway.record import folding
from irons_local.gateway.record.encoding import encoder
from irons_local.gateway.record.folding import Folder
from irons_local.gateway.record.journal import Journal, JournalError
from irons_local.gateway.record.refusal import Refusal
from irons_local.gateway.shared.synthetic_names import NamesFullError, SyntheticNames
from irons_policy.causes import Cause

REFUSAL = Refusal("evil.test", 443, "tls", "deny", None, "no rule allows evil.test", Cause.UNCOVERED)


def records(directory: Path) -> list[dict[str, Any]]:
    """All records, in the order of their runs."""
    return [
        json.loads(line)
        for path in sorted(directory.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A log in a directory of its own."""
    journal = Journal(tmp_path / "audit", lambda *_: None)
    yield journal
    journal.close()


def test_an_attempt_is_open_verdict_close(journal: Journal, tmp_path: Path) -> None:
    """Its records are numbered without a gap and say which attempt they are of; it closes once."""
    entry = journal.open("sb", host="a.test")
    entry.verdict(allowed=True)
    entry.close(ended="closed")
    entry.close(ended="again")
    found = records(tmp_path / "audit")
    assert [(each["seq"], each["kind"], each["conn"]) for each in found] == [
        (1, "open", 1),
        (2, "verdict", 1),
        (3, "close", 1),
    ]


@pytest.mark.parametrize("name", ["c_make_encoder", "nothing"])
def test_a_record_is_what_the_standard_library_writes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """With and without the interpreter's own encoder: ASCII, no spaces, every kind of value that a record has."""
    monkeypatch.setattr(json.encoder, "c_make_encoder", getattr(json.encoder, name, None))
    fields = {
        "host": 'a"\\\n\x00\x7f\u2028\U0001f600é',
        "port": 443,
        "allowed": True,
        "rule": None,
        "x": [1, {"y": -2.5}],
        "": "",
    }
    written = encoder()(fields)
    assert written == json.dumps(fields, separators=(",", ":"))
    assert written.isascii()
    with pytest.raises(TypeError):
        encoder()({"host": b"bytes"})


def test_a_large_run_is_followed_by_another(tmp_path: Path) -> None:
    """Records of an attempt stay in the run it began in, which ends when the last of them has closed."""
    journal = Journal(tmp_path, lambda *_: None, rotate=200)
    one, two = journal.open("sb", host="a.test"), journal.open("sb", host="a.test")
    three = journal.open("sb", host="b.test")
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    one.close()
    two.close()
    three.close()
    kinds: dict[str, list[str]] = {}
    for record in records(tmp_path):
        kinds.setdefault(record["run"], []).append(record["kind"])
    assert list(kinds.values()) == [["open", "open", "close", "close", "end"], ["open", "close"]]
    journal.close()


def test_half_a_record_is_taken_back(tmp_path: Path) -> None:
    """When the disk takes only a part of a record, it is refused and the next one is whole."""
    journal = Journal(tmp_path, lambda *_: None)
    real = os.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.write", lambda fd, data: real(fd, data[:10]))
        with pytest.raises(JournalError, match="no room"):
            journal.open("sb", host="a.test")
    journal.open("sb", host="b.test").close()
    assert [(each["seq"], each.get("host")) for each in records(tmp_path)] == [(1, "b.test"), (2, None)]
    journal.close()


async def _folded(journal: Journal, count: int) -> None:
    folder = Folder(asyncio.get_running_loop(), journal)
    for _ in range(count):
        folder.refused("sb", REFUSAL)
    folder.flush()


def test_repeats_are_one_event_with_its_count(journal: Journal, tmp_path: Path) -> None:
    """The first is written at once, the count whenever it has doubled and at the end."""
    asyncio.run(_folded(journal, 100))
    found = records(tmp_path / "audit")
    assert [each["count"] for each in found] == [1, 2, 4, 8, 16, 32, 64, 100]
    assert {each["conn"] for each in found} == {1}


def test_too_many_different_events_are_counted(journal: Journal, tmp_path: Path) -> None:
    """What there is no room for becomes one event that says how much."""

    async def flood() -> None:
        folder = Folder(asyncio.get_running_loop(), journal)
        for port in range(1, folding.DISTINCT + 301):
            folder.refused("sb", REFUSAL._replace(port=port))
        folder.flush()

    asyncio.run(flood())
    found = records(tmp_path / "audit")
    assert (found[-1]["kind"], found[-1]["count"]) == ("dropped", 300)
    assert len({each["conn"] for each in found}) == folding.DISTINCT + 1


def test_a_repeat_with_a_record_of_its_own_is_folded_by_one(tmp_path: Path) -> None:
    """Attempts that were opened become one event; each repeat says which, and none is left open at the end."""
    journal = Journal(tmp_path, lambda *_: None)

    async def refuse() -> None:
        folder = Folder(asyncio.get_running_loop(), journal)
        for _ in range(3):
            folder.refused("sb", REFUSAL, journal.open("sb", host=REFUSAL.host))
        folder.flush()

    asyncio.run(refuse())
    journal.close()
    found = [
        (each["kind"], each.get("conn"), each.get("into"), each.get("count")) for each in records(tmp_path)
    ]
    assert found == [
        ("open", 1, None, None),
        ("event", 1, None, 1),
        ("open", 2, None, None),
        ("fold", 2, 1, 2),
        ("open", 3, None, None),
        ("fold", 3, 1, 3),
        ("end", None, None, None),
    ]


def test_a_fold_ends_where_its_run_does(tmp_path: Path) -> None:
    """A repeat whose record is in a later file begins an event there: each file is understood by itself."""
    journal = Journal(tmp_path, lambda *_: None, rotate=200)

    async def refuse() -> None:
        folder = Folder(asyncio.get_running_loop(), journal)
        for _ in range(4):
            folder.refused("sb", REFUSAL, journal.open("sb", host=REFUSAL.host))
        folder.flush()

    asyncio.run(refuse())
    journal.close()
    runs: dict[str, list[int]] = {}
    for each in records(tmp_path):
        runs.setdefault(each["run"], []).append(each.get("count", 0))
    assert len(runs) > 1
    assert sum(max(counts) for counts in runs.values()) == 4


def test_what_could_not_be_written_is_told_when_there_is_room(tmp_path: Path) -> None:
    """Refusals while the disk is full are one event once it is not, with their number."""
    journal = Journal(tmp_path, lambda *_: None)

    async def refuse() -> None:
        folder = Folder(asyncio.get_running_loop(), journal)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.write", lambda *_: 0)
            for _ in range(3):
                folder.refused("sb", REFUSAL)
            folder.unwritten("sb")
            folder.flush()
        folder.flush()

    asyncio.run(refuse())
    journal.close()
    found = records(tmp_path)
    assert [(each["kind"], each.get("count")) for each in found] == [("dropped", 4), ("end", None)]


def test_what_could_not_be_written_is_counted_meanwhile(tmp_path: Path) -> None:
    """While the disk is full it is known how many refusals of which cell are missing, and each change is reported."""
    journal = Journal(tmp_path, lambda *_: None)
    said: list[dict[str, int]] = []

    async def refuse() -> None:
        folder = Folder(asyncio.get_running_loop(), journal, lambda: said.append(dict(folder.unrecorded())))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.write", lambda *_: 0)
            folder.refused("sb", REFUSAL)
            folder.unwritten("other")
        folder.flush()

    asyncio.run(refuse())
    journal.close()
    assert said[:2] == [{"sb": 1}, {"sb": 1, "other": 1}]
    assert said[-1] == {}


def test_names_are_never_given_again(tmp_path: Path) -> None:
    """A name keeps its address across restarts, and half a name that a kill left behind is forgotten."""
    path = tmp_path / "names" / "sb"
    names = SyntheticNames(path)
    one, two = names.address("a.test"), names.address("b.test")
    assert names.address("a.test") == one != two
    names.close()
    with path.open("a") as file:
        file.write("half.a.na")
    again = SyntheticNames(path)
    assert again.name(one) == "a.test"
    three = again.address("c.test")
    assert three not in {one, two}
    assert [again.name(each) for each in (one, two, three)] == ["a.test", "b.test", "c.test"]
    again.close()
    assert path.read_text() == "a.test\nb.test\nc.test\n"


def test_names_are_limited_a_second_and_room_is_kept_for_rules(tmp_path: Path) -> None:
    """Beyond a burst new names come at a rate; those that a rule covers have a rate and room of their own."""
    now = 0.0
    names = SyntheticNames(tmp_path / "names" / "sb", capacity=10, bucket=lambda: Bucket(2, 4, lambda: now))

    def given(prefix: str, *, covered: bool) -> int:
        count = 0
        with contextlib.suppress(NamesFullError):
            while True:
                names.address(f"{prefix}{len(names)}.test", lambda _: covered)
                count += 1
        return count

    assert given("a", covered=False) == 4
    assert given("b", covered=False) == 0
    assert given("c", covered=True) == 4
    now += 1
    assert given("d", covered=False) == 2
    assert len(names) == 10
    now += 10
    assert given("e", covered=False) == 0
    assert given("f", covered=True) == 4
    names.close()


def test_names_run_out(tmp_path: Path) -> None:
    """A cell has so many names and no more; those it has keep working."""
    names = SyntheticNames(tmp_path / "names" / "sb", capacity=2)
    one = names.address("a.test")
    names.address("b.test")
    with pytest.raises(NamesFullError):
        names.address("c.test")
    assert names.address("a.test") == one
    names.close()
