"""Kill -9 at any moment of a connection: what the internet saw is in the log, once, and the log comes into the store whole."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

from tests.e2e.lab import eventually
from tests.local.gateway.stand import Stand

from irons_plugins.local.control.ingest import Ingest
from irons_plugins.local.store import Store

POINTS = 16
AT_ONCE = 6
STEP = 0.0015
"""Seconds by which each kill comes later than the one before, counted from the first byte; a connection takes about 5 ms."""


def test_whatever_arrived_is_in_the_log_once(stand: Stand, tmp_path: Path) -> None:
    """Connections under way at each of many kills: no contact without a record, no record twice, none unreadable."""
    places = {
        f"k{point}-{number}.test": f"203.0.113.{100 + point * AT_ONCE + number}"
        for point in range(POINTS)
        for number in range(AT_ONCE)
    }
    stand.policy("deny", ["*.test"], hosts={name: [address] for name, address in places.items()})
    for point in range(POINTS):
        hosts = [name for name in places if name.startswith(f"k{point}-")]
        addresses = {name: stand.resolve(name) for name in hosts}
        threads = [
            threading.Thread(target=_ask, args=(stand, addresses[name], name), daemon=True) for name in hosts
        ]
        for thread in threads:
            thread.start()
        threading.Event().wait(point * STEP)
        stand.kill()
        stand.start()
        for thread in threads:
            thread.join(20)
    stand.stop()
    arrived = {each["server"] for each in stand.arrivals() if each["kind"] == "connect"}
    assert arrived
    log = {
        (each["run"], each["conn"]): str(each["address"])
        for each in stand.records()
        if each["kind"] == "verdict" and "address" in each
    }
    assert arrived <= set(log.values())
    store, ingest = Store(tmp_path / "irons.db"), Ingest(stand.home / "audit")
    try:
        attempts = {(each["run"], each["conn"]) for each in stand.records() if "conn" in each}
        rows = eventually(lambda: _taken(store, ingest, len(attempts)), what="every log to be taken in")
    finally:
        store.close()
    assert len(rows) == len(attempts)
    assert sorted(row["address"] for row in rows if row["address"]) == sorted(log.values())
    assert all(row["ended"] for row in rows)


def _ask(stand: Stand, address: str, name: str) -> None:
    with contextlib.suppress(OSError), stand.connect(address, 80) as program:
        program.send(f"GET /{name} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()).rest()


def _taken(store: Store, ingest: Ingest, wanted: int) -> list[sqlite3.Row] | None:
    for _ in range(2):
        store.write_now(ingest.take)
    rows = store.write_now(lambda connection: connection.execute("SELECT * FROM events").fetchall())
    return rows if len(rows) >= wanted else None
