"""The gateway's logs become events exactly once, whoever dies when."""

from __future__ import annotations

import json
import sqlite3
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.local.control.gateway_logs import CELL, RUN, Logs, close_record, open_record, verdict_record

from irons_local.control.audit import events, retention
from irons_local.control.audit.events import Query
from irons_local.control.audit.retention import Retention


def test_one_attempt_is_one_event(logs: Logs) -> None:
    """Opening, verdict and closing of one attempt make one event with all that they say."""
    logs.write(open_record(), verdict_record(), close_record())
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
        "connection": f"{RUN}.1",
    }
    assert logs.rows("attempts") == 0


def test_an_event_is_seen_at_its_verdict(logs: Logs) -> None:
    """An opening alone shows nothing; the closing updates the event, which is not followed again."""
    logs.write(open_record())
    assert logs.take() == 0
    assert logs.events() == []
    logs.write(verdict_record())
    assert logs.take() == 1
    assert "ended" not in logs.events()[0]
    logs.write(close_record())
    assert logs.take() == 0
    assert logs.events()[0]["ended"] == "client closed"
    assert logs.events(after=1) == []


def test_ids_follow_the_verdicts(logs: Logs) -> None:
    """An attempt that was opened first and judged last comes last, so that a token never skips it."""
    logs.write(open_record(1, "slow.test"), open_record(2, "fast.test"), verdict_record(2))
    logs.take()
    logs.write(verdict_record(1))
    logs.take()
    assert [(event["id"], event["host"]) for event in logs.events()] == [(1, "fast.test"), (2, "slow.test")]
    assert logs.events()[1]["timestamp"] < logs.events()[0]["timestamp"]


def test_a_killed_gateway_leaves_interrupted_attempts(logs: Logs) -> None:
    """Attempts that were not closed end as `interrupted`, one without a verdict too; the log is removed."""
    logs.write(
        open_record(1),
        verdict_record(1),
        open_record(2, "never.test"),
        open_record(3),
        verdict_record(3),
        close_record(3),
        raw=b'{"seq": 9, "ki',
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
    logs.write(open_record(), verdict_record(), close_record(), {"kind": "end"})
    logs.write(open_record(7), run=other)
    logs.take()
    assert [path.name for path in logs.directory.iterdir()] == [f"{other}.jsonl"]


def test_a_living_log_is_never_removed(logs: Logs) -> None:
    """As long as its writer lives, a log stays, read to its end or not."""
    logs.write(open_record(), verdict_record(), close_record())
    logs.take()
    logs.take()
    assert len(list(logs.directory.iterdir())) == 1


def test_a_log_that_vanished_is_closed(logs: Logs) -> None:
    """Where someone removed a log, its open attempts end as interrupted, and nothing is waited for."""
    logs.write(open_record(), verdict_record())
    logs.take()
    (logs.directory / f"{RUN}.jsonl").unlink()
    logs.take()
    assert logs.events()[0]["ended"] == "interrupted"
    assert logs.rows("runs") == 0


def test_a_repeated_event_updates_its_count(logs: Logs) -> None:
    """An event that is reported again is the same event with another count, never a second one."""
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
    logs.write(open_record(1), _refusal(1), open_record(2))
    if between:
        assert logs.take() == 1
    logs.write({"kind": "fold", "conn": 2, "into": 1, "count": 2}, open_record(3))
    logs.write({"kind": "fold", "conn": 3, "into": 1, "count": 3})
    logs.take()
    logs.die()
    logs.take()
    assert [(event["host"], event["count"], event.get("ended")) for event in logs.events()] == [
        ("192.0.2.1", 3, None)
    ]


def test_a_repeat_of_nothing_stays_an_event_of_its_own(logs: Logs) -> None:
    """A fold into what is not an event hides no attempt."""
    logs.write(open_record(1), {"kind": "fold", "conn": 1, "into": 9, "count": 2})
    logs.write(open_record(2), {"kind": "fold", "conn": 2, "into": 2, "count": 2})
    logs.write(
        open_record(3),
        {"kind": "fold", "conn": 3, "into": 1, "count": 2},
        {"kind": "fold", "conn": 3, "into": "x"},
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
    """The greater of the log's count and the one next to it is the count; taken in again it is unchanged."""
    logs.write(_refusal(1), _refusal(1, 2), _refusal(2, 7), _refusal(3), verdict_record(4))
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
    logs.write(open_record(), verdict_record(), close_record())
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
        verdict_record(3, host="fine.test"),
    )
    logs.take()
    assert [event["host"] for event in logs.events()][-1] == "fine.test"
    assert all(len(event["host"]) <= 255 for event in logs.events())


def test_links_and_directories_are_no_logs(logs: Logs, tmp_path: Path) -> None:
    """The directory may belong to the gateway's own user: only plain files are read, and only with a run's name."""
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"seq": 1, **verdict_record(1, host="stolen.test")}) + "\n")
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
        logs.write(verdict_record(conn, host=f"h{conn}.test"))
    logs.write({**verdict_record(200), "cell": other})
    logs.take()
    logs.store.write_now(lambda connection: retention.rotate(connection, Retention(events=100)))
    mine, others = logs.events(name=CELL), logs.events(name=other)
    assert (len(mine), mine[0]["host"], len(others)) == (100, "h31.test", 1)
    logs.write(verdict_record(300))
    logs.take()
    assert logs.events()[-1]["id"] == 132


def test_old_events_expire_and_ids_are_not_used_again(logs: Logs) -> None:
    """Events older than the days kept go; the next event still has a new id."""
    logs.write(verdict_record(1), verdict_record(2))
    logs.take()
    now = 1_700_000_000_000_000 + 91 * 86_400_000_000
    logs.store.write_now(lambda connection: retention.expire(connection, Retention(), now))
    assert logs.events() == []
    logs.write(verdict_record(3))
    logs.take()
    assert logs.events()[0]["id"] == 3


def test_pages_are_complete_and_in_order(logs: Logs) -> None:
    """Page after page gives every event once, in order; filters and the newest so many hold."""
    for conn in range(1, 2_502):
        verdict = "blocked" if conn % 5 == 0 else "allowed"
        logs.write(verdict_record(conn, verdict, host=f"h{conn}.{'even' if conn % 2 == 0 else 'odd'}.test"))
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


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=_RECORDS, cuts=st.lists(st.integers(0, 4_000), max_size=6))
def test_where_the_intake_pauses_makes_no_difference(
    records: list[tuple[str, int]], cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No matter what order records come in and wherever the log is cut in pieces, events and summary are the same, and agree."""
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
