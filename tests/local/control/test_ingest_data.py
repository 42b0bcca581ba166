"""What the intake takes as data, which workers it believes, and what it sums up."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.gateway_logs import CELL, RUN, Logs, close_record, open_record, verdict_record

from irons_local.control.audit import events, retention
from irons_local.control.audit.events import Query
from irons_local.control.audit.ingest import Ingest, IngestResult
from irons_local.control.audit.log import FOLLOWED, LONGEST_WAIT, UNREAD, Audit
from irons_local.control.audit.retention import Retention
from irons_local.control.audit.serving import Serving


def test_an_event_has_its_cause_and_outcome(logs: Logs) -> None:
    """What a record says as data is what readers get; the closing record has the last word."""
    logs.write(open_record(), verdict_record(cause="rule"))
    logs.take()
    (event,) = logs.events()
    assert (event["cause"], "outcome" in event) == ("rule", False)
    logs.write(close_record(cause="unreached", outcome="unreached"))
    logs.take()
    (event,) = logs.events()
    assert (event["cause"], event["outcome"]) == ("unreached", "unreached")


def test_an_attempt_that_was_cut_off_says_so_as_data(logs: Logs) -> None:
    """Where the gateway ended first the outcome is `interrupted`, and without a verdict the cause is that no one judged."""
    logs.write(open_record(1), verdict_record(1, cause="rule"), open_record(2))
    logs.die()
    logs.take()
    told = [(event["cause"], event["outcome"]) for event in logs.events()]
    assert told == [("rule", "interrupted"), ("no-policy", "interrupted")]


def test_what_no_gateway_writes_is_left_out_and_reported_once(
    logs: Logs, caplog: pytest.LogCaptureFixture
) -> None:
    """Unknown causes and oversize fields cost the field, not the event, and one line of the server's log each."""
    for conn in range(1, 4):
        logs.write(
            verdict_record(conn, cause="because", reason="x" * 1001, count=2**70),
            close_record(conn, outcome=7),
        )
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
    """Its log waits where it first writes of a cell that no one knows of; what it may not write is left out, and reported once."""
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
        open_record(),
        verdict_record(),
        open_record(2, "b.test"),
        {**verdict_record(2, "blocked", host="b.test"), "kind": "event"},
    )
    logs.take()
    first = {row["host"]: (row["count"], row["reached"], row["bytes_out"]) for row in logs.hosts()}
    assert first == {"a.test": (1, 1, 0), "b.test": (1, 0, 0)}
    logs.write(
        close_record(outcome="unreached"),
        open_record(3, "b.test"),
        {"kind": "fold", "conn": 3, "into": 2, "count": 5},
    )
    logs.take()
    then = {row["host"]: (row["count"], row["reached"], row["bytes_out"]) for row in logs.hosts()}
    assert then == {"a.test": (1, 0, 20), "b.test": (5, 0, 0)}


def test_what_was_rotated_out_is_said(logs: Logs) -> None:
    """A page of events says of which sandbox how many earlier ones made room, unless they are from before the time asked for."""
    for conn in range(1, 131):
        logs.write(verdict_record(conn, host=f"h{conn}.test"))
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
    logs.write(verdict_record(), close_record())
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


def test_lines_that_are_not_ascii_leave_the_others_where_they_are(logs: Logs) -> None:
    """A log goes on where it was left, no matter what bytes a gateway wrote in between, and each record is taken once."""
    logs.write(
        verdict_record(1, host="one.test"), raw='{"seq": "né", "kind": "\u20ac"}\n'.encode() + b"\xff\xfe\n"
    )
    logs.write(verdict_record(2, host="two.test"), raw='{"half": "\u20ac'.encode())
    assert logs.take() == 2
    logs.write(raw=b'"}\n')
    logs.write(verdict_record(3, host="three.test"))
    assert logs.take() == 1
    assert [event["host"] for event in logs.events()] == ["one.test", "two.test", "three.test"]


def test_older_events_make_room_as_new_ones_come(logs: Logs) -> None:
    """Only where a sandbox has more than are kept, and a tenth: then what is beyond the number goes."""

    async def follow() -> list[int]:
        audit = Audit(logs.store, logs.ingest, Retention(events=20, days=36_500))
        left = []
        for first in range(1, 41, 8):
            logs.write(*(verdict_record(conn, host=f"h{conn}.test") for conn in range(first, first + 8)))
            await audit.catch_up()
            left.append(len(logs.events()))
        return left

    assert asyncio.run(follow()) == [8, 16, 20, 20, 20]


