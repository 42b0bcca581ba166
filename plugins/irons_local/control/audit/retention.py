"""Old events make room: per sandbox, and of each from what there is most of, so that a flood rotates out only itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from irons_policy.event import LARGEST

_DAY = 86_400_000_000
_FEW = 16
"""Domains, or hosts of one, of which events are removed one by one; of more they are ranked all together."""
_DOMAIN = "coalesce(domain, host)"
_RANKED = f"""
SELECT id FROM (
  SELECT id, passed, row_number() OVER (PARTITION BY place ORDER BY nth, id DESC) AS rank FROM (
    SELECT id, {_DOMAIN} AS place, allowed AND ifnull(outcome, 'reached') = 'reached' AS passed,
      row_number() OVER (PARTITION BY host ORDER BY id DESC) AS nth
    FROM events WHERE subject = :subject AND (:place IS NULL OR {_DOMAIN} = :place)
  )
) ORDER BY rank DESC, passed, id LIMIT :most
"""  # noqa: S608 (names of ours)
"""The events that go first: of the domain that has the most, of its host that has the most, the oldest."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long events are kept.

    Attributes:
        events: so many are kept of each sandbox.
        days: none is kept longer than this.
    """

    events: int = 100_000
    days: int = 90


def crowded(connection: sqlite3.Connection, retention: Retention) -> bool:
    """Whether `rotate` would remove anything."""
    found = connection.execute("SELECT 1 FROM subjects WHERE events > ? LIMIT 1", (_limit(retention),))
    return found.fetchone() is not None


def rotate(connection: sqlite3.Connection, retention: Retention) -> int:
    """Remove what is beyond the number kept per sandbox; a tenth of slack keeps this from being done each time.

    Events go from the registrable domain that has the most, and there from the host that has the most, the oldest
    first: a flood to one place leaves the events of others. The subject counts what was removed.

    Returns:
        How many events went.
    """
    found = connection.execute(
        "SELECT id, events FROM subjects WHERE events > ?", (_limit(retention),)
    ).fetchall()
    for subject, events in found:
        _make_room(connection, int(subject), int(events) - retention.events)
    return sum(int(events) - retention.events for _, events in found)


def _limit(retention: Retention) -> int:
    return retention.events + retention.events // 10


def expire(connection: sqlite3.Connection, retention: Retention, now: int) -> int:
    """Remove what is older than the days kept, and sandboxes that are gone with all their events.

    Args:
        connection: in a write transaction.
        retention: how long events are kept.
        now: microseconds since 1970.

    Returns:
        How many events went.
    """
    # Ids grow with time, but for the moments between an attempt and its verdict: the first young one ends the search.
    young = connection.execute(
        "SELECT id FROM events WHERE at >= ? ORDER BY id LIMIT 1", (now - retention.days * _DAY,)
    ).fetchone()
    bound = LARGEST if young is None else int(young["id"])
    old = connection.execute(
        "SELECT subject, count(*) AS events, max(at) AS latest FROM events WHERE id < ? GROUP BY subject",
        (bound,),
    ).fetchall()
    if old:
        connection.execute("DELETE FROM events WHERE id < ?", (bound,))
        for row in old:
            _note(connection, row["subject"], row["events"], row["latest"])
    gone = "SELECT id FROM subjects WHERE gone_at IS NOT NULL AND events = 0"
    connection.execute(f"DELETE FROM summaries WHERE subject IN ({gone})")  # noqa: S608 (names of ours)
    connection.execute(f"DELETE FROM subjects WHERE id IN ({gone})")  # noqa: S608 (names of ours)
    connection.execute(
        "DELETE FROM served WHERE cell NOT IN (SELECT sandbox FROM subjects) AND cell NOT IN (SELECT id FROM sandboxes)"
    )
    return sum(int(row["events"]) for row in old)


def shares(counts: Iterable[tuple[str, int]], need: int) -> dict[str, int] | None:
    """Say how many events each place gives up, so that those that have the most are left with equally many.

    Args:
        counts: places, and how many events each has.
        need: how many must go; no more than there are.

    Returns:
        Places that give some; None where those are more than a few.
    """
    ranked = sorted(counts, key=lambda each: (-each[1], each[0]))
    given = 0
    for number, (_, count) in enumerate(ranked, 1):
        following = ranked[number][1] if number < len(ranked) else 0
        given += number * (count - following)
        if given >= need:
            break
        if number == _FEW:
            return None
    else:
        number, following = len(ranked), 0
    giving = {place: count - following for place, count in ranked[:number]}
    surplus = given - need
    for left, place in enumerate(reversed(giving)):
        back = min(giving[place], -(-surplus // (number - left)))
        giving[place] -= back
        surplus -= back
    return {place: gift for place, gift in giving.items() if gift}


def _make_room(connection: sqlite3.Connection, subject: int, need: int) -> None:
    by_domain = connection.execute(
        f"SELECT {_DOMAIN}, count(*) FROM events WHERE subject = ? GROUP BY 1",  # noqa: S608 (names of ours)
        (subject,),
    )
    domains = shares(((place, count) for place, count in by_domain), need)
    if domains is None:
        _remove(connection, subject, _RANKED, {"subject": subject, "place": None, "most": need})
        return
    for domain, share in domains.items():
        by_host = connection.execute(
            f"SELECT host, count(*) FROM events WHERE subject = ? AND {_DOMAIN} = ? GROUP BY 1",  # noqa: S608 (names of ours)
            (subject, domain),
        )
        hosts = shares(((host, count) for host, count in by_host), share)
        if hosts is None:
            _remove(connection, subject, _RANKED, {"subject": subject, "place": domain, "most": share})
            continue
        for host, number in hosts.items():
            oldest = "SELECT id FROM events WHERE subject = :subject AND host = :host ORDER BY id LIMIT :most"
            _remove(connection, subject, oldest, {"subject": subject, "host": host, "most": number})


def _remove(
    connection: sqlite3.Connection, subject: int, which: str, values: dict[str, int | str | None]
) -> None:
    sql = f"DELETE FROM events WHERE id IN ({which}) RETURNING at"  # noqa: S608 (names of ours)
    times: Sequence[int] = [int(at) for (at,) in connection.execute(sql, values)]
    if times:
        _note(connection, subject, len(times), max(times))


def _note(connection: sqlite3.Connection, subject: int, events: int, latest: int) -> None:
    connection.execute(
        "UPDATE subjects SET events = events - :events, rotated = rotated + :events, "
        "rotated_before = max(ifnull(rotated_before, 0), :latest + 1) WHERE id = :subject",
        {"subject": subject, "events": events, "latest": latest},
    )
