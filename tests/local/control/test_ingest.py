"""The gateway's logs become events exactly once, whoever dies when."""

from __future__ import annotations

import fcntl
import json
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irons_plugins.local.control import events, hosts_tried, retention
from irons_plugins.local.control.events import Query
from irons_plugins.local.control.hosts_tried import HostQuery
from irons_plugins.local.control.ingest import Ingest
from irons_plugins.local.control.retention import Retention
from irons_plugins.local.control.serving import Serving
from irons_plugins.local.store import Store

RUN = "1700000000000000-4242-0"
CELL = "sb_00112233445566ff"


class Logs:
    """A directory of logs, a store, and the way from one to the other."""

    def __init__(self, directory: Path, serving: Serving | None = None) -> None:
        self.directory = directory / "audit"
        self.directory.mkdir()
        self.store = Store(directory / "irons.db")
        self.ingest = Ingest(self.directory, serving)
        self.seq = 0
        self._open: dict[str, Any] = {}

    def write(self, *records: Mapping[str, Any], run: str = RUN, raw: bytes = b"") -> None:
        """Append records as a living gateway does: its log is locked."""
        if run not in self._open:
            self._open[run] = (self.directory / f"{run}.jsonl").open("ab", buffering=0)
            fcntl.flock(self._open[run], fcntl.LOCK_EX | fcntl.LOCK_NB)
        for record in records:
            self.seq += 1
            line = {
                "run": run,
                "seq": self.seq,
                "at": 1_700_000_000_000_000 + self.seq,
                "cell": CELL,
                **record,
            }
            self._open[run].write(json.dumps(line).encode() + b"\n")
        self._open[run].write(raw)

    def die(self, run: str = RUN) -> None:
        """Let the gateway end: the lock goes."""
        self._open.pop(run).close()

    def take(self) -> int:
        """Take in all that there is; gives how many events came to be seen."""
        shown = 0
        while True:
            taken = self.store.write_now(self.ingest.take)
            shown += taken.shown
            if not taken.more:
                self.store.write_now(self.ingest.sweep)
                return shown

    def events(self, **query: Any) -> list[dict[str, Any]]:
        """What readers see."""
        return self.store.write_now(lambda connection: events.page(connection, Query(**query))).events

    def hosts(self) -> list[dict[str, Any]]:
        """What readers see of the summary; nothing where no event came in."""
        if not self.events():
            return []
        return self.store.write_now(lambda connection: hosts_tried.hosts(connection, HostQuery(CELL)))

    def rows(self, table: str) -> int:
        """How many rows a table has."""

        def count(connection: sqlite3.Connection) -> int:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

        return self.store.write_now(count)

    def close(self) -> None:
        """Close everything."""
        for file in self._open.values():
            file.close()
        self.store.close()


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    """Logs in a directory of the test."""
    made = Logs(tmp_path)
    yield made
    made.close()


def _open(conn: int = 1, host: str = "a.test", port: int = 443) -> dict[str, Any]:
    return {"kind": "open", "conn": conn, "host": host, "port": port, "protocol": "tcp"}


def _verdict(conn: int = 1, verdict: str = "allowed", **more: Any) -> dict[str, Any]:
    return {
        "kind": "verdict",
        "conn": conn,
        "verdict": verdict,
        "allowed": verdict != "blocked",
        "mode": "deny",
        "protocol": "tls",
        "rule": "a.test",
        "reason": "rule a.test (account) allows it",
        **more,
    }


def _close(conn: int = 1, **more: Any) -> dict[str, Any]:
    said = {"bytes_in": 10, "bytes_out": 20, "duration_ms": 3.7, "ended": "client closed"}
    return {"kind": "close", "conn": conn, **said, **more}


def test_one_attempt_is_one_event(logs: Logs) -> None:
    """Opening, verdict and closing of one attempt make one event with all that they say."""
    logs.write(_open(), _verdict(), _close())
    assert logs.take() == 1
    (event,) = logs.events()
    assert event == {
        "type": "egress",
        "id": 1,
        "timestamp": "2023-11-14T22:13:20.000001Z",
        "sandbox_name": CELL,
        "sandbox_id": CELL,
        "host": "a.test",
        "port": 443,
        "protocol": "tls",
        "allowed": True,
        "verdict": "allowed",
        "mode": "deny",
        "rule": "a.test",
        "reason": "rule a.test (account) allows it",
        "count": 1,
        "bytes_in": 10,
        "bytes_out": 20,
        "duration_ms": 3,
        "ended": "client closed",
    }
    assert logs.rows("attempts") == 0


