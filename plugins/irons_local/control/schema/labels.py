"""Labels of sandboxes: their grammar, their bounds, and the filter of a list."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from irons_local.control.schema.errors import bad
from irons_local.control.schema.schemas import text

MOST = 16
"""Labels of one sandbox."""

_KEY = r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?"
_VALUE = r"[A-Za-z0-9._:/@+=-]{0,63}"
_WHOLE_KEY = re.compile(_KEY, re.ASCII)
_WHOLE_VALUE = re.compile(_VALUE, re.ASCII)

LABELS = {"type": ["object", "null"], "additionalProperties": {"type": "string"}, "maxProperties": MOST}
"""Schema of a sandbox's labels in a request; `checked_labels` has the bounds."""

FILTER = text(2_200, description="Labels that a sandbox must have, separated by commas: KEY=VALUE, or KEY.")
"""Schema of the query's parameter that filters by labels."""


class WantedLabel(NamedTuple):
    """One label that a sandbox must have; a value of None is met by any."""

    key: str
    value: str | None


def checked_labels(given: Mapping[str, object]) -> dict[str, str]:
    """Return labels as they are stored, ordered by key.

    Raises:
        HttpError: There are more than `MOST`, or a key or value is not one.
    """
    if len(given) > MOST:
        raise bad(f"a sandbox has at most {MOST} labels, not {len(given)}")
    return {_key(key): _value(key, value) for key, value in sorted(given.items())}


def wanted_labels(asked: str) -> tuple[WantedLabel, ...]:
    """Read a filter such as `team=web,ci`.

    Raises:
        HttpError: A key or value is not one, or there are more than `MOST`.
    """
    words = asked.split(",")
    if len(words) > MOST:
        raise bad(f"label names at most {MOST} labels, not {len(words)}")
    wanted: list[WantedLabel] = []
    for word in words:
        key, equals, value = word.partition("=")
        wanted.append(WantedLabel(_key(key), _value(key, value) if equals else None))
    return tuple(wanted)


def meets(labels: Mapping[str, str], wanted: tuple[WantedLabel, ...]) -> bool:
    """Whether labels meet every part of a filter."""
    return all(
        each.key in labels and (each.value is None or labels[each.key] == each.value) for each in wanted
    )


def _key(key: str) -> str:
    if not _WHOLE_KEY.fullmatch(key):
        raise bad(
            f"{key[:80]!r} is not a label's key: 1 to 63 letters, digits, '.', '_', '/' and '-', "
            "with a letter or digit at both ends"
        )
    return key


def _value(key: str, value: object) -> str:
    if not isinstance(value, str) or not _WHOLE_VALUE.fullmatch(value):
        raise bad(
            f"the value of label {key[:80]!r} is not valid: up to 63 letters, digits and any of . _ : / @ + = -"
        )
    return value
