"""Notices that an answer is late, so that what is shown can be marked as stale before the request is given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LATE = 6.0
"""Seconds after which an answer is late: longer than a healthy server takes, and shorter than any wait for one is given up."""


class Lateness:
    """Looks from a thread of its own, and only every few seconds, whether a question is open for too long."""

    def __init__(self, late: Callable[[], None], after: float = LATE) -> None:
        """Take what to call, from that thread and once for a question, where its answer is late.

        Args:
            late: Called once for each question that is open for too long.
            after: Seconds after which it is.
        """
        self._late = late
        self._after = after
        self._since: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="irons-lateness", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop."""
        self._over.set()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Surround a question to the server."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def _work(self) -> None:
        told: float | None = None
        while not self._over.wait(self._after / 4):
            since = self._since
            if since is not None and since != told and time.monotonic() - since >= self._after:
                told = since
                self._late()
