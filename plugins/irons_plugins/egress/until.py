"""The end of a rule as a person types it after `--until`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

from irons_policy.ends import RuleEnd, read_end

_LOCAL = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)|(\d\d:\d\d)", re.ASCII)


def read_until(word: str, now: datetime) -> RuleEnd:
    """Read an end: `stop`, an RFC 3339 time, or a time of this machine's zone, with its day or the next that comes.

    Args:
        word: As typed, such as `18:00` or `2026-11-28 08:00`.
        now: This moment, aware.

    Raises:
        ValueError: It is none of them.
    """
    if (found := _LOCAL.fullmatch(word)) is None:
        try:
            return read_end(word)
        except ValueError as error:
            raise ValueError(f"{error}; a local time such as 18:00 will do too") from None
    day, clock, next_clock = found.groups()
    try:
        if day:
            return _end(datetime.fromisoformat(f"{day}T{clock}"))
        today = datetime.combine(now.astimezone().date(), time.fromisoformat(next_clock))
    except (ValueError, OverflowError):
        raise ValueError(f"{word!r} is a time that does not exist") from None
    # Where the clocks go back a time comes twice: `fold` 1 is the second.
    again = today.replace(fold=1)
    return _end(next((each for each in (today, again) if _at(each) > now), today + timedelta(days=1)))


def _at(local: datetime) -> datetime:
    """The moment of a local time; one that is left out where the clocks go forward is as long after that as it says."""
    return datetime.fromtimestamp(local.timestamp(), UTC)


def _end(local: datetime) -> RuleEnd:
    return read_end(_at(local).astimezone().isoformat())
