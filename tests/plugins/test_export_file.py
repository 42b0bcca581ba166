"""An export to a file: each record exactly once, wherever the process or the machine ended in between."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.client.models.audit import AuditPage, EventCounts
from irons.context import Context
from irons.errors import UsageError
from irons_plugins.audit.export.formats import Csv, JsonLines
from irons_plugins.audit.export.output import ExportFile, resume
from irons_plugins.audit.export.position import ExportCursor, Position
from irons_plugins.audit.export.records import ExportRecord
from irons_plugins.audit.export.sources import EventSource
from irons_plugins.audit.export.storage import FileStorage
from irons_policy.event import Event


class Crash(Exception):
    """The process, or the machine, ends here."""


class Disk:
    """An output and a cursor in memory, which break off at a step, and lose what was not synced where the power fails.

    Args:
        draw: draws what happens at the crash.
    """

    def __init__(self) -> None:
        self.output = b""
        self.durable = 0
        self.cursor: bytes | None = None
        self.steps = 0
        self.crash_at = -1
        self.torn = 0.0

    def _step(self) -> bool:
        self.steps += 1
        return self.steps == self.crash_at

    def size(self) -> int:
        return len(self.output)

    def truncate(self, length: int) -> None:
        if self._step():
            raise Crash
        assert length <= len(self.output)
        self.output = self.output[:length]
        self.durable = length

    def append(self, data: bytes) -> None:
        if self._step():
            self.output += data[: int(len(data) * self.torn)]
            raise Crash
        self.output += data

    def sync(self) -> None:
        if self._step():
            raise Crash
        self.durable = len(self.output)

    def load_cursor(self) -> bytes | None:
        return self.cursor

    def store_cursor(self, text: bytes) -> None:
        # It is replaced as a whole: before the crash, or not at all.
        crashes = self._step()
        if crashes and self.torn < 0.5:
            raise Crash
        self.cursor = text
        if crashes:
            raise Crash

    def lose_power(self, kept: float) -> None:
        """Keep of what was not synced only a part."""
        self.output = self.output[: self.durable + int((len(self.output) - self.durable) * kept)]


BEGIN = ExportCursor("events", "jsonl", "/out", 0, Position())


def numbered(first: int, last: int) -> list[ExportRecord]:
    """Records with these ids."""
    return [ExportRecord("egress", {"id": number}) for number in range(first, last + 1)]


def ids(output: bytes) -> list[int]:
    """The ids in a file of JSON lines."""
    return [json.loads(line)["id"] for line in output.splitlines()]


def begun(disk: Disk) -> ExportFile:
    """The export to a disk, begun or gone on with."""
    return resume(disk, BEGIN, JsonLines(), "cursor", lambda _: None)


@given(
    sizes=st.lists(st.integers(0, 4), max_size=6),
    crashes=st.lists(
        st.tuples(st.integers(1, 12), st.floats(0, 1), st.booleans(), st.floats(0, 1)), max_size=8
    ),
)
def test_each_record_is_there_once(sizes: list[int], crashes: list[tuple[int, float, bool, float]]) -> None:
    """Whatever step breaks off, how much of a write was done, and whether the power failed, the next run makes it right."""
    disk = Disk()
    total = sum(sizes)
    ends = [sum(sizes[: at + 1]) for at in range(len(sizes))]

    def work() -> None:
        file = begun(disk)
        for end in ends:
            at = file.cursor.position.token
            if end > at:
                file.put(numbered(at + 1, end), Position(end))

    for at, torn, power, kept in crashes:
        disk.crash_at, disk.torn = disk.steps + at, torn
        try:
            work()
        except Crash:
            if power:
                disk.lose_power(kept)
    disk.crash_at = -1
    work()
    assert ids(disk.output) == list(range(1, total + 1))
    assert disk.cursor is not None
    assert ExportCursor.decode(disk.cursor, "c").length == len(disk.output)


def test_a_foreign_output_is_left_alone() -> None:
    """An output with data and no cursor, or one that is shorter than its cursor says, is refused and not cut."""
    disk = Disk()
    disk.output = b"precious\n"
    with pytest.raises(UsageError, match="no cursor"):
        begun(disk)
    disk.cursor = BEGIN._replace(length=100).encode()
    with pytest.raises(UsageError, match="changed or replaced"):
        begun(disk)
    disk.cursor = BEGIN._replace(log="changes").encode()
    with pytest.raises(UsageError, match="log changes, not events"):
        begun(disk)
    assert disk.output == b"precious\n"


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b"\xff", b'{"version": 2}', BEGIN.encode().replace(b'"length": 0', b'"length": -1')],
)
def test_a_cursor_that_is_none_is_refused(text: bytes) -> None:
    """A file that is not a cursor is named, not taken for the beginning."""
    with pytest.raises(UsageError, match="cursor"):
        ExportCursor.decode(text, "some/cursor")


@given(
    st.builds(
        Position,
        st.integers(0, 2**62),
        st.integers(0, 2**62),
        st.lists(st.integers(0, 2**62)).map(tuple),
        st.text(),
    )
)
def test_a_cursor_is_read_as_it_was_written(position: Position) -> None:
    """What is stored is what is read."""
    cursor = ExportCursor("changes", "csv", "/a/b", 12, position)
    assert ExportCursor.decode(cursor.encode(), "c") == cursor


def test_one_export_at_a_time_writes_a_file(tmp_path: Path) -> None:
    """A second export of the same file is refused, and files are their owner's alone."""
    first = FileStorage(tmp_path / "out", tmp_path / "cursor")
    with pytest.raises(UsageError, match="another export"):
        FileStorage(tmp_path / "out", tmp_path / "cursor")
    first.store_cursor(b"{}")
    first.close()
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("out", "cursor")} == {0o600}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cursor", "out"]
    with pytest.raises(UsageError, match="plain file"):
        FileStorage(Path("/dev/null"), tmp_path / "cursor")


