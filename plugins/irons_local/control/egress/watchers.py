"""Who watches the questions: the workers hear of it again and again, and let connections wait for no longer than that counts.

Someone watches all sandboxes, or, with an API key of the role `user`, those that the key created: connections of no other one wait for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Final

from irons_local.ipc.messages import Watched, WatchQuestions

LEASE = 3.0
"""Seconds for which a worker believes that a person watches."""
NOT_HELD = 0.001
"""Seconds that a connection waits where only a notifier hears of it: the gateway takes it for no wait."""
RENEW = 1.0
"""Seconds between two times that it is sent."""
_KEYS_APART = LEASE
"""Seconds by which a key must seem to be later than the last one to count as another one: a request that comes late makes one look
later, by no more than that on a machine that only is slow, and questions run out later than that after a key."""
_ENDS_SOON = 2 * RENEW
"""Seconds before the workers' lease ends in which they hear at once that someone goes on watching: where one leaves, another may be there."""
KEYS_WITHIN = 600.0
"""Seconds since the last key for which a person who was there still watches."""
_NO_LEASE: Final = 1e-9
"""Seconds, for none: a gateway from before takes no 0."""
_MOST_REMEMBERED = 200
"""Sandboxes whose keys are remembered though no one watches them now."""


class _Person:
    """Until when someone is known to watch, when a key was pressed there last, and how often that was seen."""

    __slots__ = ("keys", "pressed", "until")

    def __init__(self) -> None:
        self.until = self.pressed = float("-inf")
        self.keys = 0

    def look(self, now: float, seconds: float, idle: float | None) -> bool:
        """Extend it; gives whether the workers are to hear of that at once."""
        fresh = now >= self.until - _ENDS_SOON
        self.until = max(self.until, now + seconds + LEASE)
        if idle is not None and now - idle > self.pressed + _KEYS_APART:
            self.pressed, self.keys, fresh = now - idle, self.keys + 1, True
        return fresh


class Watchers:
    """Knows who watches, and tells the workers.

    Args:
        tell: tells each worker.
        hold: seconds for which a connection waits.
        clock: seconds that only ever grow.
    """

    def __init__(
        self,
        tell: Callable[[WatchQuestions], None],
        hold: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._hold, self._clock = tell, hold, clock
        self._all = _Person()
        self._of: dict[str, _Person] = {}
        self._listened = self._held = float("-inf")
        self._watching = asyncio.Event()

    def watch(self, seconds: float, idle: float | None, cells: Collection[str] | None = None) -> bool:
        """Someone looks at the questions, and will for so many seconds and a moment more.

        Args:
            seconds: how long this request is open.
            idle: seconds since a key was pressed there; None for who stays without keys.
            cells: the sandboxes that they may answer for; None is all.

        Returns:
            Whether that counts: whoever pressed no key for long is not there.
        """
        now = self._clock()
        if idle is not None and idle > KEYS_WITHIN:
            return False
        people = [self._all] if cells is None else [self._of.setdefault(each, _Person()) for each in cells]
        fresh = [each.look(now, seconds, idle) for each in people]
        if any(fresh):
            self._renew()
        self._watching.set()
        return True

    def listen(self, seconds: float, *, hold: bool) -> None:
        """A notifier hears of questions, and will for so many seconds and a moment more; with `hold` connections wait for it."""
        now = self._clock()
        ends = max(self._all.until, self._listened)
        fresh = now >= ends - _ENDS_SOON or (hold and now >= self._held - _ENDS_SOON)
        self._listened = now + seconds + LEASE
        if hold:
            self._held = self._listened
        if fresh:
            self._renew()
        self._watching.set()

    def watched(self, cells: Collection[str] | None = None) -> bool:
        """True while connections wait: someone watches, or a notifier for which they do.

        Args:
            cells: of which sandboxes: of any of them; None is of all.
        """
        now = self._clock()
        of = [] if cells is None else [self._of[each].until for each in cells if each in self._of]
        return now < max(self._all.until, self._held, *of)

    async def run(self) -> None:
        """Tell the workers for as long as someone watches, until cancelled."""
        while True:
            await self._watching.wait()
            while self._asks:
                self._renew()
                await asyncio.sleep(RENEW)
            self._watching.clear()

    @property
    def _asks(self) -> bool:
        """True while there is anyone to ask."""
        of = (each.until for each in self._of.values())
        return self._clock() < max(self._all.until, self._listened, *of)

    def _renew(self) -> None:
        # Never beyond the moment until which someone is known to watch.
        now, watched = self._clock(), max(self._all.until, self._held)
        until, hold = (watched, self._hold) if now < watched else (self._listened, NOT_HELD)
        self._tidy(now)
        cells: dict[str, Watched] = {}
        for cell, each in self._of.items():
            # Who watches this one alone makes its connections wait, and for as long as either is there.
            own = now < each.until
            its = max(each.until, watched) if own else until
            held = self._hold if own else hold
            cells[cell] = {"lease": _lease(its, now), "hold": held, "keys": self._all.keys + each.keys}
        self._tell(WatchQuestions(_lease(until, now), hold, self._all.keys, cells or None))

    def _tidy(self, now: float) -> None:
        """Forget sandboxes that no one has watched for long, once there are many."""
        for cell in [cell for cell, each in self._of.items() if each.until <= now][:-_MOST_REMEMBERED]:
            del self._of[cell]


def _lease(until: float, now: float) -> float:
    return min(LEASE, max(_NO_LEASE, until - now))