class _StandingLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes only when a test says so."""

    now = 100.0

    def time(self) -> float:
        """The time."""
        return self.now


class _Counting(Ingest):
    """Counts the looks at the logs."""

    looks = 0

    def take(self, connection: sqlite3.Connection) -> IngestResult:
        """Count one."""
        self.looks += 1
        return super().take(connection)


def test_records_wait_while_no_reader_waits(logs: Logs) -> None:
    """Notices lead to one look, `UNREAD` later; a reader who comes, or waits already, has what was recorded at once."""
    ingest = logs.ingest = _Counting(logs.directory)
    loop = _StandingLoop()

    async def looks() -> int:
        """How many there were: what was to be done at once has begun, and the store does one thing after the other."""
        for _ in range(8):
            await asyncio.sleep(0)
        await logs.store.write(lambda _: None)
        return ingest.looks

    async def looked(count: int) -> None:
        while await looks() < count:  # noqa: ASYNC110 (what holds is in another thread)
            await asyncio.sleep(0)

    async def follow() -> None:
        audit = Audit(logs.store, ingest, Retention(events=100, days=36_500))
        running = asyncio.ensure_future(audit.run())
        await looked(1)
        for conn in (1, 2, 3):
            logs.write(verdict_record(conn))
            audit.poke(RUN)
        assert await looks() == 1
        loop.now += UNREAD
        await looked(2)
        assert len(logs.events()) == 3
        # One that comes after the notice, and one that waits before it.
        logs.write(verdict_record(4))
        audit.poke(RUN)
        token = logs.events()[-1]["id"]
        assert len((await audit.page(Query(after=token, size=10), wait=30.0)).events) == 1
        waits = asyncio.ensure_future(audit.page(Query(after=token + 1, size=10), wait=30.0))
        before = await looks()
        assert not waits.done()
        logs.write(verdict_record(5))
        audit.poke(RUN)
        assert len((await waits).events) == 1
        assert ingest.looks > before
        # None waits any more.
        before = await looks()
        audit.poke(RUN)
        assert await looks() == before
        audit.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(follow())


def test_logs_are_looked_at_without_a_notice(logs: Logs) -> None:
    """Every 10 s; every 2 s once a reader waits, for whom they are looked at in any case."""
    ingest = logs.ingest = _Counting(logs.directory)
    loop = _StandingLoop()

    async def looks_after(seconds: float) -> int:
        loop.now += seconds
        # The store does one thing after the other: a look is one, and what follows the first look another.
        for _ in range(4):
            for _ in range(8):
                await asyncio.sleep(0)
            await logs.store.write(lambda _: None)
        return ingest.looks

    async def follow() -> None:
        audit = Audit(logs.store, ingest, Retention(events=100, days=36_500))
        running = asyncio.ensure_future(audit.run())
        assert [await looks_after(seconds) for seconds in (0, 9, 1, 9, 1)] == [1, 1, 2, 2, 3]
        waits = asyncio.ensure_future(audit.page(Query(size=10), wait=30.0))
        assert [await looks_after(seconds) for seconds in (0, 1, 1, 2)] == [4, 4, 5, 6]
        audit.close()
        running.cancel()
        await asyncio.gather(running, waits, return_exceptions=True)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(follow())


def test_readers_that_wait_are_reported(logs: Logs) -> None:
    """The first one is; another once what is left of the lease is no longer than its wait; one that does not wait never is."""
    loop, leases = _StandingLoop(), list[float]()

    async def follow() -> None:
        audit = Audit(logs.store, logs.ingest, Retention(events=100, days=36_500), followed=leases.append)
        audit.close()
        for passes, reported in ((0.0, 1), (LONGEST_WAIT - 1, 1), (2.0, 2), (2 * FOLLOWED, 3)):
            loop.now += passes
            await audit.page(Query(size=10), wait=30.0)
            assert leases == [FOLLOWED] * reported
            await audit.page(Query(size=10))
            assert len(leases) == reported

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(follow())
