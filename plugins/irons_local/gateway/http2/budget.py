"""How many of the frames that cost more than they say a client may send (RFC 9113, section 10.5)."""

from __future__ import annotations

from irons_local.gateway.budget.bucket import Bucket
from irons_local.gateway.http2.frames import (
    ENHANCE_YOUR_CALM,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http2Error,
)

MOST_STREAMS = 512
"""Requests under way on one connection at most."""
OFFERED_STREAMS = 256
"""What clients get for that."""
MOST_CONTINUATIONS = 32
MAX_BLOCK = 32_768
"""Bytes of a header block, as compressed."""
EMPTY = -1
"""A frame that carries nothing."""
_RATES = {
    HEADERS: (2_000.0, 10_000.0),
    RST_STREAM: (200.0, 1_000.0),
    SETTINGS: (5.0, 50.0),
    PING: (50.0, 500.0),
    PRIORITY: (200.0, 2_000.0),
    WINDOW_UPDATE: (20_000.0, 50_000.0),
    EMPTY: (200.0, 1_000.0),
}
"""Frames per second on average, and in one go, of each type on one connection."""
_CELL = 2.0
"""How many connections' worth one cell has."""


class Budget:
    """The frames of one connection, or of all connections of one cell.

    Args:
        above: the cell's; None for its own.
    """

    def __init__(self, above: Budget | None = None) -> None:
        self._above = above
        times = _CELL if above is None else 1.0
        self._buckets = {kind: Bucket(rate * times, burst * times) for kind, (rate, burst) in _RATES.items()}

    def take(self, kind: int, times: int = 1) -> None:
        """Count a frame.

        Args:
            kind: its type.
            times: how many it costs as much as.

        Raises:
            Http2Error: there were too many of its type.
        """
        bucket = self._buckets.get(kind)
        if bucket is not None and not all(bucket.take() for _ in range(times)):
            raise Http2Error("too many frames of one kind", ENHANCE_YOUR_CALM)
        if self._above is not None:
            self._above.take(kind, times)