def test_an_event_is_seen_at_its_verdict(logs: Logs) -> None:
    """An opening alone shows nothing; the closing updates the event, which is not followed again."""
    logs.write(_open())
    assert logs.take() == 0
    assert logs.events() == []
    logs.write(_verdict())
    assert logs.take() == 1
    assert "ended" not in logs.events()[0]
    logs.write(_close())
    assert logs.take() == 0
    assert logs.events()[0]["ended"] == "client closed"
    assert logs.events(after=1) == []


def test_ids_follow_the_verdicts(logs: Logs) -> None:
    """An attempt that was opened first and judged last comes last, so that a token never skips it."""
    logs.write(_open(1, "slow.test"), _open(2, "fast.test"), _verdict(2))
    logs.take()
    logs.write(_verdict(1))
    logs.take()
    assert [(event["id"], event["host"]) for event in logs.events()] == [(1, "fast.test"), (2, "slow.test")]
    assert logs.events()[1]["timestamp"] < logs.events()[0]["timestamp"]


def test_a_killed_gateway_leaves_interrupted_attempts(logs: Logs) -> None:
    """Attempts that were not closed end as `interrupted`, one without a verdict too; the log is removed."""
    logs.write(
        _open(1), _verdict(1), _open(2, "never.test"), _open(3), _verdict(3), _close(3), raw=b'{"seq": 9, "ki'
    )
    assert logs.take() == 2
    logs.die()
    assert logs.take() == 1
    ended = {event["host"]: (event["verdict"], event.get("ended")) for event in logs.events()}
    assert ended["never.test"] == ("blocked", "interrupted")
    assert [event["ended"] for event in logs.events()] == ["interrupted", "client closed", "interrupted"]
    assert list(logs.directory.iterdir()) == []
    assert logs.rows("attempts") == logs.rows("runs") == 0


def test_a_log_that_says_its_end_is_removed(logs: Logs) -> None:
    """A run that ended in good order is taken in and removed; another one goes on."""
    other = "1700000000000001-4242-0"
    logs.write(_open(), _verdict(), _close(), {"kind": "end"})
    logs.write(_open(7), run=other)
    logs.take()
    assert [path.name for path in logs.directory.iterdir()] == [f"{other}.jsonl"]


def test_a_living_log_is_never_removed(logs: Logs) -> None:
    """As long as its writer lives, a log stays, read to its end or not."""
    logs.write(_open(), _verdict(), _close())
    logs.take()
    logs.take()
    assert len(list(logs.directory.iterdir())) == 1


def test_a_log_that_vanished_is_closed(logs: Logs) -> None:
    """Where somebody removed a log, its open attempts end as interrupted, and nothing is waited for."""
    logs.write(_open(), _verdict())
    logs.take()
    (logs.directory / f"{RUN}.jsonl").unlink()
    logs.take()
    assert logs.events()[0]["ended"] == "interrupted"
    assert logs.rows("runs") == 0


def test_a_repeated_event_updates_its_count(logs: Logs) -> None:
    """An event that is said anew is the same event with another count, never a second one."""
    said = {
        "kind": "event",
        "conn": 5,
        "host": "192.0.2.1",
        "port": 53,
        "protocol": "udp",
        "verdict": "blocked",
    }
    logs.write({**said, "count": 1})
    assert logs.take() == 1
    logs.write({**said, "count": 17})
    assert logs.take() == 0
    (event,) = logs.events()
    assert (event["count"], event["allowed"]) == (17, False)
    logs.die()
    logs.take()
    assert "ended" not in logs.events()[0]


def _refusal(conn: int, count: int = 1) -> dict[str, Any]:
    said = {"host": "192.0.2.1", "port": 53, "protocol": "udp", "verdict": "blocked", "count": count}
    return {"kind": "event", "conn": conn, **said}


