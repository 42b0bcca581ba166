"""Logs as a gateway writes them, a store, and the way from one to the other."""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from irons_local.control.audit import events, hosts_tried
from irons_local.control.audit.events import Query
from irons_local.control.audit.hosts_tried import HostQuery
from irons_local.control.audit.ingest import Ingest
from irons_local.control.audit.serving import Serving
from irons_local.control.store.database import Store

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


def open_record(conn: int = 1, host: str = "a.test", port: int = 443) -> dict[str, Any]:
    """The record of an attempt that was accepted."""
    return {"kind": "open", "conn": conn, "host": host, "port": port, "protocol": "tcp"}


def verdict_record(conn: int = 1, verdict: str = "allowed", **more: Any) -> dict[str, Any]:
    """The record of what was decided."""
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


def close_record(conn: int = 1, **more: Any) -> dict[str, Any]:
    """The record of how an attempt ended."""
    said = {"bytes_in": 10, "bytes_out": 20, "duration_ms": 3.7, "ended": "client closed"}
    return {"kind": "close", "conn": conn, **said, **more}
