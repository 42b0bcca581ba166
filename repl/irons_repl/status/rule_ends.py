"""Rules of the sandbox in use that end by themselves, in a few words."""

from __future__ import annotations

from collections.abc import Iterable

from irons.client.scoped_names import STOP
from irons.ending import lasting


def told(ends: Iterable[str], now: float) -> str:
    """Return how many rules end, and when the first does: `2 rules end, first in 40 min`; nothing where none does.

    Args:
        ends: When each ends: `STOP`, for the stop of its sandbox, or seconds since 1970.
        now: Seconds since 1970.
    """
    known = list(ends)
    left = sorted(seconds for end in known if end.isdecimal() and (seconds := int(end) - round(now)) > 0)
    rules = _number(len(left))
    if len(left) == 1:
        return f"{rules} ends in {lasting(left[0])}"
    if left:
        return f"{rules} end, first in {lasting(left[0])}"
    stops = known.count(STOP)
    return f"{_number(stops)} until it stops" if stops else ""


def _number(count: int) -> str:
    return f"{count} rule{'' if count == 1 else 's'}"
