"""The audit log page by page: all that there is, then each event as it happens."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from operator import lt
from typing import TYPE_CHECKING, TypeVar

from irons.client.api import PAGE_SIZE
from irons.client.models.audit import EventUpdate, Pages
from irons.errors import ApiError, AuthError, NotFound, Unreachable, Unsupported
from irons_policy.event import LARGEST

if TYPE_CHECKING:
    from typing import Unpack

    from irons.client.models.audit import AuditFilters, Rotated, Unrecorded
    from irons.context import Context
    from irons_plugins.audit.filters import Filter
    from irons_policy.event import Event

T = TypeVar("T")

POLL = 0.5
"""Seconds between polls of a server that has no long poll."""

LONG_POLL = 20
"""Seconds that a server with long poll may keep a question."""

PIPED_POLL = 2
"""The same where a pipe is written to: between two questions it is looked whether anybody still reads it."""

COLUMNS_SIZE = 2_000
"""Events of a page that has a list of values for each field."""

FROM_NOW = LARGEST
"""The cursor of changes of who knows of none yet."""

REMEMBERED = 10_000
"""Events that were shown last: what a server tells twice of one is shown once."""

FIRST_BACK_OFF = 0.5
LONGEST_BACK_OFF = 5.0
"""Seconds after a failed poll: the first time, and where doubling stays."""


class Patience:
    """Asks again, with back-off, where a request of a follower fails.

    Args:
        ctx: The call's context.
        patient: Ask again at all, once a first request was answered.
    """

    def __init__(self, ctx: Context, *, patient: bool) -> None:
        self._ctx = ctx
        self._patient = patient
        self._answered = False

    def ask(self, request: Callable[[], T]) -> T:
        """Return the answer of a request, made again until there is one."""
        pause, warned = FIRST_BACK_OFF, False
        while True:
            try:
                found = request()
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
                return found


class AuditLog:
    """One sandbox's log, or everyone's; it remembers the token after what it has read."""

    def __init__(
        self,
        ctx: Context,
        sandbox: str | None,
        wanted: Filter,
        limit: int | None,
        *,
        follow: bool,
        columns: str | None = None,
    ) -> None:
        """Take what is wanted.

        Args:
            ctx: The call's context.
            sandbox: Whose log; None for everyone's.
            wanted: Which events.
            limit: Only the newest so many of what is there already, for servers that heed it.
            follow: Survive failed polls, all but the first: with a warning and back-off.
            columns: The fields that are wanted, by their names on the wire with commas between them; None for all, as objects.
        """
        self._ctx = ctx
        self._columns = None if follow else columns
        self._sandbox = sandbox
        self._wanted = wanted
        self._limit = limit
        self._patience = Patience(ctx, patient=follow)
        self._token = 0
        self._newest = 0
        self._asked_with = 0
        self._known = 0
        self._left_out = 0
        self._missing: tuple[Rotated | Unrecorded, ...] = ()
        self._follow = follow
        self._cursor = FROM_NOW
        self._changed: tuple[Event, ...] = ()
        self._shown: OrderedDict[int, Event] = OrderedDict()

    def past(self) -> Iterator[Event]:
        """All that the server has, asked for until an answer is empty."""
        return chain.from_iterable(self._past())

    def _past(self) -> Iterator[Iterable[Event]]:
        more: AuditFilters = {"limit": self._limit}
        if self._tells_changes:
            more["changes"] = FROM_NOW
        if self._ctx.api.backend.local and self._limit is None:
            # It is irons' own server: of a long log no part is asked for twice.
            self._ask_for_columns(more)
        turned = Pages()
        while True:
            before = self._token
            events = self._page(**more)
            if self._left_out and "page_size" not in more:
                # The server sent the newest alone, as it does to clients that know of no pages.
                # Changes count from the first answer on.
                self._token, self._known = before, 0
                more.pop("limit", None)
                more.pop("changes", None)
                more["page_size"] = PAGE_SIZE
                self._ask_for_columns(more)
                continue
            if self._left_out:
                self._ctx.progress(f"irons: the server left out {self._left_out:,} earlier events")
            yield self._new(events)
            more.pop("limit", None)
            more.pop("changes", None)
            if not events or self._token == before:
                # Behind the events, where it is still to be seen.
                for missing in self._missing:
                    self._ctx.progress(f"irons: {missing.line}")
                return
            turned.to(self._token)

    def _ask_for_columns(self, more: AuditFilters) -> None:
        """Ask for the fields that are wanted alone, where the server can answer with these."""
        if self._columns is not None and "audit-columns" in self._ctx.api.extensions:
            more["columns"], more["page_size"] = self._columns, COLUMNS_SIZE

    def coming(self) -> Iterator[Event]:
        """Each new event in order, and again when it ended or was repeated, for as long as anybody reads them."""
        waits = "wait" in self._ctx.api.extensions
        wait = LONG_POLL if self._ctx.streams.stdout_is_tty else PIPED_POLL
        while not self._ctx.streams.is_unread:
            asked = time.monotonic()
            more: AuditFilters = {"wait": wait if waits else None}
            if self._tells_changes:
                more["changes"] = self._cursor
            events = self._page(**more)
            updates = tuple(self._updates(self._changed))
            yield from updates
            yield from self._new(events)
            if not events and not updates:
                # Also a server that says it waits, and does not, is left in peace.
                time.sleep(max(0.0, asked + POLL - time.monotonic()))

    @property
    def _tells_changes(self) -> bool:
        """Whether changes are wanted, and the server can tell them."""
        return self._follow and "audit-changes" in self._ctx.api.extensions

    def _page(self, **more: Unpack[AuditFilters]) -> tuple[Event, ...]:
        return self._patience.ask(lambda: self._asked(**more))

    def _asked(self, **more: Unpack[AuditFilters]) -> tuple[Event, ...]:
        token = self._token
        wanted: AuditFilters = {**self._wanted.params(), **more}
        try:
            page = self._ctx.api.audit(self._sandbox, token, **wanted)
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
        self._cursor, self._changed = page.change_token or self._cursor, page.changed
        self._missing = (*page.rotated, *page.unrecorded)
        return page.events[known:]

    def _new(self, events: tuple[Event, ...]) -> Iterable[Event]:
        """Those of a page that were not shown and that are wanted."""
        if not (self._wanted or self._follow):
            # Nothing is called for each event of a long log that is wanted whole.
            numbers = [self._newest, *(0 if event.id is None else event.id for event in events)]
            if all(map(lt, numbers, islice(numbers, 1, None))):
                self._newest = numbers[-1]
                return events
        return self._chosen(events)

    def _chosen(self, events: tuple[Event, ...]) -> Iterator[Event]:
        wanted = self._wanted or None
        for event in events:
            number = event.id
            if number is not None:
                if number <= self._newest:
                    continue
                self._newest = number
            if wanted is None or wanted(event):
                if self._follow:
                    self._remember(event)
                yield event

    def _updates(self, changed: tuple[Event, ...]) -> Iterator[Event]:
        """Events that were shown before and are not as they were, or that are wanted only now."""
        for event in changed:
            if event.id is None or not self._wanted(event) or self._shown.get(event.id) == event:
                continue
            # What ended as it is asked for is new to who asked; all else was shown when it began.
            first = bool(self._wanted.outcomes) and event.id not in self._shown
            self._remember(event)
            yield event if first else EventUpdate(*event)

    def _remember(self, event: Event) -> None:
        if event.id is not None:
            self._shown[event.id] = event
            self._shown.move_to_end(event.id)
            if len(self._shown) > REMEMBERED:
                self._shown.popitem(last=False)
