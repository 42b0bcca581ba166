"""How events are shown to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from irons.client.models.audit import EventUpdate
from irons.text import clean, local_time
from irons.words import verdict_word

if TYPE_CHECKING:
    from irons_policy.event import Event


LOST = ("unresolved", "unreached")
"""Outcomes of what was let through and not reached."""


def line(event: Event) -> str:
    """Return the line that the wire contract gives an event: `TIMESTAMP  VERDICT  HOST  (mode: MODE)`."""
    time = local_time(event.time) if event.time else "-"
    mode = f"  (mode: {clean(event.mode)})" if event.mode else ""
    text = f"{time}  {'ALLOWED' if event.allowed else 'DENIED '}  {clean(event.host)}{mode}"
    # After what the contract has: of what a rule would have refused, of what was let through in vain, and of what was shown before.
    if event.verdict == "warn":
        text += "  (would-deny)"
    if isinstance(event, EventUpdate):
        return f"{text}  ({_became(event)})"
    return f"{text}  ({event.outcome})" if event.outcome in LOST else text


def _became(event: Event) -> str:
    """Return how an event is now that was shown before."""
    told = [clean(event.outcome)] if event.outcome not in ("", "refused") else []
    if event.count > 1:
        told.append(f"{event.count:,} times")
    if event.duration_ms is not None and event.outcome not in LOST and event.allowed:
        told.append(f"after {event.duration_ms / 1000:,.1f} s")
    if event.bytes_in or event.bytes_out:
        told.append(f"{event.bytes_out or 0:,} bytes out, {event.bytes_in or 0:,} in")
    return ", ".join(told) or "changed"


def outcome(row: Mapping[str, Any]) -> str:
    """Return what became of a connection where the verdict does not say it: it was not reached, or was cut short."""
    return "" if row["outcome"] in ("reached", "refused") else str(row["outcome"])


def reason(row: Mapping[str, Any]) -> str:
    """Return why: of what was let through and not reached how that ended, else what decided."""
    return str(row["ended"] if row["outcome"] in LOST and row["ended"] else row["reason"])


def size(row: Mapping[str, Any]) -> str:
    """Return the bytes that went out and came in."""
    return f"{row['bytes_out'] or 0:,} / {row['bytes_in'] or 0:,}"


def verdict(row: Mapping[str, Any]) -> str:
    """Return the verdict's word in a table, where what only mode warn let pass shows as such."""
    if row["verdict"] == "warn":
        return verdict_word("warn")
    return verdict_word("allowed" if row.get("allowed", row["verdict"] == "allowed") else "blocked")
