"""How long a sandbox may live and how long it may be idle: rows of `terms`, and the arithmetic of their deadlines.

A deadline counts by CLOCK_BOOTTIME, which goes on while the machine is suspended and which no step of the wall clock moves.
That clock begins again at each boot: after one, the wall clock decides, and never for more than what was left when it was noted.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple, Self

from irons_local import times

SECOND = 1_000_000
"""Microseconds."""

_DRIFT = 2 * SECOND
_NOTED_EVERY = 600 * SECOND
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Instant(NamedTuple):
    """One moment by all clocks: microseconds of CLOCK_BOOTTIME in the boot `boot`, and of the wall clock since 1970."""

    boot: str
    up: int
    wall: int

    @classmethod
    def now(cls) -> Self:
        """This moment."""
        up = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
        return cls(_BOOT.read_text("ascii").strip(), up, times.now())


@dataclass(frozen=True, slots=True)
class Terms:
    """What one sandbox was given, and how far it is.

    Attributes:
        sandbox: its id.
        ttl: seconds that it may live; None: without a deadline.
        remove: it is destroyed at its deadline, not just stopped.
        boot: the boot in which `ends_boot` and `idle_since` count.
        ends_boot: the deadline by CLOCK_BOOTTIME; None where there is none, or it has passed.
        ends_at: the deadline by the wall clock, as last noted.
        remaining: microseconds left, as last noted.
        idle_stop: seconds of idleness after which it is stopped; None is never.
        idle_since: since when it has been idle, by CLOCK_BOOTTIME; None while it is not, or that is not known.
        idle_used: microseconds of a processor that it had used by then.
    """

    sandbox: str
    ttl: int | None = None
    remove: bool = False
    boot: str = ""
    ends_boot: int | None = None
    ends_at: int | None = None
    remaining: int | None = None
    idle_stop: int | None = None
    idle_since: int | None = None
    idle_used: int | None = None

    def left(self, now: Instant) -> int | None:
        """Microseconds until the deadline, below 0 once it has passed; None where there is none."""
        if self.ends_boot is None or self.ends_at is None:
            return None
        if self.boot == now.boot:
            return self.ends_boot - now.up
        return min(self.ends_at - now.wall, self.remaining or 0)

    def due(self, now: Instant, left: int | None) -> Terms:
        """The same with the deadline `left` microseconds from now; None ends it, and keeps `ttl` for the next start."""
        here = self if self.boot == now.boot else replace(self, idle_since=None, idle_used=None)
        if left is None:
            return replace(here, boot=now.boot, ends_boot=None, ends_at=None, remaining=None)
        return replace(
            here, boot=now.boot, ends_boot=now.up + left, ends_at=now.wall + left, remaining=max(0, left)
        )

    def noted(self, now: Instant) -> Terms:
        """The same as it is to be stored: after a boot, a step of the wall clock or ten minutes, with what is left now."""
        left = self.left(now)
        if left is None or self.ends_at is None:
            return self if self.boot == now.boot else self.due(now, None)
        stepped = abs(now.wall + left - self.ends_at) > _DRIFT
        aged = (self.remaining or 0) - left > _NOTED_EVERY
        return self.due(now, left) if stepped or aged or self.boot != now.boot else self

    def idle_left(self, now: Instant) -> int | None:
        """Microseconds until it has been idle for long enough; None where it is not idle."""
        if self.idle_stop is None or self.idle_since is None or self.boot != now.boot:
            return None
        return self.idle_since + self.idle_stop * SECOND - now.up

    @property
    def empty(self) -> bool:
        """Whether there is nothing to keep."""
        return self.ttl is None and self.idle_stop is None


_COLUMNS = ", ".join(field.name for field in fields(Terms))


def all_of(connection: sqlite3.Connection) -> dict[str, Terms]:
    """The terms of every sandbox that has some, by its id."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM terms")  # noqa: S608 (names of ours)
    return {row["sandbox"]: _terms(row) for row in rows}


def get(connection: sqlite3.Connection, sandbox: str) -> Terms:
    """The terms of one sandbox, by its id; empty ones where it has none."""
    sql = f"SELECT {_COLUMNS} FROM terms WHERE sandbox = ?"  # noqa: S608 (names of ours)
    row = connection.execute(sql, (sandbox,)).fetchone()
    return Terms(sandbox) if row is None else _terms(row)


def put(connection: sqlite3.Connection, terms: Terms) -> None:
    """Store terms in the place of those before; empty ones are removed, and so are those of a sandbox that is gone."""
    connection.execute("DELETE FROM terms WHERE sandbox = ?", (terms.sandbox,))
    there = connection.execute("SELECT 1 FROM sandboxes WHERE id = ?", (terms.sandbox,)).fetchone()
    if terms.empty or there is None:
        return
    values = [getattr(terms, field.name) for field in fields(Terms)]
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO terms ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608 (names of ours)


def _terms(row: sqlite3.Row) -> Terms:
    return Terms(**{**dict(row), "remove": bool(row["remove"])})
