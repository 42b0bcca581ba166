"""How events are shown to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from irons.text import clean, local_time

if TYPE_CHECKING:
    from irons.api import Event


def line(event: Event) -> str:
    """Return the line that the wire contract gives an event: `TIMESTAMP  VERDICT  HOST  (mode: MODE)`."""
    time = local_time(event.time) if event.time else "-"
    text = f"{time}  {'ALLOWED' if event.allowed else 'DENIED '}  {clean(event.host)}"
    return f"{text}  (mode: {clean(event.mode)})" if event.mode else text


def verdict(row: Mapping[str, Any]) -> str:
    """Return the verdict's word in a table, where what only mode warn let pass shows as such."""
    if row["verdict"] == "warn":
        return "WOULD-DENY"
    return "ALLOWED" if row.get("allowed", row["verdict"] == "allowed") else "DENIED"
