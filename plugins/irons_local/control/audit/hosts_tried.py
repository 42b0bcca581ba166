"""What a sandbox tried, by host: the summary rows as readers see them, which outlast the events."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from irons_local.control.audit.events import host_pattern, subject_of
from irons_local.control.audit.summary import DOMAIN, MOST, REST
from irons_local.times import rfc3339

_SELECT = (
    "SELECT host, port, verdict, max(folded) AS folded, min(first) AS first, max(last) AS last, "
    "sum(count) AS count, sum(CASE WHEN passed THEN count ELSE 0 END) AS reached, "
    "sum(bytes_in) AS bytes_in, sum(bytes_out) AS bytes_out FROM summaries"
)
_FOLDED = {DOMAIN: "domain", REST: "rest"}


@dataclass(frozen=True, slots=True)
class HostQuery:
    """Which rows are wanted.

    Attributes:
        name: a sandbox's name or id.
        verdicts: only these verdicts; empty is all.
        host: a host, in which `*` stands for any text; None is all.
        limit: only the rows tried last.
    """

    name: str
    verdicts: Sequence[str] = ()
    host: str | None = None
    limit: int = MOST


def hosts(connection: sqlite3.Connection, query: HostQuery) -> list[dict[str, Any]]:
    """Return rows as the wire has them, the one tried last at the end.

    Raises:
        HttpError: no sandbox has, or had, that name.
    """
    values: dict[str, Any] = {"subject": subject_of(connection, query.name), "limit": query.limit}
    parts = ["subject = :subject"]
    if query.verdicts:
        parts.append(f"verdict IN ({', '.join(repr(each) for each in query.verdicts)})")
    if query.host is not None:
        values["host"] = host_pattern(query.host)
        parts.append("host GLOB :host")
    where = " AND ".join(parts)
    sql = f"{_SELECT} WHERE {where} GROUP BY host, port, verdict ORDER BY last DESC, host, port LIMIT :limit"
    return [_row(row) for row in reversed(connection.execute(sql, values).fetchall())]


def totals(connection: sqlite3.Connection, name: str) -> dict[str, int]:
    """Count what a sandbox tried in its life, also what was rotated out since, and what of it was refused.

    Raises:
        HttpError: no sandbox has, or had, that name.
    """
    sql = (
        "SELECT total(count), total(CASE WHEN verdict = 'blocked' THEN count ELSE 0 END) "
        "FROM summaries WHERE subject = ?"
    )
    tried, refused = connection.execute(sql, (subject_of(connection, name),)).fetchone()
    return {"connections": int(tried), "refused": int(refused)}


def _row(row: sqlite3.Row) -> dict[str, Any]:
    told: dict[str, Any] = {"host": row["host"]}
    if row["port"]:
        told["port"] = row["port"]
    told |= {
        "verdict": row["verdict"],
        "first": rfc3339(row["first"]),
        "last": rfc3339(row["last"]),
        "count": row["count"],
        "reached": row["reached"],
        "bytes_in": row["bytes_in"],
        "bytes_out": row["bytes_out"],
    }
    return {**told, "folded": _FOLDED[row["folded"]]} if row["folded"] in _FOLDED else told
