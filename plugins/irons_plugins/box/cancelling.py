"""Whether the task was cancelled that waits for a call: calls look here, and end what they have started."""

from __future__ import annotations

import threading
from contextvars import ContextVar

CANCELLED: ContextVar[threading.Event | None] = ContextVar("irons_cancelled", default=None)
"""Set once the task is cancelled that waits for the call of this context; None where no task does."""


def is_cancelled() -> bool:
    """Tell whether the task was cancelled that waits for this call."""
    cancelled = CANCELLED.get()
    return cancelled is not None and cancelled.is_set()
