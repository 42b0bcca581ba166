"""Where an export is: its position in a log, and the cursor file that remembers it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from irons.errors import UsageError
from irons.record import NamedTuple

VERSION = 1
"""Of the cursor file; a later one may have more members."""


class Position(NamedTuple):
    """Up to where a log is exported.

    Attributes:
        token: The page token after what was read.
        known: How many events of the log there ever were up to it, those included that retention took.
        pending: The ids of events before it that are not exported yet, because they may still change.
        sandbox: The id of the one sandbox that is exported; empty for all.
    """

    token: int = 0
    known: int = 0
    pending: tuple[int, ...] = ()
    sandbox: str = ""


class ExportCursor(NamedTuple):
    """What a cursor file says.

    Attributes:
        log: `events` or `changes`.
        format: `jsonl`, `csv` or `otlp`.
        to: The absolute path of the file that is written; empty for a collector.
        length: Bytes of that file that belong to `position`; what is beyond them is written again.
        position: Up to where the log is in these bytes.
    """

    log: str
    format: str
    to: str
    length: int
    position: Position

    def encode(self) -> bytes:
        """Return the text of the file."""
        place = self.position._asdict()
        fields = {
            "version": VERSION,
            **self._asdict(),
            "position": {**place, "pending": list(self.position.pending)},
        }
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def decode(cls, text: bytes, name: str) -> ExportCursor:
        """Read the text of the file `name`.

        Raises:
            UsageError: It is not a cursor file of this version.
        """
        try:
            fields = json.loads(text)
            if fields["version"] != VERSION:
                raise UsageError(f"{name} is the cursor file of another irons (version {fields['version']})")
            return cls(
                str(fields["log"]),
                str(fields["format"]),
                str(fields["to"]),
                _count(fields["length"]),
                _position(fields["position"]),
            )
        except (ValueError, LookupError, TypeError):
            raise UsageError(
                f"{name} is not a cursor file of irons audit export",
                hint="name another file; one that does not exist begins an export",
            ) from None


def _position(fields: Mapping[str, Any]) -> Position:
    pending = tuple(_count(each) for each in fields["pending"])
    return Position(_count(fields["token"]), _count(fields["known"]), pending, str(fields["sandbox"]))


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value
