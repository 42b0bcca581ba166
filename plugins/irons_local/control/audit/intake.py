"""One piece of one log on its way into the store: records become attempts, attempts become events."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from irons_local.control.audit.records import INTERRUPTED, fields, row
from irons_local.control.audit.summing import Domains, Sums
from irons_policy.causes import Outcome
from irons_policy.event import LARGEST, RECORDED

T = TypeVar("T")

_COLUMNS = ("id", "subject", "at", *RECORDED, "domain")
_INSERT = f"INSERT INTO events ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"  # noqa: S608 (names of ours)
_COUNTED = ("subject", "host", "port", "verdict", "outcome", "at", "count", "bytes_in", "bytes_out")
"""What the summary has of an event, which is remembered for as long as the event may change."""


def _go_on() -> None:
    """Nothing waits."""


class RunIntake:
    """Takes records of one run, in order, inside a transaction of its caller.

    Args:
        connection: the store's.
        run: whose records.
        seq: the last record that was taken before.
        counts: reads how often the events of the run happened, by their numbers, as its writer noted next to the log;
            asked once no one will write there any more.
        domains: what hosts are summed up by.
        report: called with the name of each field that no gateway which works as it should would write.
        pause: called again and again.

    Attributes:
        seq: the last record that was taken; those up to it are passed over.
        ended: the run says, or it was found, that nothing more will come.
        changed: events that readers may have seen before and that are not as they were, with the subject of each.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        run: str,
        seq: int,
        counts: Callable[[], Mapping[int, int]],
        domains: Domains,
        report: Callable[[str], None],
        pause: Callable[[], None] = _go_on,
    ) -> None:
        self.seq = seq
        self.ended = False
        self.changed: dict[int, int] = {}
        self._connection = connection
        self._run = run
        self._noted = counts
        self._report = report
        self._pause = pause
        self._domains = domains
        self._sums = Sums(connection, domains)
        self._subjects: dict[str, int] = {}
        self._attempts: dict[int, dict[str, Any]] = {}
        self._new: dict[int, dict[str, Any]] = {}
        self._counts: Counter[int] = Counter()
        last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        self._last = 0 if last is None else int(last[0])
        # Nothing is asked for attempts beyond it: most of a piece are new.
        kept = connection.execute("SELECT max(conn) FROM attempts WHERE run = ?", (run,)).fetchone()[0]
        self._kept = -1 if kept is None else int(kept)

    def record(self, record: dict[str, Any]) -> None:
        """Take one record; one that was taken before, or is invalid, changes nothing."""
        seq, kind = record.get("seq"), record.get("kind")
        if not isinstance(seq, int) or not self.seq < seq <= LARGEST:
            return
        self.seq = seq
        conn = record.get("conn")
        if kind == "end":
            self.end()
        elif isinstance(conn, int) and 0 <= conn <= LARGEST:
            self._speak(str(kind), conn, record)

    def end(self) -> None:
        """End the run: an attempt that was not closed was interrupted, and is shown even without a verdict."""
        if self.ended:
            return
        self.ended = True
        noted = self._noted()
        stored = self._connection.execute("SELECT conn FROM attempts WHERE run = ?", (self._run,)).fetchall()
        for conn in sorted({*self._attempts, *(int(each["conn"]) for each in stored)}):
            attempt = self._attempt(conn)
            if attempt is None:
                continue
            self._forget(conn, attempt)
            if not attempt["whole"]:
                self._show(conn, attempt, {"ended": INTERRUPTED, "outcome": Outcome.INTERRUPTED.value})
            elif noted.get(conn, 0) > 1:
                self._count(attempt, noted[conn])

    def finish(self) -> int:
        """Write everything down.

        Returns:
            How many events readers had not seen before.
        """
        rows = self._new.values()
        for made in rows:
            self._pause()
            made["domain"] = self._domains(made["host"])
            self._sums.add(made)
        self._connection.executemany(_INSERT, self._paced(rows))
        for subject, count in self._counts.items():
            self._connection.execute("UPDATE subjects SET events = events + ? WHERE id = ?", (count, subject))
        self._connection.executemany(
            "INSERT OR REPLACE INTO attempts (run, conn, event, opened) VALUES (?, ?, ?, ?)",
            [
                (
                    self._run,
                    conn,
                    attempt["event"],
                    json.dumps(
                        {
                            "said": attempt["said"],
                            "whole": attempt["whole"],
                            "whole_at": attempt["whole_at"],
                            "counted": self._counted(attempt),
                        }
                    ),
                )
                for conn, attempt in self._attempts.items()
            ],
        )
        self._sums.write()
        return len(rows)

    def _paced(self, rows: Iterable[T]) -> Iterator[T]:
        for made in rows:
            yield made
            self._pause()

    def _speak(self, kind: str, conn: int, record: dict[str, Any]) -> None:
        attempt = self._attempt(conn)
        if attempt is None:
            attempt = {
                "event": None,
                "said": {},
                "whole": False,
                "whole_at": None,
                "stored": False,
                "counted": None,
            }
            self._attempts[conn] = attempt
        if kind == "open":
            # Recorded again where its host became known later.
            attempt["said"] = self._fields(record) | {
                key: value for key, value in attempt["said"].items() if key == "at"
            }
        elif kind == "verdict":
            self._show(conn, attempt, self._fields(record))
        elif kind == "event":
            _became_whole(attempt, record)
            self._show(conn, attempt, self._fields(record))
        elif kind == "dropped":
            _became_whole(attempt, record)
            self._show(
                conn, attempt, {"host": "*", "verdict": "blocked", "allowed": 0} | self._fields(record)
            )
        elif kind == "fold":
            self._fold(conn, attempt, record)
        elif kind == "close":
            self._show(conn, attempt, self._fields(record))
            self._forget(conn, attempt)

    def _fold(self, conn: int, attempt: dict[str, Any], record: dict[str, Any]) -> None:
        """The attempt is a repeat of an event that was recorded already."""
        into, count = record.get("into"), record.get("count")
        known = self._attempt(into) if isinstance(into, int) and 0 <= into <= LARGEST else None
        if known is None or known is attempt or known["event"] is None or attempt["event"] is not None:
            return
        self._forget(conn, attempt)
        if isinstance(count, int) and 0 < count <= LARGEST:
            self._count(known, count)

    def _count(self, attempt: dict[str, Any], count: int) -> None:
        """Raise an event's count: those that were noted earlier are less."""
        fresh = self._new.get(attempt["event"])
        if fresh is not None:
            fresh["count"] = max(int(fresh["count"]), count)
        else:
            known = self._counted(attempt)
            if known is not None:
                if count > int(known["count"]):
                    self.changed[attempt["event"]] = known["subject"]
                self._sum(attempt, {"count": max(int(known["count"]), count)})
            self._connection.execute(
                "UPDATE events SET count = max(count, ?) WHERE id = ?", (count, attempt["event"])
            )

    def _attempt(self, conn: int) -> dict[str, Any] | None:
        known = self._attempts.get(conn)
        if known is not None:
            return known
        if conn > self._kept:
            return None
        kept = self._connection.execute(
            "SELECT event, opened FROM attempts WHERE run = ? AND conn = ?", (self._run, conn)
        ).fetchone()
        if kept is None:
            return None
        attempt = {
            "event": kept["event"],
            "whole_at": None,
            "stored": True,
            "counted": None,
            **json.loads(kept["opened"]),
        }
        self._attempts[conn] = attempt
        return attempt

    def _show(self, conn: int, attempt: dict[str, Any], said: dict[str, Any]) -> None:
        """Make an attempt visible with what is now known of it, or bring what is visible up to date."""
        if attempt["event"] is None:
            self._last += 1
            attempt["event"] = self._last
            # The time of an attempt is that of its first record.
            made = row(
                self._last, attempt["said"] | said | {"at": attempt["said"].get("at", said.get("at", 0))}
            )
            made["subject"] = self._subject(made.pop("cell"))
            # As the gateway's log lines have it.
            made["connection"] = f"{self._run}.{conn}"
            self._counts[made["subject"]] += 1
            self._new[self._last] = made
            # Only what is not recorded yet has to be remembered until the next record.
            attempt["said"] = {}
            return
        said = {name: value for name, value in said.items() if name not in ("cell", "at", "connection")}
        fresh = self._new.get(attempt["event"])
        if fresh is not None:
            fresh.update(said)
        elif said:
            if "host" in said:
                said["domain"] = self._domains(said["host"])
            self._sum(attempt, said)
            if attempt["counted"] is not None:
                self.changed[attempt["event"]] = attempt["counted"]["subject"]
            settings = ", ".join(f"{name} = :{name}" for name in said)
            sql = f"UPDATE events SET {settings} WHERE id = :id"  # noqa: S608 (names of ours)
            self._connection.execute(sql, {**said, "id": attempt["event"]})

    def _sum(self, attempt: dict[str, Any], said: Mapping[str, Any]) -> None:
        """Have the summary count a stored event as it is now known."""
        before = self._counted(attempt)
        if before is not None:
            after = before | {name: said[name] for name in _COUNTED if name in said}
            self._sums.replace(before, after)
            attempt["counted"] = after

    def _counted(self, attempt: dict[str, Any]) -> dict[str, Any] | None:
        """What the summary has of an attempt; None where it has nothing."""
        event = attempt["event"]
        if event is None:
            return None
        fresh = self._new.get(event)
        if fresh is not None:
            return {name: fresh[name] for name in _COUNTED}
        known: dict[str, Any] | None = attempt["counted"]
        if known is None:
            # It was taken in before there was a summary, which was then made of the events that there were.
            columns = ", ".join(_COUNTED)
            sql = f"SELECT {columns} FROM events WHERE id = ?"  # noqa: S608 (names of ours)
            found = self._connection.execute(sql, (event,)).fetchone()
            known = None if found is None else dict(found)
        return known

    def _forget(self, conn: int, attempt: dict[str, Any]) -> None:
        self._attempts.pop(conn, None)
        if attempt["stored"]:
            self._connection.execute("DELETE FROM attempts WHERE run = ? AND conn = ?", (self._run, conn))

    def _fields(self, record: dict[str, Any]) -> dict[str, Any]:
        return fields(record, self._report)

    def _subject(self, cell: str) -> int:
        known = self._subjects.get(cell)
        if known is None:
            self._connection.execute(
                "INSERT OR IGNORE INTO subjects (sandbox, name) VALUES (?, ?)", (cell, cell)
            )
            found = self._connection.execute("SELECT id FROM subjects WHERE sandbox = ?", (cell,)).fetchone()
            known = self._subjects[cell] = int(found[0])
        return known


def _became_whole(attempt: dict[str, Any], record: Mapping[str, Any]) -> None:
    """Note when an event was first written whole: repeats raise its count for a second from then on."""
    attempt["whole"] = True
    at = record.get("at")
    if attempt["whole_at"] is None and isinstance(at, int):
        attempt["whole_at"] = at
