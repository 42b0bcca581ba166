"""What a record of a gateway's log says, held to the types and sizes that an event's columns have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from irons_policy.causes import Cause
from irons_policy.event import LARGEST, RECORDED, NumberField, TextField, WordField
from irons_policy.modes import VERDICTS

INTERRUPTED: Final = "interrupted"
_MOST = {name: kind.most for name, kind in RECORDED.items() if isinstance(kind, TextField)}
_NUMBERS = frozenset(name for name, kind in RECORDED.items() if isinstance(kind, NumberField))
# A verdict is read with `allowed`, which says the same of a record without one.
_WORDS = {
    name: frozenset(kind.words)
    for name, kind in RECORDED.items()
    if isinstance(kind, WordField) and name != "verdict"
}
_LATEST = 253_402_300_799_999_999
_CELL = 64


def fields(record: Mapping[str, Any], report: Callable[[str], None]) -> dict[str, Any]:
    """Read what a record says that an event has a column for.

    Args:
        record: one line of a log.
        report: called with the name of each field that is too large, or whose value is not one of the known words;
            such a field is left out, and the rest of the record is taken.
    """
    said: dict[str, Any] = {}
    for name, value in record.items():
        most = _MOST.get(name)
        if most is not None:
            if isinstance(value, str):
                if len(value) > most:
                    report(name)
                elif value:
                    said[name] = value if value.isascii() else value.encode("utf-8", "replace").decode()
                elif name != "host":
                    said[name] = None
            elif value is None and name != "host":
                said[name] = None
        elif name in _NUMBERS:
            if isinstance(value, int | float):
                if -1 < value <= LARGEST:
                    said[name] = int(value)
                else:
                    report(name)
        elif name in _WORDS:
            if isinstance(value, str) and value in _WORDS[name]:
                said[name] = value
            elif value is not None:
                report(name)
    if said.get("port") == 0:
        # ICMP and the like have none.
        said["port"] = None
    verdict, allowed = record.get("verdict"), record.get("allowed")
    if verdict in VERDICTS:
        said["verdict"], said["allowed"] = verdict, int(verdict != "blocked")
    elif isinstance(allowed, bool):
        said["verdict"], said["allowed"] = "allowed" if allowed else "blocked", int(allowed)
    cell = record.get("cell")
    if isinstance(cell, str):
        said["cell"] = cell[:_CELL]
    at = record.get("at")
    said["at"] = at if isinstance(at, int) and 0 <= at <= _LATEST else 0
    return said


def row(identity: int, said: dict[str, Any]) -> dict[str, Any]:
    """Make a whole row of the table; an attempt that was never judged was never let through."""
    made: dict[str, Any] = dict.fromkeys(RECORDED)
    made |= {"host": "", "cell": "", "at": 0, "count": 1}
    if "verdict" not in said:
        made |= {"allowed": 0, "verdict": "blocked"}
        if said.get("ended") == INTERRUPTED:
            made |= {
                "reason": "the gateway ended before the attempt was judged",
                "cause": Cause.NO_POLICY.value,
            }
    return made | said | {"id": identity}
