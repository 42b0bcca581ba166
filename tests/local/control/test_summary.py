"""The summary of what a sandbox tried: bounded, folded by worth, and in step with the events."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irons_local.control.audit import hosts_tried, retention
from irons_local.control.audit.hosts_tried import HostQuery
from irons_local.control.audit.intake import RunIntake
from irons_local.control.audit.retention import Retention, shares
from irons_local.control.audit.summary import (
    DOMAIN,
    HOST,
    OTHERS,
    REST,
    SummaryKey,
    SummaryRow,
    domain_key,
    domain_of,
    fold,
)
from irons_local.control.audit.summing import Domains, Sums
from irons_local.control.store import database as store_module
from irons_local.control.store.database import Store
from irons_local.control.store.migrations import MIGRATIONS

SUBJECT = 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A database with one sandbox that events are about."""
    made = Store(tmp_path / "irons.db")
    made.write_now(
        lambda connection: connection.execute(
            "INSERT INTO subjects (id, sandbox, name) VALUES (1, 'sb', 'box')"
        )
    )
    yield made
    made.close()


def _event(
    host: str, at: int, verdict: str = "warn", outcome: str | None = "unreached", **more: Any
) -> dict[str, Any]:
    event = {"subject": SUBJECT, "host": host, "port": 443, "verdict": verdict, "outcome": outcome, "at": at}
    return event | {"count": 1, "bytes_in": 0, "bytes_out": 0} | more


def _add(store: Store, events: list[dict[str, Any]], most: int = 20_000) -> None:
    """Take in events as one piece of a log."""

    def work(connection: sqlite3.Connection) -> None:
        domains = Domains()
        sums = Sums(connection, domains, most)
        for event in events:
            sums.add(event)
            connection.execute(
                "INSERT INTO events (subject, at, host, port, allowed, verdict, outcome, count, domain) "
                "VALUES (:subject, :at, :host, :port, :verdict <> 'blocked', :verdict, :outcome, :count, :domain)",
                event | {"domain": domains(event["host"])},
            )
        connection.execute("UPDATE subjects SET events = events + ? WHERE id = 1", (len(events),))
        sums.write()

    store.write_now(work)


def _hosts(store: Store, **query: Any) -> list[dict[str, Any]]:
    return store.write_now(lambda connection: hosts_tried.hosts(connection, HostQuery("box", **query)))


def test_one_row_per_host_port_and_verdict(store: Store) -> None:
    """Attempts of one host, port and verdict are one row with first, last, count and bytes; the last tried is at the end."""
    _add(
        store,
        [
            _event("a.test", 5_000_000, "allowed", "reached", bytes_in=7, bytes_out=3),
            _event("a.test", 1_000_000, "allowed", "unreached", count=4),
            _event("a.test", 2_000_000, "blocked", "refused", port=22),
            _event("b.test", 9_000_000, "blocked", "refused", port=None),
        ],
    )
    assert _hosts(store) == [
        {
            "host": "a.test",
            "port": 22,
            "verdict": "blocked",
            "first": "1970-01-01T00:00:02.000000Z",
            "last": "1970-01-01T00:00:02.000000Z",
            "count": 1,
            "reached": 0,
            "bytes_in": 0,
            "bytes_out": 0,
        },
        {
            "host": "a.test",
            "port": 443,
            "verdict": "allowed",
            "first": "1970-01-01T00:00:01.000000Z",
            "last": "1970-01-01T00:00:05.000000Z",
            "count": 5,
            "reached": 1,
            "bytes_in": 7,
            "bytes_out": 3,
        },
        {
            "host": "b.test",
            "verdict": "blocked",
            "first": "1970-01-01T00:00:09.000000Z",
            "last": "1970-01-01T00:00:09.000000Z",
            "count": 1,
            "reached": 0,
            "bytes_in": 0,
            "bytes_out": 0,
        },
    ]
    assert [row["host"] for row in _hosts(store, host="A.*", verdicts=("allowed",))] == ["a.test"]
    assert [row["host"] for row in _hosts(store, limit=1)] == ["b.test"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verdict", "outcome"), [("warn", "unreached"), ("blocked", "refused"), ("warn", "reached")]
)
def test_sixty_thousand_names_of_one_domain_hide_no_visit(store: Store, verdict: str, outcome: str) -> None:
    """After a visit, a flood of names elsewhere, with all that rotates out: the visit's event and its row are there."""
    _add(store, [_event("visited.example", 1, "warn", "reached", bytes_out=512)])
    kept = Retention(events=20_000)
    for first in range(0, 60_000, 2_500):
        _add(
            store,
            [
                _event(f"x{number}.flood.test", number, verdict, outcome)
                for number in range(first, first + 2_500)
            ],
        )
        store.write_now(lambda connection: retention.rotate(connection, kept))
    rows = _hosts(store)
    assert len(rows) <= 20_000
    (visit,) = [row for row in rows if row["host"] == "visited.example"]
    assert (visit["count"], visit["bytes_out"]) == (1, 512)
    assert sum(row["count"] for row in rows) == 60_001

    def left(connection: sqlite3.Connection) -> tuple[int, int, int]:
        visits = connection.execute("SELECT count(*) FROM events WHERE host = 'visited.example'").fetchone()[
            0
        ]
        return (int(visits), *connection.execute("SELECT events, rotated FROM subjects").fetchone())

    visits, events, rotated = store.write_now(left)
    assert (visits, events + rotated) == (1, 60_001)
    assert events <= 22_000


