"""What an export consists of: events, changes, and what retention took before it was exported."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from irons.record import NamedTuple

if TYPE_CHECKING:
    from irons.client.models.changes import ChangeRecord
    from irons_policy.event import Event

EVENT_TYPE, CHANGE_TYPE, ROTATED_TYPE = "egress", "change", "rotated"


class ExportRecord(NamedTuple):
    """One record.

    Attributes:
        type: `egress`, `change` or `rotated`.
        fields: Its members, as `-o jsonl` has them.
    """

    type: str
    fields: Mapping[str, Any]


def event_record(event: Event) -> ExportRecord:
    """Return the record of an event."""
    return ExportRecord(EVENT_TYPE, event._asdict())


def change_record(change: ChangeRecord) -> ExportRecord:
    """Return the record of a change."""
    return ExportRecord(CHANGE_TYPE, change._asdict())


def rotated_record(log: str, count: int, sandbox: str) -> ExportRecord:
    """Return the record of what retention took before it was exported.

    Args:
        log: `events` or `changes`.
        count: How many.
        sandbox: The name of the one sandbox that is exported; empty for all.
    """
    return ExportRecord(
        ROTATED_TYPE,
        {
            "time": datetime.now(UTC),
            "sandbox": sandbox,
            "log": log,
            "count": count,
            "reason": f"{count:,} {log if count != 1 else log[:-1]} made room for others before they were exported",
        },
    )
