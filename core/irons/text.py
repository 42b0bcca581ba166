"""Text from outside made fit for a terminal, and values made text."""

from __future__ import annotations

import time as clock
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from datetime import datetime, tzinfo

_SECONDS = [f"{tens}{ones}" for tens in "012345" for ones in "0123456789"]
LONGEST = 2000
"""Characters of a line on stderr that are shown: it may quote what was typed, pasted, or sent by a server."""


def clean(text: str, *, limit: int = 0) -> str:
    """Return `text` on one line with control, bidi and other format characters shown as escapes, cut to `limit` characters if given."""
    # Almost all text is printable, which is found without a regular expression.
    shown = text if text.isprintable() else _hostile().sub(_escaped, text)
    if limit and len(shown) > limit:
        return shown[: limit - 1] + "…"
    return shown


@lru_cache(maxsize=1)
def _hostile() -> re.Pattern[str]:
    import re

    # Controls (Cc), format characters (Cf: bidi marks and what is invisible), line separators and lone surrogates.
    return re.compile(
        "[\x00-\x1f\x7f-\x9f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
        "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
        "\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
    )


def _escaped(found: re.Match[str]) -> str:
    point = ord(found[0])
    if point < 0x100:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(found[0], f"\\x{point:02x}")
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def in_quotes(text: str) -> str:
    r"""Return text in quotes that nothing inside ends.

    A `"` is escaped, and so is each backslash right before one or at the end. Others stay as they are: what `clean` made of a control
    character reads the same inside and outside of quotes.
    """
    parts = text.split('"')
    return '"' + '\\"'.join(part + "\\" * (len(part) - len(part.rstrip("\\"))) for part in parts) + '"'


def size_text(size: int) -> str:
    """Return a number of bytes as people read it, in powers of 1024: `512 MiB`, `1.5 GiB`, `800 B`."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    # What would be rounded to 1024 is 1 of the next unit.
    while abs(value) >= 1023.5 and len(units) > 1:
        value /= 1024
        units.pop(0)
    shown = f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}".removesuffix(".0")
    return f"{shown} {units[0]}"


def age(time: datetime, now: datetime) -> str:
    """Return how long before (or after) another a time is, as people read it; of more than 60 days its date in this machine's zone."""
    seconds = (now - time).total_seconds()
    if abs(seconds) >= 60 * 86_400:
        return time.astimezone().date().isoformat()
    size = abs(seconds)
    if size < 1:
        return "now"
    units = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
    text = next(f"{int(size // length)}{unit}" for unit, length in units if size >= length)
    return f"{text} ago" if seconds > 0 else f"in {text}"


def rfc3339(time: datetime) -> str:
    """Return a time in UTC as RFC 3339 with `Z`, microseconds where it has any."""
    from datetime import UTC

    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def local_time(time: datetime) -> str:
    """Return a time in this machine's zone as RFC 3339, to the second."""
    # Events come by the hundred thousand, and those of one minute differ in their seconds alone. Numbers are found faster than times.
    minute = _local_minute(
        time.toordinal(), time.hour * 60 + time.minute, time.tzinfo, time.fold, clock.tzname
    )
    if minute is None:
        return _zoned(time.astimezone().isoformat(timespec="seconds"))
    return f"{minute[0]}{_SECONDS[time.second]}{minute[1]}"


@lru_cache(maxsize=16)
def _local_minute(
    day: int, minute: int, zone: tzinfo | None, fold: int, _: tuple[str, str]
) -> tuple[str, str] | None:
    """What is before and after the seconds of a local time; None in a zone that differs by seconds, as before 1900."""
    from datetime import datetime

    time = datetime.fromordinal(day).replace(hour=minute // 60, minute=minute % 60, tzinfo=zone, fold=fold)
    text = _zoned(time.astimezone().isoformat(timespec="seconds"))
    return (text[:17], text[19:]) if text[17:19] == "00" else None


def _zoned(text: str) -> str:
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text
