"""Keeps the summary rows in step with the events, in the transaction that takes those in."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from irons_local.control.audit.summary import (
    HOST,
    LARGEST,
    MOST,
    SummaryKey,
    SummaryRow,
    domain_key,
    domain_of,
    fold,
    rest_key,
)
from irons_policy.causes import Outcome

_REACHING = frozenset((None, Outcome.REACHED.value, Outcome.INTERRUPTED.value))
"""Outcomes of attempts that may have reached a server; an attempt without an outcome counts too."""
_KEPT_DOMAINS = 4_096
_WHERE = "subject = ? AND host = ? AND port = ? AND verdict = ? AND passed = ?"
_ADD = (
    "UPDATE summaries SET first = min(first, ?), last = max(last, ?), "  # noqa: S608 (names of ours)
    f"count = max(0, min({LARGEST}, count + ?)), bytes_in = max(0, min({LARGEST}, bytes_in + ?)), "
    f"bytes_out = max(0, min({LARGEST}, bytes_out + ?)) WHERE {_WHERE}"
)
_PUT = (
    "INSERT INTO summaries (subject, host, port, verdict, passed, folded, domain, first, last, count, bytes_in, bytes_out) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class _Change:
    """What one row gains, or loses."""

    __slots__ = ("bytes_in", "bytes_out", "first", "last", "times")

    def __init__(self, at: int) -> None:
        self.first = self.last = at
        self.times = self.bytes_in = self.bytes_out = 0

    def add(self, at: int, last: int, times: int, bytes_in: int, bytes_out: int) -> None:
        """Count attempts between two times; less than none are taken back."""
        self.first, self.last = min(self.first, at), max(self.last, last)
        self.times += times
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out

    def join(self, other: _Change) -> None:
        """Take in what another row gains."""
        self.add(other.first, other.last, other.times, other.bytes_in, other.bytes_out)

    def __bool__(self) -> bool:
        return bool(self.times or self.bytes_in or self.bytes_out)


class Domains:
    """Remembers what hosts are folded by: a sandbox asks for the same few again and again."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, host: str) -> str:
        """Return the domain of a host."""
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= _KEPT_DOMAINS:
                self._known.clear()
            known = self._known[host] = domain_of(host)
        return known


class Sums:
    """Collects what a piece of a log changes, and writes it at the end.

    Args:
        connection: in a write transaction.
        domains: what hosts are folded by.
        most: rows that one sandbox has at most.
    """

    def __init__(self, connection: sqlite3.Connection, domains: Domains, most: int = MOST) -> None:
        self._connection = connection
        self._domains = domains
        self._most = most
        self._changes: dict[tuple[int, str, int, str, bool], _Change] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        """Count an event, whole as the table has it."""
        self._count(event, 1)

    def replace(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Count an event as it is now known in place of what it was."""
        self._count(before, -1)
        self._count(after, 1)

    def write(self) -> None:
        """Write every change, and fold the rows of each sandbox that has too many."""
        fresh: defaultdict[int, set[SummaryKey]] = defaultdict(set)
        folded: dict[tuple[int, SummaryKey], _Change] = {}
        for (subject, host, port, verdict, passed), change in self._changes.items():
            key = SummaryKey(host, port, verdict, passed)
            if not change or self._add(subject, key, change):
                continue
            group = domain_key(key, self._domains(key.host))
            if (subject, group) in folded:
                folded[subject, group].join(change)
            elif self._exists(subject, group):
                folded[subject, group] = change
            elif change.times > 0:
                self._insert(subject, key, change)
                fresh[subject].add(key)
            else:
                # It was counted with the rest.
                self._add(subject, rest_key(key), change)
        for (subject, group), change in folded.items():
            self._add(subject, group, change)
        for subject, keys in fresh.items():
            self._fold(subject, keys)
        self._changes.clear()

    def _count(self, event: Mapping[str, Any], sign: int) -> None:
        verdict = event["verdict"]
        passed = verdict != "blocked" and event["outcome"] in _REACHING
        place = event["subject"], event["host"], event["port"] or 0, verdict, passed
        change = self._changes.get(place)
        at = event["at"]
        if change is None:
            change = self._changes[place] = _Change(at)
        change.add(
            at,
            at,
            sign * min(LARGEST, event["count"]),
            sign * min(LARGEST, event["bytes_in"] or 0),
            sign * min(LARGEST, event["bytes_out"] or 0),
        )

    def _add(self, subject: int, key: SummaryKey, change: _Change) -> bool:
        values = (change.first, change.last, *_bounded(change), subject, *key)
        done = self._connection.execute(_ADD, values).rowcount == 1
        if done and change.times < 0:
            self._connection.execute(f"DELETE FROM summaries WHERE {_WHERE} AND count = 0", (subject, *key))  # noqa: S608 (names of ours)
        return done

    def _exists(self, subject: int, key: SummaryKey) -> bool:
        found = self._connection.execute(f"SELECT 1 FROM summaries WHERE {_WHERE}", (subject, *key))  # noqa: S608 (names of ours)
        return found.fetchone() is not None

    def _insert(self, subject: int, key: SummaryKey, change: _Change) -> None:
        row = SummaryRow(key, HOST, self._domains(key.host), change.first, change.last, *_bounded(change))
        self._connection.execute(_PUT, _values(subject, row))

    def _fold(self, subject: int, fresh: set[SummaryKey]) -> None:
        held = self._connection.execute("SELECT count(*) FROM summaries WHERE subject = ?", (subject,))
        if int(held.fetchone()[0]) <= self._most:
            return
        done = fold(self._rows(subject), fresh, self._most)
        self._connection.executemany(
            f"DELETE FROM summaries WHERE {_WHERE}",  # noqa: S608 (names of ours)
            [(subject, *key) for key in (*done.gone, *(row.key for row in done.written))],
        )
        self._connection.executemany(_PUT, [_values(subject, row) for row in done.written])

    def _rows(self, subject: int) -> Iterator[SummaryRow]:
        # Rows from before the domain was kept have none.
        found = self._connection.execute(
            "SELECT host, port, verdict, passed, folded, domain, first, last, count, bytes_in, bytes_out "
            "FROM summaries WHERE subject = ?",
            (subject,),
        )
        for host, port, verdict, passed, folded, domain, *rest in found:
            yield SummaryRow(
                SummaryKey(host, port, verdict, bool(passed)), folded, domain or self._domains(host), *rest
            )


def _bounded(change: _Change) -> tuple[int, int, int]:
    count, came, went = (
        max(-LARGEST, min(LARGEST, each)) for each in (change.times, change.bytes_in, change.bytes_out)
    )
    return count, came, went


def _values(subject: int, row: SummaryRow) -> tuple[Any, ...]:
    return subject, *row.key, *row[1:]
