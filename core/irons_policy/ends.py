"""When a rule ends by itself: a time, or the stop of its sandbox; the clocks, and how both are written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

STOP = "stop"
"""How the end with the stop of a sandbox is written."""

LONGEST = 366 * 86_400
"""Seconds: the longest that a rule may be for."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_MICROSECOND = timedelta(microseconds=1)


class Moment(NamedTuple):
    """One moment by both clocks, in microseconds.

    Attributes:
        wall: of the wall clock, since 1970.
        up: of CLOCK_BOOTTIME, which goes on while the machine is suspended and which no step of the wall clock moves.
    """

    wall: int
    up: int


@dataclass(frozen=True, slots=True)
class RuleEnd:
    """The end of a rule. Two ends are equal where they say the same; `up` does not count.

    Attributes:
        at: microseconds since 1970; None where it is the stop of the rule's sandbox.
        up: the same moment by CLOCK_BOOTTIME of the machine that enforces it; None where that is not known, as on a client.
    """

    at: int | None = None
    up: int | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """As requests, answers and files have it: an RFC 3339 time in UTC, or `stop`."""
        if self.at is None:
            return STOP
        moment = _EPOCH + self.at * _MICROSECOND
        return moment.isoformat(timespec="microseconds" if self.at % 1_000_000 else "seconds")[:-6] + "Z"

    def left(self, now: Moment) -> int | None:
        """Microseconds until its first clock gets there, below 1 afterwards; None where no clock ends it."""
        if self.at is None:
            return None
        by_wall = self.at - now.wall
        return by_wall if self.up is None else min(by_wall, self.up - now.up)

    def over(self, now: Moment) -> bool:
        """True once one of its clocks is there."""
        left = self.left(now)
        return left is not None and left <= 0


def read_end(text: str, up: int | None = None) -> RuleEnd:
    """Read what `RuleEnd.text` wrote.

    Args:
        text: an RFC 3339 time with an offset, or `stop`.
        up: the same moment by CLOCK_BOOTTIME, where it is known.

    Raises:
        ValueError: it is neither.
    """
    if text == STOP:
        return RuleEnd()
    if _TIME.fullmatch(text) is None:
        raise ValueError(f"{text[:50]!r} is neither an RFC 3339 time such as 2026-02-19T16:42:26Z nor stop")
    try:
        # Also the year must be one in UTC.
        moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
        return RuleEnd((moment - _EPOCH) // _MICROSECOND, up)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is a time that does not exist") from None
