"""What has happened to one connection and was not heard yet, and how whoever waits for it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from irons_local.gateway.attempt.course import Course, pause
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.streams.stream import wake


class Happenings:
    """The events of one connection, in order.

    Args:
        loop: the loop that runs it.

    Attributes:
        events: what was not heard yet.
        course: what runs the connection; None where that is a task.
    """

    __slots__ = ("_loop", "_wake", "course", "events")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wake: Callable[[], None] | None = None
        self.events: list[ev.Event] = []
        self.course: Course | None = None

    def add(self, event: ev.Event) -> None:
        """Have this be the next thing that happens, after those that have happened already."""
        self.events.append(event)
        self.wake()

    def instead(self, event: ev.Event) -> ev.Event:
        """What is to be heard in place of the end of a wait: an answer that came in the meantime, which counts."""
        events = self.events
        for at, each in enumerate(events):
            if isinstance(each, ev.Answered):
                events[at] = event
                return each
        return event

    def wake(self) -> None:
        """Have whoever waits look again."""
        waiting = self._wake
        if waiting is not None:
            self._wake = None
            waiting()

    async def until_woken(self) -> None:
        """Wait until there is something to look at."""
        course = self.course
        try:
            if course is not None and course.stepping:
                self._wake = course.go_on
                await pause()
                return
            future: asyncio.Future[None] = self._loop.create_future()
            self._wake = partial(wake, future)
            await future
        finally:
            self._wake = None
