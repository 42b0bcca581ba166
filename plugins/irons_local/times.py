"""Time as the store has it (microseconds since 1970, UTC) and as the wire has it (RFC 3339)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

_SECOND = 1_000_000
_MINUTE = 60 * _SECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def now() -> int:
    """This moment in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def rfc3339(at: int) -> str:
    """A stored time as RFC 3339 in UTC, with microseconds."""
    seconds, micros = divmod(at, _SECOND)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{micros:06d}Z"


def rfc3339_all(times: Iterable[int]) -> list[str]:
    """Return stored times as `rfc3339` writes each; those of one minute next to each other cost a third."""
    found: list[str] = []
    minute: int | None = None
    written = ""
    for at in times:
        this, micros = divmod(at, _MINUTE)
        if this != minute:
            minute, written = this, time.strftime("%Y-%m-%dT%H:%M:", time.gmtime(this * 60))
        found.append(f"{written}{micros // _SECOND:02d}.{micros % _SECOND:06d}Z")
    return found


def parse(text: str) -> int:
    """An RFC 3339 time as a stored one; digits beyond microseconds are cut.

    Raises:
        ValueError: it is not an RFC 3339 time with an offset.
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not an RFC 3339 time such as 2026-02-19T16:42:26Z")
    fraction = found[1] or ""
    whole = datetime.fromisoformat(text.replace(fraction, "", 1).upper() if fraction else text.upper())
    return (whole - _EPOCH) // timedelta(microseconds=1) + int(fraction[1:7].ljust(6, "0") or 0)