def test_rotation_takes_from_the_host_that_has_the_most(store: Store) -> None:
    """Within a domain, too, a host with few events keeps them next to one that has many; of equals the oldest go."""
    _add(store, [_event("quiet.flood.test", 1), *(_event("loud.flood.test", at) for at in range(2, 300))])
    store.write_now(lambda connection: retention.rotate(connection, Retention(events=100)))

    def hosts(connection: sqlite3.Connection) -> Counter[str]:
        return Counter(host for (host,) in connection.execute("SELECT host FROM events"))

    assert store.write_now(hosts) == {"quiet.flood.test": 1, "loud.flood.test": 99}


def test_rotation_of_many_small_places_spares_what_passed(store: Store) -> None:
    """Where every place has one event, what reached a server stays, and of the others the oldest go."""
    _add(store, [_event("visited.example", 1, "warn", "reached")])
    _add(store, [_event(f"x{number}.test", number) for number in range(2, 150)])
    store.write_now(lambda connection: retention.rotate(connection, Retention(events=100)))

    def hosts(connection: sqlite3.Connection) -> list[str]:
        return [host for (host,) in connection.execute("SELECT host FROM events ORDER BY id")]

    found = store.write_now(hosts)
    assert (found[0], found[1], len(found)) == ("visited.example", "x51.test", 100)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.data())
def test_shares_leave_equally_many(counts: list[int], data: st.DataObject) -> None:
    """What each place gives adds up, and none that gives is left with fewer than one that keeps all, but for one event."""
    need = data.draw(st.integers(1, sum(counts)))
    places = {f"p{number}": count for number, count in enumerate(counts)}
    given_up = shares(places.items(), need)
    if given_up is None:
        assert len(places) > 15
        return
    assert sum(given_up.values()) == need
    left = {place: count - given_up.get(place, 0) for place, count in places.items()}
    assert min(left.values()) >= 0
    most = max(left.values())
    assert all(left[place] >= most - 1 for place in given_up)


_NAMES = st.sampled_from(
    [
        f"{host}{domain}"
        for host in ("", "a.", "b.", "c.", "d.")
        for domain in ("one.test", "two.test", "three.co.uk")
    ]
    + [f"198.51.{net}.{host}" for net in (1, 2) for host in (1, 2, 3)]
    + ["2001:db8::1", "2001:db8::2", "single", "*"]
)
_KEYS = st.builds(
    lambda host, port, verdict, passed: SummaryKey(host, port, verdict, passed and verdict != "blocked"),
    _NAMES,
    st.sampled_from([0, 80, 443]),
    st.sampled_from(["allowed", "warn", "blocked"]),
    st.booleans(),
)
_BATCHES = st.lists(
    st.lists(st.tuples(_KEYS, st.integers(1, 1000), st.integers(1, 5)), max_size=12), min_size=1, max_size=8
)


def _take(rows: dict[SummaryKey, SummaryRow], batch: list[tuple[SummaryKey, int, int]], most: int) -> None:
    """Do in memory what the intake does with rows in the store."""
    fresh = set()
    for key, at, times in batch:
        domain = domain_of(key.host)
        place = key if key in rows else domain_key(key, domain)
        if place not in rows:
            rows[key] = SummaryRow(key, HOST, domain, at, at, times, 1, 1)
            fresh.add(key)
            continue
        row = rows[place]
        rows[place] = row._replace(
            first=min(row.first, at),
            last=max(row.last, at),
            times=row.times + times,
            bytes_in=row.bytes_in + 1,
            bytes_out=row.bytes_out + 1,
        )
    if len(rows) > most:
        done = fold(rows.values(), fresh, most)
        for key in done.gone:
            del rows[key]
        rows.update({row.key: row for row in done.written})