@pytest.mark.parametrize("between", [False, True])
def test_a_repeat_is_no_event_of_its_own(logs: Logs, between: bool) -> None:
    """An attempt that was folded into another raises that one's count, taken in together with it or later."""
    logs.write(_open(1), _refusal(1), _open(2))
    if between:
        assert logs.take() == 1
    logs.write({"kind": "fold", "conn": 2, "into": 1, "count": 2}, _open(3))
    logs.write({"kind": "fold", "conn": 3, "into": 1, "count": 3})
    logs.take()
    logs.die()
    logs.take()
    assert [(event["host"], event["count"], event.get("ended")) for event in logs.events()] == [
        ("192.0.2.1", 3, None)
    ]


def test_a_repeat_of_nothing_stays_an_event_of_its_own(logs: Logs) -> None:
    """A fold into what is no event hides no attempt."""
    logs.write(_open(1), {"kind": "fold", "conn": 1, "into": 9, "count": 2})
    logs.write(_open(2), {"kind": "fold", "conn": 2, "into": 2, "count": 2})
    logs.write(
        _open(3), {"kind": "fold", "conn": 3, "into": 1, "count": 2}, {"kind": "fold", "conn": 3, "into": "x"}
    )
    logs.take()
    logs.die()
    logs.take()
    assert [event["ended"] for event in logs.events()] == ["interrupted"] * 3


def _note(logs: Logs, *counts: tuple[int, int]) -> Path:
    path = logs.directory / f"{RUN}.counts"
    path.write_bytes(b"".join(struct.pack("<QQ", *each) for each in counts) + b"torn")
    return path


@pytest.mark.parametrize("between", [False, True])
def test_a_count_beside_the_log_of_a_killed_gateway_holds(logs: Logs, between: bool) -> None:
    """The greater of the log's count and the one beside it is the count; taken in again it stays so."""
    logs.write(_refusal(1), _refusal(1, 2), _refusal(2, 7), _refusal(3), _verdict(4))
    path = _note(logs, (1, 3), (2, 5), (9, 9), (4, 8))
    if between:
        logs.take()
    logs.die()
    logs.take()
    assert [event["count"] for event in logs.events()] == [3, 7, 1, 1]
    assert not path.exists()
    assert list(logs.directory.iterdir()) == []


def test_counts_of_a_living_gateway_are_left_alone(logs: Logs) -> None:
    """As long as its writer lives, the log alone is believed."""
    logs.write(_refusal(1))
    path = _note(logs, (1, 3))
    logs.take()
    assert logs.events()[0]["count"] == 1
    assert path.exists()


def test_a_link_is_no_count(logs: Logs, tmp_path: Path) -> None:
    """The directory may belong to the gateway's own user: counts are read from a plain file only."""
    logs.write(_refusal(1))
    (tmp_path / "elsewhere").write_bytes(struct.pack("<QQ", 1, 3))
    (logs.directory / f"{RUN}.counts").symlink_to(tmp_path / "elsewhere")
    logs.die()
    logs.take()
    assert logs.events()[0]["count"] == 1
    assert (tmp_path / "elsewhere").exists()


def test_what_was_dropped_is_an_event(logs: Logs) -> None:
    """A record of how much was dropped is one event with that count, which may grow."""
    logs.write({"kind": "dropped", "conn": 1, "count": 300, "reason": "too many at once"})
    logs.take()
    logs.write({"kind": "dropped", "conn": 1, "count": 500, "reason": "too many at once"})
    logs.take()
    (event,) = logs.events()
    assert (event["count"], event["reason"], event["verdict"]) == (500, "too many at once", "blocked")


