"""Tells the control plane which questions are open: all of one cell's at once, so that a lost notice is made up for by the next."""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from irons_local.gateway.ask.asking import Asking
from irons_local.ipc.aio import AsyncLink
from irons_local.ipc.framing import LinkError
from irons_local.ipc.messages import OpenQuestions, body_of

PAUSE = 0.02
"""Seconds between two notices of one cell, at least."""
AGAIN = 60.0
"""Seconds until it is sent again while there is anything to tell: what has ended since is then seen."""


class QuestionNews:
    """Sends the questions of one cell.

    Args:
        loop: the running loop.
        cell: the cell's name.
        asking: its questions.
        links: gives who listens.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        cell: str,
        asking: Asking,
        links: Callable[[], Iterable[AsyncLink]],
    ) -> None:
        self._loop, self._cell, self._asking, self._links = loop, cell, asking, links
        self._last = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None
        # Not of whichever connection asked first.
        self._context = contextvars.copy_context()
        asking.changed = self.changed

    def changed(self) -> None:
        """Tell of a change, as soon as the last notice is long enough ago."""
        if self._timer is None:
            when = max(self._loop.time(), self._last + PAUSE)
            self._timer = self._loop.call_at(when, self._send, context=self._context)
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def close(self) -> None:
        """Tell no more than that nothing is asked here, and which questions that ended."""
        if self._last > -math.inf:
            self._asking.close()
            self._post([], 0)
        self._asking.changed = lambda: None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _send(self) -> None:
        self._timer, self._last = None, self._loop.time()
        told = [
            {
                "host": each.place.host.text,
                "port": each.place.port,
                "protocol": each.protocol,
                "since": each.since,
                "last": each.last,
                "count": each.count,
                "waiting": len(each.waiting),
                "requests": each.requests,
                "reason": each.reason,
                "ends": each.ends,
            }
            for each in self._asking.open()
        ]
        if self._post(told, self._asking.others):
            self._again = self._loop.call_later(AGAIN, self.changed, context=self._context)

    def _post(self, told: list[dict[str, Any]], others: int) -> bool:
        """Send a notice; True where there is something to send again."""
        ended = [
            {
                "host": each.place.host.text,
                "port": each.place.port,
                "since": each.since,
                "count": each.count,
                "why": each.why,
            }
            for each in self._asking.ended()
        ]
        answers = [
            {
                "host": each.place.host.text,
                "port": each.place.port,
                "reply": each.reply,
                "left": math.ceil(each.left),
            }
            for each in self._asking.answered()
        ]
        body = body_of(OpenQuestions(self._cell, told, others, ended, answers))
        for link in self._links():
            with suppress(LinkError):
                link.post(body)
        return bool(told or ended or answers)