@pytest.mark.slow
@settings(deadline=None)
@given(_BATCHES, st.integers(10, 14))
def test_folding_keeps_counts_bounds_and_what_passed(
    batches: list[list[tuple[SummaryKey, int, int]]], most: int
) -> None:
    """However attempts come, rows are bounded, nothing is lost from the counts, and a domain that passed keeps its row."""
    rows: dict[SummaryKey, SummaryRow] = {}
    times: Counter[tuple[str, bool]] = Counter()
    spans: dict[str, tuple[int, int]] = {}
    passed: set[tuple[str, str]] = set()
    for batch in batches:
        for key, at, count in batch:
            times[key.verdict, key.passed] += count
            low, high = spans.get(key.verdict, (at, at))
            spans[key.verdict] = min(low, at), max(high, at)
        _take(rows, batch, most)
        assert len(rows) <= most + 6, "six rows may count the rest"
        seen: Counter[tuple[str, bool]] = Counter()
        for row in rows.values():
            seen[row.key.verdict, row.key.passed] += row.times
        assert seen == times
        for verdict, (low, high) in spans.items():
            of = [row for row in rows.values() if row.key.verdict == verdict]
            assert (min(row.first for row in of), max(row.last for row in of)) == (low, high)
        now = {
            (row.domain, row.key.verdict)
            for row in rows.values()
            if row.key.passed and row.folded != REST and "/" not in row.domain
        }
        assert passed <= now
        passed = now


@pytest.mark.slow
@settings(deadline=None)
@given(_BATCHES, st.integers(10, 14))
def test_what_was_refused_displaces_nothing_that_passed(
    batches: list[list[tuple[SummaryKey, int, int]]], most: int
) -> None:
    """The rows of what passed are the same whether or not anything was refused next to it."""
    together: dict[SummaryKey, SummaryRow] = {}
    alone: dict[SummaryKey, SummaryRow] = {}
    for batch in batches:
        _take(together, batch, most)
        _take(alone, [each for each in batch if each[0].verdict != "blocked"], most)
    if any(row.folded != HOST for row in alone.values()):
        # Full of what passed alone: what then has to be folded may be folded a little earlier.
        return
    for key, row in alone.items():
        if key.passed and len(alone) <= most - 3:
            assert together[key] == row


def test_refused_domains_are_folded_before_they_are_counted_with_the_rest() -> None:
    """The domain with the most refused names is folded first; refused domains that do not fit are in one row."""
    rows = [_row(f"x{number}.flood.test", "blocked") for number in range(50)]
    rows += [_row(f"d{number}.test", "blocked", first=number) for number in range(50)]
    rows += [_row(f"p{number}.test", "allowed", passed=True) for number in range(10)]
    after = _after(rows, 100)
    assert after[SummaryKey("*.flood.test", 0, "blocked", False)].times == 50
    assert SummaryKey(OTHERS, 0, "blocked", False) not in after
    after = _after(rows, 40)
    rest = after[SummaryKey(OTHERS, 0, "blocked", False)]
    assert (rest.folded, len(after) <= 40) == (REST, True)
    assert sum(row.key.verdict == "allowed" for row in after.values()) == 10
    assert after[SummaryKey("d0.test", 443, "blocked", False)].folded == HOST, "who came first stays"


def test_what_passed_is_folded_last_and_then_only_by_domain() -> None:
    """Hosts that passed are folded by domain when they alone are too many; only new domains are then counted with the rest."""
    rows = [_row(f"x{number}.big.test", "allowed", passed=True) for number in range(30)]
    rows += [_row(f"d{number}.test", "allowed", passed=True) for number in range(20)]
    after = _after(rows, 40)
    assert after[SummaryKey("*.big.test", 0, "allowed", True)].folded == DOMAIN
    late = [_row(f"late{number}.test", "allowed", passed=True) for number in range(30)]
    after = _after([*after.values(), *late], 40, fresh={row.key for row in late})
    assert {SummaryKey(f"d{number}.test", 443, "allowed", True) for number in range(20)} <= after.keys()
    assert after[SummaryKey(OTHERS, 0, "allowed", True)].times >= 11