# CSV


@given(
    st.text(st.characters(exclude_categories=())),
    st.sampled_from("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"),
    st.integers(0, 3),
)
def test_no_cell_begins_a_formula(text: str, begin: str, spaces: int) -> None:
    """A text that a spreadsheet would take for a formula has an apostrophe in front, also behind spaces; a number has none."""
    record = ExportRecord("egress", {"host": " " * spaces + begin + text, "port": 443, "reason": text})
    written = Csv(("host", "port", "reason")).encode([record]).decode()
    ((kind, host, port, reason),) = csv.reader(io.StringIO(written))
    assert (kind, port) == ("egress", "443")
    assert host.startswith("'")
    assert not reason.lstrip(" ").startswith(tuple("=+-@\t\r"))
    assert written.count("\n") == 1
    assert not set(written.rstrip("\n")) & set(map(chr, (*range(32), *range(127, 160))))


# Events that may still change


class Model:
    """A server's log: events are added, grow, become final, and make room for others."""

    def __init__(self) -> None:
        self.rows: dict[int, Event] = {}
        self.open: set[int] = set()
        self.last = 0
        self.extensions = frozenset({"audit-export"})

    def add(self, *, refused: bool, final: bool) -> None:
        """Add an event."""
        self.last += 1
        outcome = "refused" if refused else ""
        self.rows[self.last] = Event(
            None, "box", f"h{self.last}", False, "blocked", outcome=outcome, id=self.last
        )
        if not final:
            self.open.add(self.last)

    def grow(self, at: int) -> None:
        """Repeat a refusal, or let a connection carry more."""
        if self.open:
            number = sorted(self.open)[at % len(self.open)]
            if number in self.rows:
                self.rows[number] = self.rows[number]._replace(count=self.rows[number].count + 1)

    def settle(self, at: int) -> None:
        """Make an event final."""
        if self.open:
            self.open.discard(sorted(self.open)[at % len(self.open)])

    def rotate(self, at: int) -> None:
        """Have retention take an event."""
        if self.rows:
            del self.rows[sorted(self.rows)[at % len(self.rows)]]

    def audit(self, _sandbox: str | None, token: int = 0, **more: Any) -> AuditPage:
        """Answer as the server does."""
        asked = None if more.get("ids") is None else set(map(int, more["ids"].split(",")))
        found = [
            row for at, row in sorted(self.rows.items()) if at > token and (asked is None or at in asked)
        ]
        part = found[: more["page_size"] if asked else 3]
        last = part[-1].id if len(part) < len(found) else max(self.last, token)
        left = sum(1 for at in self.rows if at > token)
        unsettled = tuple(row.id for row in part if row.id in self.open)
        return AuditPage(
            tuple(part),
            last or 0,
            unsettled=unsettled,
            counts=EventCounts(self.last, left, ""),
        )


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "grow", "settle", "rotate", "read", "read", "restart"]),
        st.integers(0, 9),
        st.booleans(),
    ),
    max_size=60,
)


@given(ACTIONS)
def test_each_event_is_exported_once_and_final_or_counted_as_gone(
    actions: Sequence[tuple[str, int, bool]],
) -> None:
    """However events grow, end and go, and readers restart: an event is exported once, as it is at last, or counted."""
    model = Model()
    ctx = cast("Context", SimpleNamespace(api=model, progress=lambda _: None))
    position = Position()
    exported: list[ExportRecord] = []

    def made() -> EventSource:
        return EventSource(ctx, None, position, patient=False, final=True)

    source = made()
    final: dict[int, int] = {}
    for action, at, flag in (*actions, *((("settle", 0, False),) * 60), *((("read", 0, False),) * 60)):
        if action == "add":
            model.add(refused=flag, final=at < 3)
        elif action == "read":
            # Each look is late enough for the next one.
            source._checked = float("-inf")
            batch = source.read()
            exported += batch.records
            position = batch.position
        elif action == "restart":
            source = made()
        else:
            getattr(model, action)(at)
        final |= {number: row.count for number, row in model.rows.items()}
    events = [each.fields for each in exported if each.type == "egress"]
    lost = sum(each.fields["count"] for each in exported if each.type == "rotated")
    assert len({each["id"] for each in events}) == len(events)
    assert len(events) + lost == model.last
    assert all(final[each["id"]] == each["count"] for each in events)
    assert set(model.rows) <= {each["id"] for each in events}