def test_records_are_taken_once(logs: Logs) -> None:
    """A record whose number was taken is passed over, as after a log that was copied back."""
    logs.write(_open(), _verdict(), _close())
    logs.take()

    def rewind(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE runs SET offset = 0")

    logs.store.write_now(rewind)
    logs.take()
    assert len(logs.events()) == 1


def test_hostile_records_change_nothing(logs: Logs) -> None:
    """Lines that are no records, or say what they cannot, neither stop the intake nor make events of nonsense."""
    logs.write(
        raw=b"\n[]\nnull\n{\n\xff\xfe\n"
        + b"[" * 100_000
        + b"\n"
        + json.dumps({"seq": 10**30, "kind": "open"}).encode()
        + b"\n"
    )
    logs.write(
        {"kind": "verdict", "conn": "x"},
        {"kind": "verdict", "conn": -1},
        {"kind": "nonsense", "conn": 1},
        {
            "kind": "verdict",
            "conn": 2,
            "host": "\ud800" * 900,
            "port": 1e300,
            "verdict": "maybe",
            "count": float("nan"),
        },
        _verdict(3, host="fine.test"),
    )
    logs.take()
    assert [event["host"] for event in logs.events()][-1] == "fine.test"
    assert all(len(event["host"]) <= 255 for event in logs.events())


def test_links_and_directories_are_no_logs(logs: Logs, tmp_path: Path) -> None:
    """The directory may belong to the gateway's own user: only plain files are read, and only with a run's name."""
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"seq": 1, **_verdict(1, host="stolen.test")}) + "\n")
    (logs.directory / "1700000000000009-1-0.jsonl").symlink_to(secret)
    (logs.directory / "1700000000000008-1-0.jsonl").mkdir()
    (logs.directory / "other.jsonl").write_text(secret.read_text())
    logs.take()
    assert logs.events() == []
    assert secret.exists()


def test_a_flood_rotates_out_only_its_own(logs: Logs) -> None:
    """Beyond the number kept, a sandbox loses its own oldest events, and another one none."""
    other = "sb_ffffffffffffffff"
    for conn in range(1, 131):
        logs.write(_verdict(conn, host=f"h{conn}.test"))
    logs.write({**_verdict(200), "cell": other})
    logs.take()
    logs.store.write_now(lambda connection: retention.rotate(connection, Retention(events=100)))
    mine, others = logs.events(name=CELL), logs.events(name=other)
    assert (len(mine), mine[0]["host"], len(others)) == (100, "h31.test", 1)
    logs.write(_verdict(300))
    logs.take()
    assert logs.events()[-1]["id"] == 132


def test_old_events_expire_and_ids_are_not_used_again(logs: Logs) -> None:
    """Events older than the days kept go; the next event still has a new id."""
    logs.write(_verdict(1), _verdict(2))
    logs.take()
    now = 1_700_000_000_000_000 + 91 * 86_400_000_000
    logs.store.write_now(lambda connection: retention.expire(connection, Retention(), now))
    assert logs.events() == []
    logs.write(_verdict(3))
    logs.take()
    assert logs.events()[0]["id"] == 3


def test_pages_are_complete_and_in_order(logs: Logs) -> None:
    """Page after page gives every event once, in order; filters and the newest so many hold."""
    for conn in range(1, 2_502):
        verdict = "blocked" if conn % 5 == 0 else "allowed"
        logs.write(_verdict(conn, verdict, host=f"h{conn}.{'even' if conn % 2 == 0 else 'odd'}.test"))
    logs.take()

    def read(**query: Any) -> list[int]:
        ids: list[int] = []
        wanted = Query(**query)
        while True:
            page = logs.store.write_now(partial(events.page, query=wanted))
            ids += [event["id"] for event in page.events]
            if not page.events:
                return ids
            wanted = replace(wanted, after=page.token, limit=None)

    assert read() == list(range(1, 2_502))
    assert read(limit=3) == [2_499, 2_500, 2_501]
    assert read(limit=1_500) == list(range(1_002, 2_502))
    assert read(verdicts=("blocked",)) == list(range(5, 2_502, 5))
    assert read(verdicts=("blocked",), limit=2) == [2_495, 2_500]
    assert read(host="*.EVEN.test") == list(range(2, 2_502, 2))
    assert read(host="h7.odd.test") == [7]
    assert read(host="h[7].odd.test") == []
    assert read(since=1_700_000_000_002_501) == [2_501]
    assert read(until=1_700_000_000_000_002) == [1, 2]


_RECORDS = st.lists(
    st.tuples(st.sampled_from(["open", "verdict", "close", "event", "dropped"]), st.integers(1, 4)),
    max_size=30,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=_RECORDS, cuts=st.lists(st.integers(0, 4_000), max_size=6))
