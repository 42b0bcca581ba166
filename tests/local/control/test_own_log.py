"""The log and the lists of an API key of the role `user`: what is read for them, and in which order."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.local.control.lab import run
from tests.local.control.team import team
from tests.local.control.test_audit_api import Writer

from irons_local.control.audit import events
from irons_local.control.audit.events import Page, Query
from irons_local.control.store.database import Store

KEY = "key_1"
EVENTS = 400
FAR = 1_000_000
"""An id that the store has given, so that most ids after a page token are of others."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with events of nine sandboxes, of which the key created four: one has none, and one is gone."""
    made = Store(tmp_path / "irons.db")
    draw = random.Random(7)

    def fill(connection: sqlite3.Connection) -> None:
        for subject in range(1, 10):
            connection.execute(
                "INSERT INTO subjects (id, sandbox, name, creator, gone_at) VALUES (?, ?, ?, ?, ?)",
                (
                    subject,
                    f"sb_{subject}",
                    f"s{subject}",
                    KEY if subject < 5 else "key_2",
                    1 if subject == 2 else None,
                ),
            )
        for number in range(EVENTS):
            subject, verdict = (
                draw.choice([1, 2, 3, 5, 6, 7, 8, 9]),
                draw.choice(["allowed", "blocked", "warn"]),
            )
            connection.execute(
                "INSERT INTO events (subject, at, host, allowed, verdict, count) VALUES (?, ?, ?, ?, ?, 1)",
                (subject, number, f"h{number}.example", verdict != "blocked", verdict),
            )
            connection.execute("UPDATE subjects SET events = events + 1 WHERE id = ?", (subject,))

    made.write_now(fill)
    yield made
    made.close()


def page(store: Store, query: Query) -> Page:
    """A page of events."""
    return store.write_now(lambda connection: events.page(connection, query))


def last_given(store: Store, last: int) -> None:
    """Have the store given ids up to this one."""
    store.write_now(
        lambda connection: connection.execute(
            "UPDATE sqlite_sequence SET seq = ? WHERE name = 'events'", (last,)
        )
    )


@pytest.mark.parametrize("last", [EVENTS, FAR])
@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    "more", [{}, {"limit": 25, "tells_rest": True}, {"verdicts": ("blocked", "warn")}, {"columns": ("id",)}]
)
def test_the_pages_of_a_key_are_those_of_all_without_others(
    store: Store, last: int, size: int, more: dict[str, Any]
) -> None:
    """Page by page, newest or from the start, filtered or in columns: all events of the key's sandboxes, in order."""
    last_given(store, last)
    every = page(store, Query(size=EVENTS, verdicts=more.get("verdicts", ()))).events
    wanted = [each["id"] for each in every if int(each["sandbox_id"][3:]) < 5]
    left_out = len(wanted[: -more["limit"]]) if "limit" in more else 0
    wanted = wanted[-more.get("limit", EVENTS) :]
    found: list[int] = []
    seen = page(store, Query(creator=KEY, size=size, **more))
    assert seen.left_out == left_out
    while len(found) <= EVENTS:
        ids = [each["id"] for each in seen.events] or [*(seen.columns or {}).get("id", ())]
        if not ids:
            break
        found += ids
        more.pop("limit", None)
        seen = page(store, Query(creator=KEY, size=size, after=seen.token, **more))
    assert found == wanted
    assert seen.token == last


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """What is asked of the writing connection."""
    said: list[str] = []
    store.write_now(lambda connection: connection.set_trace_callback(said.append))
    yield said
    store.write_now(lambda connection: connection.set_trace_callback(None))


@pytest.mark.parametrize("last", [EVENTS, FAR])
@pytest.mark.parametrize(
    "query", [Query(creator=KEY), Query(creator=KEY, limit=5), Query(creator=KEY, columns=("host",))]
)
def test_a_page_of_a_key_s_log_sorts_nothing_and_reads_no_other_s(
    store: Store, last: int, query: Query
) -> None:
    """Neither are all its events sorted for one page, nor is the list of all sandboxes read."""
    last_given(store, last)
    with statements(store) as said:
        page(store, query)

    def plans(connection: sqlite3.Connection) -> list[str]:
        asked = [sql for sql in said if "events" in sql and sql.startswith("SELECT")]
        return [
            row["detail"]
            for sql in asked
            for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")
            if "rotated_before" not in sql
        ]

    found = store.write_now(plans)
    assert any("subjects_creator" in each for each in found)
    assert not [
        each for each in found if "TEMP B-TREE" in each or each.startswith(("SCAN subjects", "SCAN events"))
    ], found


def test_what_a_key_created_is_read_once_and_only_where_it_is_needed(tmp_path: Path) -> None:
    """A list and a look at the questions read one of the tables that have it, and the log none beside its own query."""

    async def work() -> None:
        async with team(tmp_path) as found:
            writer = Writer(found.lab)
            await writer.attempt(found.named["mine"]["cell"], "a.test")
            writer.close()
            said: list[str] = []
            store = found.lab.server.plane.store
            await store.read(lambda connection: connection.set_trace_callback(said.append))

            async def read(client: httpx.AsyncClient, path: str) -> list[str]:
                said.clear()
                assert (await client.get(path)).status_code == 200
                return [sql for sql in said if "WHERE creator = " in sql]

            for path, table in (
                ("/sandboxes", "sandboxes"),
                ("/snapshots", "snapshots"),
                ("/egress/mode", "sandboxes"),
                ("/questions", "sandboxes"),
                ("/audit/egress?limit=5", None),
            ):
                asked = await read(found.user, path)
                assert ["sandboxes" in sql or "snapshots" in sql for sql in asked].count(True) == (
                    table is not None
                ), asked
                assert table is None or f"FROM {table} " in asked[0]
                assert await read(found.admin, path) == await read(found.auditor, path) == []
            await store.read(lambda connection: connection.set_trace_callback(None))

    run(work())
