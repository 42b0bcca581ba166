"""How many bytes of log a process writes: for each sandbox, for all sandboxes, and for its own lines."""

from __future__ import annotations

BURST = 64 << 10
"""Bytes that one sandbox may cause at once."""

RATE = 1 << 10
"""Bytes a second that one sandbox may cause."""

ALL_BURST = 1 << 20
"""Bytes at once that all sandboxes may cause together, and that a process may write of its own."""

ALL_RATE = 16 << 10
"""Bytes a second that all sandboxes may cause together, and that a process may write of its own."""

NOTE = 160
"""Bytes of the line that says how many lines were left out."""

SANDBOXES = 4096
"""Sandboxes whose part is remembered."""


class _Bucket:
    """Bytes that may still be written: filled at a rate, up to a burst."""

    __slots__ = ("_burst", "_filled", "_left", "_rate", "omitted")

    def __init__(self, burst: int, rate: int, now: float) -> None:
        self._burst, self._rate = burst, rate
        self._left, self._filled = float(burst), now
        self.omitted = 0

    def has(self, size: int, now: float) -> bool:
        """Whether there is room for `size` bytes."""
        self._left = min(self._burst, self._left + max(0.0, now - self._filled) * self._rate)
        self._filled = now
        return self._left >= size

    def take(self, size: int) -> None:
        """Use `size` bytes."""
        self._left -= size


class LineBudget:
    """Decides line by line; a flood of one sandbox neither fills the log nor hides the lines of others."""

    def __init__(self, now: float) -> None:
        """Begin with full buckets.

        Args:
            now: seconds of a clock that never goes back.
        """
        self._own = _Bucket(ALL_BURST, ALL_RATE, now)
        self._all = _Bucket(ALL_BURST, ALL_RATE, now)
        self._each: dict[str, _Bucket] = {}

    def admit(self, sandbox: str, size: int, now: float) -> int | None:
        """Decide on one line.

        Args:
            sandbox: id of the sandbox that it is about; empty for the process itself.
            size: bytes of the line.
            now: seconds, as in the constructor.

        Returns:
            How many lines were left out before this one; None where this one is left out too.
        """
        if not sandbox:
            return self._decide(self._own, (self._own,), size, now)
        own = self._each.get(sandbox)
        if own is None:
            if len(self._each) >= SANDBOXES:
                del self._each[next(iter(self._each))]
            own = self._each[sandbox] = _Bucket(BURST, RATE, now)
        return self._decide(own, (own, self._all), size, now)

    @staticmethod
    def _decide(counts: _Bucket, buckets: tuple[_Bucket, ...], size: int, now: float) -> int | None:
        if not all([bucket.has(size, now) for bucket in buckets]):  # noqa: C419 (each is filled)
            counts.omitted += 1
            return None
        omitted, counts.omitted = counts.omitted, 0
        for bucket in buckets:
            bucket.take(size + NOTE if omitted else size)
        return omitted