def _row(host: str, verdict: str, *, passed: bool = False, first: int = 0) -> SummaryRow:
    return SummaryRow(SummaryKey(host, 443, verdict, passed), HOST, domain_of(host), first, first, 1, 0, 0)


def _after(
    rows: list[SummaryRow], most: int, fresh: set[SummaryKey] | None = None
) -> dict[SummaryKey, SummaryRow]:
    done = fold(rows, fresh or set(), most)
    held = {row.key: row for row in rows if row.key not in done.gone}
    return held | {row.key: row for row in done.written}


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("a.b.example.co.uk", "example.co.uk"),
        ("example.com", "example.com"),
        ("com", "com"),
        ("co.uk", "co.uk"),
        ("x.someone.github.io", "someone.github.io"),
        ("printer", "printer"),
        ("x1.unknown-tld-here", "x1.unknown-tld-here"),
        ("a.x1.unknown-tld-here", "x1.unknown-tld-here"),
        ("203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2::9", "2001:db8:1::/48"),
        ("*", "*"),
        ("", ""),
        ("1.2.3.4.5", "1.2.3.4.5"),
    ],
)
def test_what_hosts_are_folded_by(host: str, domain: str) -> None:
    """Names fold by their registrable domain, addresses by their network; what is neither stays itself."""
    assert domain_of(host) == domain


def test_an_event_that_is_said_anew_is_counted_once(store: Store) -> None:
    """What changes of an event moves in the summary: its verdict, its bytes, whether it was reached."""
    opened = _event("a.test", 1, "allowed", None)
    _add(store, [opened])
    assert _hosts(store)[0]["reached"] == 1

    def change(connection: sqlite3.Connection) -> None:
        sums = Sums(connection, Domains())
        sums.replace(opened, opened | {"verdict": "warn", "outcome": "unreached", "bytes_out": 9})
        sums.write()

    store.write_now(change)
    (row,) = _hosts(store)
    assert (row["verdict"], row["count"], row["reached"], row["bytes_out"]) == ("warn", 1, 0, 9)


def test_hostile_numbers_fit(store: Store) -> None:
    """Counts as large as a record can hold add up to a bounded number."""
    huge = 2**63 - 1
    for _ in range(3):
        _add(store, [_event("a.test", 1, count=huge, bytes_in=huge)] * 3)
    assert json.dumps(_hosts(store))
    assert _hosts(store)[0]["count"] == 4 * 10**15


def test_a_database_from_before_gets_a_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that were taken in before there were summaries are summed up, and attempts that were open go on."""
    path = tmp_path / "irons.db"
    with monkeypatch.context() as before:
        before.setattr(store_module, "MIGRATIONS", MIGRATIONS[:1])
        old = Store(path)
        old.write_now(
            lambda connection: connection.executescript(
                "INSERT INTO subjects (id, sandbox, name, events) VALUES (1, 'sb', 'box', 3);"
                "INSERT INTO events (subject, at, host, port, allowed, verdict, count, bytes_in) VALUES "
                "(1, 5, 'a.test', 443, 1, 'allowed', 1, NULL), (1, 2, 'a.test', 443, 1, 'allowed', 2, 7), "
                "(1, 3, 'b.test', NULL, 0, 'blocked', 9223372036854775807, NULL);"
                "INSERT INTO attempts (run, conn, event, opened) VALUES ('r', 1, 1, '{\"said\": {}, \"whole\": false}');"
                "BEGIN;"
            )
        )
        old.close()
    opened = Store(path)
    rows = {row["host"]: row for row in _hosts(opened)}
    assert (rows["a.test"]["count"], rows["a.test"]["bytes_in"]) == (3, 7)
    assert (rows["a.test"]["first"][-7:], rows["a.test"]["last"][-7:]) == ("000002Z", "000005Z")
    assert (rows["b.test"]["count"], "port" in rows["b.test"]) == (4 * 10**15, False)

    def close(connection: sqlite3.Connection) -> None:
        taking = RunIntake(connection, "r", 0, dict, Domains(), lambda _: None)
        taking.record({"seq": 1, "kind": "close", "conn": 1, "bytes_in": 5, "outcome": "reached"})
        taking.finish()

    opened.write_now(close)
    assert {row["host"]: row for row in _hosts(opened)}["a.test"]["bytes_in"] == 12
    opened.close()
