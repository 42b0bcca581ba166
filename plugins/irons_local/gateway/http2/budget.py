"""How many of the frames that cost more than they say a client may send (RFC 9113, section 10.5)."""

from __future__ import annotations

import time
from collections.abc import Callable

from irons_local.gateway.budget.bucket import Bucket
from irons_local.gateway.http2.frames import (
    DATA,
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
_OPENING = {SETTINGS: 12, PRIORITY: 8, PING: 2, HEADERS: 1}
"""Frames of each type with which a connection may open: they count against it alone.

A cell opens some hundreds of connections at once, and the rate of connections limits these frames for it already. A
client that measures how much the path holds says its settings again for each doubling of its window."""
_CALLED_FOR = {DATA: {WINDOW_UPDATE: 2, PING: 1}, SETTINGS: {SETTINGS: 1}, PING: {PING: 1}}
"""Frames of each type with which a client may answer one of its server's: a window given back to the stream and to the
connection, a measure of the path, an acknowledgement."""
_MOST_CALLED_FOR = 4_096
"""How many answers of one type may be outstanding: twice the DATA frames that a window of 16 MiB holds."""


class FrameBudget:
    """The frames of one connection, or of all connections of one cell.

    Args:
        above: the cell's; None for its own.
        clock: tells the time of a cell's, in seconds; a connection's has the same.

    Attributes:
        clock: the same.
    """

    def __init__(self, above: FrameBudget | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._above = above
        if above is not None:
            clock = above.clock
        self.clock: Callable[[], float] = clock
        times = _CELL if above is None else 1.0
        self._buckets = {
            kind: Bucket(rate * times, burst * times, clock) for kind, (rate, burst) in _RATES.items()
        }
        self._opening = {} if above is None else dict(_OPENING)
        self._called_for: dict[int, int] = {}

    def heard(self, kind: int) -> None:
        """The server has sent a frame, not an acknowledgement: what it calls for is free.

        Args:
            kind: the frame's type.
        """
        for answer, times in _CALLED_FOR.get(kind, {}).items():
            self._called_for[answer] = min(self._called_for.get(answer, 0) + times, _MOST_CALLED_FOR)

    def take(self, kind: int, times: int = 1) -> None:
        """Count a frame.

        Args:
            kind: its type.
            times: how many it costs as much as.

        Raises:
            Http2Error: there were too many of its type.
        """
        free = min(self._called_for.get(kind, 0), times)
        if free:
            self._called_for[kind] -= free
            times -= free
        bucket = self._buckets.get(kind)
        if bucket is not None and not all(bucket.take() for _ in range(times)):
            raise Http2Error("too many frames of one kind", ENHANCE_YOUR_CALM)
        if self._above is None:
            return
        opening = min(self._opening.get(kind, 0), times)
        if opening:
            self._opening[kind] -= opening
        if times > opening:
            self._above.take(kind, times - opening)
