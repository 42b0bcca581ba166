"""Words into values: durations, sizes, times and sandbox names, each with a reason where it is invalid."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from irons.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from irons.command import ValueType

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,6})?"
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def read_value(kind: ValueType, word: str, name: str) -> object:
    """Read an option's word as its type says; `name` is what messages call the option.

    Raises:
        UsageError: The word is not of that type.
    """
    match kind:
        case "text":
            return word
        case "int":
            if not re.fullmatch(r"[+-]?[0-9]{1,18}", word):
                raise UsageError(f"{name} takes a whole number, not {word!r}")
            return int(word)
        case "float":
            try:
                return float(word)
            except ValueError:
                raise UsageError(f"{name} takes a number, not {word!r}") from None
        case "seconds":
            return seconds(word, name)
        case "size":
            return size(word, name)
        case "time":
            return moment(word, name)


def seconds(word: str, name: str = "a duration") -> float:
    """Read `90`, `1.5s`, `10m`, `2h`, `1h30m` as seconds; of several units each is smaller than the last. Raises `UsageError`."""
    if re.fullmatch(rf"{_NUMBER}(?:ms|[smhdw]?)|(?:{_NUMBER}(?:ms|[smhdw])){{2,6}}", word):
        found = re.findall(rf"({_NUMBER})(ms|[smhdw]?)", word)
        units = [_SECONDS[unit] for _, unit in found]
        if all(before > after for before, after in pairwise(units)):
            return sum(float(number) * unit for (number, _), unit in zip(found, units, strict=True))
    raise UsageError(f"{name} takes a duration such as 90, 30s, 10m or 1h30m, not {word!r}")


def size(word: str, name: str = "a size") -> int:
    """Read `512M`, `2G`, `1024` as bytes, in powers of 1024. Raises `UsageError`."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([kmgtKMGT]?)(?:i?[bB])?", word)
    if not found:
        raise UsageError(f"{name} takes a size such as 512M or 2G, not {word!r}")
    return int(float(found[1]) * _BYTES[found[2].lower()])


def moment(word: str, name: str = "a time") -> datetime:
    """Read an RFC 3339 time, or `10m` for that long ago, as an aware time. Raises `UsageError`."""
    from datetime import UTC, datetime, timedelta

    try:
        return datetime.now(UTC) - timedelta(seconds=seconds(word))
    except (UsageError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(word)
        found = found if found.tzinfo else found.astimezone()
        # The year must be one in UTC too.
        found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{name} takes an RFC 3339 time such as 2026-02-19T16:42:26Z, or 10m for that long ago, not {word!r}"
        ) from None
    return found


def check_sandbox_name(name: str) -> str:
    """Return a sandbox name that can be a path segment and a word; what a server asks beyond that is the server's to say.

    Raises:
        UsageError: It is empty, too long, `.`/`..`, begins with a dash, or has a slash, white space or a control character.
    """
    if not name:
        raise UsageError("the sandbox name is empty")
    if len(name) > 128:
        raise UsageError(f"the sandbox name is {len(name)} characters long; 128 is the most")
    if name in (".", ".."):
        raise UsageError(f"{name!r} is not a sandbox name")
    if name.startswith("-"):
        raise UsageError(f"a sandbox name does not begin with a dash: {name!r}")
    for character in name:
        if character in "/\\:" or character.isspace() or not character.isprintable():
            raise UsageError(f"a sandbox name has no {_character_name(character)}: {name!r}")
    return name


def _character_name(character: str) -> str:
    if character.isspace():
        return "white space"
    return repr(character) if character.isprintable() else "control characters"
