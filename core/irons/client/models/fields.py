"""Read the fields of an answer leniently: what is of another type than it should be is empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from irons.errors import ApiError
from irons_policy.modes import read_mode

LARGEST = 1 << 63
"""Whole numbers from here on are no counts, ports or identities of anything."""

MOST_ROWS = 100_000
"""Rows that one answer may have: each becomes an object many times the size of its text."""


def rows_of(answer: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    """Return the objects in a list of an answer; what is none is passed over. Raises `ApiError` where there are too many."""
    rows = answer.get(key)
    if not isinstance(rows, list):
        return []
    if len(rows) > MOST_ROWS:
        raise ApiError(f"the server sent {len(rows):,} {key} at once; {MOST_ROWS:,} is the most")
    return [row for row in rows if isinstance(row, dict)]


def texts_of(value: object) -> tuple[str, ...]:
    """Return the texts in a list; nothing where it is not a list."""
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def texts_by_key(value: object) -> dict[str, str]:
    """Return the members of an object as texts; nothing where it is not an object."""
    return {key: text_of(item) for key, item in value.items()} if isinstance(value, dict) else {}


def text_of(value: object) -> str:
    """Return a text, or what a number or a truth value looks like; nothing of anything else, however deep it is nested."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) else ""


def mode_of(answer: Mapping[str, Any]) -> str:
    """Return the egress mode that an answer carries; empty where it carries none. `ask` is sent as `deny` with a further field."""
    return text_of(read_mode(answer))


def word_of(value: object) -> str | None:
    """Return a text; None where it is empty or is not a text."""
    return value if isinstance(value, str) and value else None


def whole_of(value: object) -> int | None:
    """Return a whole number of 64 bits at most; None for anything else."""
    return value if type(value) is int and -LARGEST <= value < LARGEST else None


def wholes_of(value: object) -> tuple[int, ...]:
    """Return the whole numbers in a list; nothing where it is not a list."""
    found = map(whole_of, value) if isinstance(value, list) else ()
    return tuple(number for number in found if number is not None)


def count_of(value: object) -> int:
    """Return a count; 0 for what is not one."""
    return max(0, whole_of(value) or 0)


def time_of(value: object) -> datetime | None:
    """Read a time (RFC 3339); None for what is not one."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    if found.tzinfo is None:
        from datetime import UTC

        found = found.replace(tzinfo=UTC)
    # At either end of the calendar no other zone can tell it.
    return found if 1 < found.year < 9999 else None


def times_of(column: Sequence[object]) -> Sequence[datetime | None]:
    """Read times as `time_of` reads each: nearly always all of them are times with a zone, which is found sooner for a column."""
    try:
        found = list(map(datetime.fromisoformat, cast("Sequence[str]", column)))
    except (TypeError, ValueError):
        return list(map(time_of, column))
    if any(time.tzinfo is None or not 1 < time.year < 9999 for time in found):
        return list(map(time_of, column))
    return found
