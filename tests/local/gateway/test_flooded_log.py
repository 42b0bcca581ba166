"""A sandbox that floods its audit log, from its connections to what readers see."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from tests.e2e.lab import eventually
from tests.local.gateway.stand import CELL, Stand

from irons_local.control.audit import events, hosts_tried, retention
from irons_local.control.audit.events import Query
from irons_local.control.audit.hosts_tried import HostQuery
from irons_local.control.audit.ingest import Ingest
from irons_local.control.audit.retention import Retention
from irons_local.control.store.database import Store

VISITED, FLOODED = "web.example.test", "other.example.test"
GET = "GET /hello HTTP/1.1\nHost: {}\nConnection: close\n\n"
TIMES = 150


def _over(event: dict[str, Any]) -> bool:
    return event.get("host") == FLOODED and "ended" in event


def test_a_visit_survives_a_flood_that_connects_and_closes(stand: Stand, tmp_path: Path) -> None:
    """In warn, one visit and then many connections to a port that nothing serves: the visit, and its row, are there."""
    stand.policy("warn")
    stand.http(VISITED, GET.format(VISITED))
    for _ in range(TIMES):
        stand.connect(FLOODED, 81).close()
    stand.event(host=VISITED, kind="close")
    # The last of them may not have been accepted yet.
    eventually(lambda: len([each for each in stand.events() if _over(each)]) == TIMES)
    stand.stop()
    with closing(Store(tmp_path / "irons.db")) as store:
        ingest = Ingest(stand.home / "audit")
        while store.write_now(ingest.take).more:
            continue
        gone = store.write_now(lambda connection: retention.rotate(connection, Retention(events=50)))
        page = store.write_now(lambda connection: events.page(connection, Query(name=CELL)))
        rows = store.write_now(lambda connection: hosts_tried.hosts(connection, HostQuery(CELL)))
    assert gone > 0
    assert [event["outcome"] for event in page.events if event["host"] == VISITED] == ["reached"]
    assert [rotated["events"] for rotated in page.rotated] == [gone]
    (visit,) = [row for row in rows if row["host"] == VISITED]
    assert (visit["count"], visit["reached"]) == (1, 1)
    assert sum(row["count"] for row in rows if row["host"] == FLOODED) == TIMES
