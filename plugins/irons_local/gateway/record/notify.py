"""Tells the control plane that the audit log has grown, or that it cannot.

Of a refusal at once, then at most every 20 ms. Of anything else a little later, and more seldom: what is let through
is not kept waiting by a process that wakes up for its record. While no reader waits for new events that is once nothing more
is let through, as a rule: what the control plane then does with the records would keep the next connections waiting.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial

from irons_local.ipc.aio import AsyncLink
from irons_local.ipc.framing import LinkError
from irons_local.ipc.messages import Grown, LostRecords, body_of

PAUSE = 0.02
"""Seconds between two notices, at least."""
LATER = 0.005
"""Seconds that a record of what is let through waits for its notice: by then its connection is under way, as a rule."""
CALM = 0.05
"""Seconds between two notices of such records, at least, while a reader waits."""
QUIET = 0.5
"""Seconds without such a record after which there is a notice while none does."""
MOST = 3.0
"""Seconds that such a record waits for its notice at most."""


class Notifier:
    """Sends `audit` notices to whoever listens.

    Args:
        loop: the running loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._links: dict[AsyncLink, set[str]] = {}
        self._runs: set[str] = set()
        self._last = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._hurried = False
        self._followed = -math.inf
        self._stirred = False
        self._latest = math.inf
        self._counting = self._miscounted = False
        # Not of whichever cell's record came first.
        self._context = contextvars.copy_context()
        self._sending: dict[AsyncLink, asyncio.Task[None]] = {}

    def tell(self, link: AsyncLink) -> None:
        """Send notices to this link too."""
        self._links[link] = set()

    def forget(self, link: AsyncLink) -> None:
        """Send it no more."""
        self._links.pop(link, None)

    def links(self) -> Iterable[AsyncLink]:
        """Who listens."""
        return tuple(self._links)

    def followed(self, lease: float) -> None:
        """Readers wait for new events.

        Args:
            lease: seconds for which that counts.
        """
        self._followed = self._loop.time() + lease
        if self._timer is not None and not self._hurried:
            self._arm(hurried=False)

    def wrote(self, run: str, refused: bool) -> None:
        """A record was written.

        Args:
            run: where to.
            refused: it is of a refusal, for which people look.
        """
        self._runs.add(run)
        self._stirred = True
        if self._timer is None or (refused and not self._hurried):
            self._arm(refused)

    def _arm(self, hurried: bool) -> None:
        now, send = self._loop.time(), self._send
        if hurried:
            when = max(now, self._last + PAUSE)
        elif now < self._followed:
            when = max(now + LATER, self._last + CALM)
        else:
            when, send = now + QUIET, self._send_if_quiet
            self._latest = now + MOST
            self._stirred = False
        if self._timer is not None:
            when = min(when, self._timer.when())
            self._timer.cancel()
        self._hurried = hurried
        self._timer = self._loop.call_at(when, send, context=self._context)

    def _send_if_quiet(self) -> None:
        when = self._loop.time() + QUIET
        if self._stirred and when <= self._latest:
            self._stirred = False
            self._timer = self._loop.call_at(when, self._send_if_quiet, context=self._context)
        else:
            self._send()

    def unrecorded(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Refusals are missing in the log: `counts` is asked how many of each cell, and the listeners are notified."""
        self._miscounted = True
        if not self._counting:
            self._counting = True
            self._loop.call_soon(self._send_counts, counts, context=self._context)

    def _send_counts(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counting = self._miscounted
        if not self._miscounted:
            return
        self._miscounted = False
        self._loop.call_later(PAUSE, self._send_counts, counts, context=self._context)
        for link in self._links:
            with suppress(LinkError):
                link.post(body_of(LostRecords(dict(counts()))))

    def _send(self) -> None:
        self._timer, self._hurried, self._last = None, False, self._loop.time()
        runs, self._runs = self._runs, set()
        for link, untold in self._links.items():
            untold.update(runs)
            # A listener that does not read is notified once, when it reads again, no matter how much was written.
            if link not in self._sending:
                self._begin(link, untold)

    def _begin(self, link: AsyncLink, untold: set[str]) -> None:
        task = self._sending[link] = self._loop.create_task(self._notify(link, untold))
        task.add_done_callback(partial(self._sent, link))

    def _sent(self, link: AsyncLink, _: asyncio.Task[None]) -> None:
        del self._sending[link]
        untold = self._links.get(link)
        if untold and not link.closed:
            self._begin(link, untold)

    @staticmethod
    async def _notify(link: AsyncLink, untold: set[str]) -> None:
        # A control plane that is gone reads the files when it is back.
        with suppress(LinkError):
            while untold:
                await link.send(body_of(Grown(untold.pop())))
