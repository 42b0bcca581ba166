"""The audit log page by page: all that there is, then each event as it happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from irons.answers import Pages
from irons.api import PAGE_SIZE
from irons.errors import ApiError, AuthError, NotFound, Unreachable, Unsupported

if TYPE_CHECKING:
    from irons.answers import Rotated, Unrecorded
    from irons.api import Event
    from irons.context import Context
    from irons_plugins.audit.filters import Filter

POLL = 0.5
"""Seconds between polls of a server that has no long poll."""

LONG_POLL = 20
"""Seconds that a server with long poll may keep a question."""

PIPED_POLL = 2
"""The same where a pipe is written to: between two questions it is looked whether anybody still reads it."""

FIRST_BACK_OFF = 0.5
LONGEST_BACK_OFF = 5.0
"""Seconds behind a failed poll: the first time, and where doubling stays."""


class Log:
    """One sandbox's log, or everyone's; it remembers the token behind what it has read."""

    def __init__(
        self, ctx: Context, sandbox: str | None, wanted: Filter, limit: int | None, *, follow: bool
    ) -> None:
        """Take what is wanted.

        Args:
            ctx: The call's context.
            sandbox: Whose log; None for everyone's.
            wanted: Which events.
            limit: Only the newest so many of what is there already, for servers that heed it.
            follow: Survive failed polls, all but the first: with a warning and back-off.
        """
        self._ctx = ctx
        self._sandbox = sandbox
        self._wanted = wanted
        self._limit = limit
        self._patient = follow
        self._answered = False
        self._token = 0
        self._newest = 0
        self._asked_with = 0
        self._known = 0
        self._left_out = 0
        self._missing: tuple[Rotated | Unrecorded, ...] = ()

    def past(self) -> Iterator[Event]:
        """All that the server has, asked for until an answer is empty."""
        more: dict[str, Any] = {"limit": self._limit}
        turned = Pages()
        while True:
            before = self._token
            events = self._page(**more)
            if self._left_out and "page_size" not in more:
                # The server sent the newest alone, as it does to clients that know of no pages.
                self._token, self._known, more = before, 0, {"page_size": PAGE_SIZE}
                continue
            if self._left_out:
                self._ctx.progress(f"irons: the server left out {self._left_out:,} earlier events")
            yield from self._new(events)
            more.pop("limit", None)
            if not events or self._token == before:
                # Behind the events, where it is still to be seen.
                for missing in self._missing:
                    self._ctx.progress(f"irons: {missing.line}")
                return
            turned.to(self._token)

    def coming(self) -> Iterator[Event]:
        """Each new event, once, in order, for as long as anybody reads them."""
        waits = "wait" in self._ctx.api.extensions
        wait = LONG_POLL if self._ctx.streams.shows_person else PIPED_POLL
        while not self._ctx.streams.is_unread:
            asked = time.monotonic()
            events = self._page(wait=wait if waits else None)
            yield from self._new(events)
            if not events:
                # Also a server that says it waits, and does not, is left in peace.
                time.sleep(max(0.0, asked + POLL - time.monotonic()))

    def _page(self, **more: Any) -> tuple[Event, ...]:
        pause, warned = FIRST_BACK_OFF, False
        while True:
            try:
                events = self._asked(**more)
            except (AuthError, NotFound, Unsupported):
                raise
            except (ApiError, Unreachable) as error:
                if not (self._patient and self._answered):
                    raise
                if not warned:
                    self._ctx.progress(f"irons: {error.message}; trying on")
                warned = True
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_BACK_OFF)
            else:
                if warned:
                    self._ctx.progress("irons: the server answers again")
                self._answered = True
                return events

    def _asked(self, **more: Any) -> tuple[Event, ...]:
        token = self._token
        try:
            page = self._ctx.api.audit(self._sandbox, token, **self._wanted.params(), **more)
        except Unsupported as error:
            raise Unsupported(
                "this server has no audit log of all sandboxes at once",
                hint="name one: irons audit egress NAME",
                status=error.status,
            ) from None
        # A server that tells no token answers with the whole log again: what is new stands at its end.
        known = self._known if token == self._asked_with else 0
        self._asked_with, self._known = token, len(page.events)
        self._token = page.token or token
        self._left_out = page.left_out
        self._missing = (*page.rotated, *page.unrecorded)
        return page.events[known:]

    def _new(self, events: tuple[Event, ...]) -> Iterator[Event]:
        for event in events:
            if event.id is not None:
                if event.id <= self._newest:
                    continue
                self._newest = event.id
            if self._wanted(event):
                yield event