def test_where_the_intake_pauses_makes_no_difference(
    records: list[tuple[str, int]], cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever order records come in and wherever the log is cut in pieces, events and summary are the same, and agree."""
    lines = b"".join(
        json.dumps(
            {
                "seq": seq,
                "at": seq,
                "cell": CELL,
                "kind": kind,
                "conn": conn,
                "host": f"h{conn}",
                "verdict": "warn",
                "count": seq,
            }
        ).encode()
        + b"\n"
        for seq, (kind, conn) in enumerate(records, 1)
    )
    seen = []
    for pieces in ([], sorted(cut for cut in cuts if cut < len(lines))):
        logs = Logs(tmp_path_factory.mktemp("logs"))
        try:
            for begin, end in zip([0, *pieces], [*pieces, len(lines)], strict=True):
                logs.write(raw=lines[begin:end])
                logs.take()
            logs.die()
            logs.take()
            seen.append((logs.events(), logs.hosts()))
        finally:
            logs.close()
    assert seen[0] == seen[1]
    shown, summed = seen[0]
    assert sum(row["count"] for row in summed) == sum(event["count"] for event in shown)
    assert len(summed) == len({(event["host"], event.get("port"), event["verdict"]) for event in shown})


def test_an_event_has_its_cause_and_outcome(logs: Logs) -> None:
    """What a record says as data is what readers get; the closing record has the last word."""
    logs.write(_open(), _verdict(cause="rule"))
    logs.take()
    (event,) = logs.events()
    assert (event["cause"], "outcome" in event) == ("rule", False)
    logs.write(_close(cause="unreached", outcome="unreached"))
    logs.take()
    (event,) = logs.events()
    assert (event["cause"], event["outcome"]) == ("unreached", "unreached")


def test_an_attempt_that_was_cut_off_says_so_as_data(logs: Logs) -> None:
    """Where the gateway ended first the outcome is `interrupted`, and without a verdict the cause is that nobody judged."""
    logs.write(_open(1), _verdict(1, cause="rule"), _open(2))
    logs.die()
    logs.take()
    told = [(event["cause"], event["outcome"]) for event in logs.events()]
    assert told == [("rule", "interrupted"), ("no-policy", "interrupted")]


def test_what_no_gateway_writes_is_left_out_and_reported_once(
    logs: Logs, caplog: pytest.LogCaptureFixture
) -> None:
    """Unknown causes and oversize fields cost the field, not the event, and one line of the server's log each."""
    for conn in range(1, 4):
        logs.write(_verdict(conn, cause="because", reason="x" * 1001, count=2**70), _close(conn, outcome=7))
    logs.take()
    found = logs.events()
    assert len(found) == 3
    assert not {"cause", "outcome", "reason"} & found[0].keys()
    assert found[0]["count"] == 1
    said = [record.message for record in caplog.records]
    assert sorted(line.split("invalid ")[1].split(";")[0] for line in said) == [
        "cause",
        "count",
        "outcome",
        "reason",
    ]


OTHER = "sb_00112233445566aa"


def test_a_worker_is_believed_for_its_own_cells_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its log waits where it first writes of a cell that nobody knows of; what it may not write is left out, and reported once."""
    serving = Serving()
    logs = Logs(tmp_path, serving)
    logs.store.write_now(lambda connection: serving.note(connection, [(CELL, 0)]))
    logs.write({"kind": "event", "conn": 1, "host": "own.test", "verdict": "blocked"})
    for conn in (2, 3):
        logs.write(
            {"kind": "event", "conn": conn, "cell": OTHER, "host": "lie.test", "verdict": "allowed"},
            {"kind": "event", "conn": conn + 10, "cell": None, "host": "lie.test", "verdict": "allowed"},
        )
    logs.write({"kind": "event", "conn": 4, "host": "later.test", "verdict": "blocked"})
    logs.die()
    taken = logs.store.write_now(logs.ingest.take)
    assert taken.asked == {(OTHER, 0)}
    assert not taken.finished
    assert [event["host"] for event in logs.events()] == ["own.test"]
    # Nothing goes on before the keeper has spoken.
    assert logs.store.write_now(logs.ingest.take).shown == 0
    serving.refute(OTHER, 0)
    assert logs.take() == 1
    assert {event["host"] for event in logs.events()} == {"own.test", "later.test"}
    assert [record.getMessage() for record in caplog.records if "invalid cell" in record.getMessage()] != []
    assert len([record for record in caplog.records if "invalid cell" in record.getMessage()]) == 1
    assert not list(logs.directory.iterdir())
    logs.store.close()


def test_a_cell_that_came_to_a_worker_meanwhile_loses_nothing(tmp_path: Path) -> None:
    """Once the keeper says that the worker has the cell, its log is taken in from where it waited, each record once."""
    serving = Serving()
    logs = Logs(tmp_path, serving)
    run = "1700000000000000-4242-5"
    for conn in (1, 2):
        logs.write({"kind": "event", "conn": conn, "host": f"{conn}.test", "verdict": "blocked"}, run=run)
    assert logs.store.write_now(logs.ingest.take).asked == {(CELL, 5)}
    logs.store.write_now(lambda connection: serving.note(connection, [(CELL, 0), (CELL, 5)]))
    assert logs.take() == 2
    assert serving.fresh({CELL: [0, 5, 6]}) == [(CELL, 6)]
    # The next control plane finds it in the store.
    assert logs.store.write_now(lambda connection: Serving().owns(connection, CELL, 5)) is True
    assert logs.store.write_now(lambda connection: Serving().owns(connection, CELL, 6)) is None
    logs.die(run)
    logs.store.close()


def test_the_summary_follows_an_attempt_to_its_end(logs: Logs) -> None:
    """Bytes and outcome of an attempt that closes later, and counts of repeats, are in its row."""
    logs.write(
        _open(), _verdict(), _open(2, "b.test"), {**_verdict(2, "blocked", host="b.test"), "kind": "event"}
    )
    logs.take()
    first = {row["host"]: (row["count"], row["reached"], row["bytes_out"]) for row in logs.hosts()}
    assert first == {"a.test": (1, 1, 0), "b.test": (1, 0, 0)}
    logs.write(
        _close(outcome="unreached"), _open(3, "b.test"), {"kind": "fold", "conn": 3, "into": 2, "count": 5}
    )
    logs.take()
    then = {row["host"]: (row["count"], row["reached"], row["bytes_out"]) for row in logs.hosts()}
    assert then == {"a.test": (1, 0, 20), "b.test": (5, 0, 0)}


def test_what_was_rotated_out_is_said(logs: Logs) -> None:
    """A page of events says of whom how many earlier ones made room, unless they are from before the time asked for."""
    for conn in range(1, 131):
        logs.write(_verdict(conn, host=f"h{conn}.test"))
    logs.take()
    logs.store.write_now(lambda connection: retention.rotate(connection, Retention(events=100)))

    def rotated(**query: Any) -> list[dict[str, Any]]:
        return list(logs.store.write_now(lambda connection: events.page(connection, Query(**query))).rotated)

    said = {"sandbox_name": CELL, "sandbox_id": CELL, "events": 30, "before": "2023-11-14T22:13:20.000031Z"}
    assert rotated() == rotated(name=CELL) == rotated(since=1_700_000_000_000_030) == [said]
    assert rotated(since=1_700_000_000_000_031) == []


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (Query(name=CELL, verdicts=("blocked",), limit=1), "events_against"),
        (Query(name=CELL, verdicts=("warn", "blocked"), limit=1), "events_against"),
        (Query(name=CELL, outcomes=("unreached",), limit=1), "events_lost"),
        (Query(name=CELL, outcomes=("unresolved", "unreached"), limit=1), "events_lost"),
        (Query(name=CELL, limit=5), "events_subject"),
    ],
)
def test_what_is_asked_for_most_has_an_index(logs: Logs, query: Query, index: str) -> None:
    """The last refusal, the last that was not reached and the newest events are found without reading a sandbox's whole log."""
    logs.write(_verdict(), _close())
    logs.take()
    said: list[str] = []

    def work(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(said.append)
        events.page(connection, query)
        connection.set_trace_callback(None)
        for sql in said:
            if "OFFSET" in sql:
                plan = [row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
                assert any(index in detail for detail in plan), plan
                assert not any("TEMP B-TREE" in detail for detail in plan), plan
                return
        raise AssertionError(said)

    logs.store.write_now(work)
