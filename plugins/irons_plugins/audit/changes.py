"""Handler of `audit changes`: the change log, page after page, then each change as it is made."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from irons.client.api import PAGE_SIZE
from irons.command import Result
from irons.errors import UsageError
from irons.record import NamedTuple
from irons.text import rfc3339
from irons_plugins.audit.following import LONG_POLL, PIPED_POLL, POLL, Patience
from irons_plugins.audit.tables import view_of_changes

if TYPE_CHECKING:
    from irons.client.models.changes import ChangeFilters, ChangeRecord, ChangesPage
    from irons.context import Context
    from irons.settings.scope import Scope


class Times(NamedTuple):
    """Between which times changes are wanted."""

    since: datetime | None = None
    until: datetime | None = None

    def params(self) -> ChangeFilters:
        """Return the filters that ask a server for the same."""
        return {
            "since": rfc3339(self.since) if self.since else None,
            "until": rfc3339(self.until) if self.until else None,
        }


class ChangeReader:
    """One sandbox's changes, or all; remembers the token after what it has read.

    Args:
        ctx: The call's context.
        sandbox: The sandbox; None for all.
        times: Between which times.
        patient: Survive failed requests, all but the first.
        token: Changes up to it are known.

    Attributes:
        token: The page token after what was read.
        rotated: How many changes of the last page's range made room for others.
        lost: How many of all pages' ranges.
        ever: How many changes the server ever had.
    """

    def __init__(
        self,
        ctx: Context,
        sandbox: str | None,
        times: Times = Times(),  # noqa: B008 (it cannot change)
        *,
        patient: bool = False,
        token: int = 0,
    ) -> None:
        self.token = token
        self.rotated = self.lost = 0
        self.ever = 0
        self._ctx = ctx
        self._sandbox = sandbox
        self._times = times
        self._patience = Patience(ctx, patient=patient)

    def page(self, **more: object) -> tuple[ChangeRecord, ...]:
        """Ask for the next page."""
        asked: ChangeFilters = {**self._times.params(), **more}  # type: ignore[typeddict-item]

        def ask() -> ChangesPage:
            return self._ctx.api.changes(self._sandbox, self.token, **asked)

        page = self._patience.ask(ask)
        self.token = page.token or self.token
        self.rotated, self.ever = page.rotated, page.ever
        self.lost += page.rotated
        return page.changes

    def past(self, limit: int | None = None) -> Iterator[ChangeRecord]:
        """Return all that there is, or the newest `limit`, the oldest first."""
        found = self.page(page_size=PAGE_SIZE, limit=limit)
        while found:
            yield from found
            found = self.page(page_size=PAGE_SIZE)

    def coming(self) -> Iterator[ChangeRecord]:
        """Return each change as it is made, for as long as anybody reads them."""
        wait = LONG_POLL if self._ctx.streams.stdout_is_tty else PIPED_POLL
        while not self._ctx.streams.is_unread:
            asked = time.monotonic()
            found = self.page(wait=wait)
            yield from found
            if not found:
                # Also a server that says it waits, and does not, is left in peace.
                time.sleep(max(0.0, asked + POLL - time.monotonic()))


def changes(
    ctx: Context,
    *,
    scope: Scope,
    wide: bool,
    follow: bool,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
) -> Result:
    """Return the changes of one sandbox or all, oldest first; with `follow` go on with each as it is made."""
    if follow and ctx.settings["output"] == "json":
        raise UsageError(
            "one JSON document never ends while changes are followed", hint="-o jsonl prints an object a line"
        )
    if limit is not None and limit < 0:
        raise UsageError(f"--limit takes a number of changes, not {limit}")
    reader = ChangeReader(ctx, scope.sandbox, Times(since, until), patient=follow)
    return Result(
        _changes(ctx, reader, limit, follow=follow),
        view=view_of_changes(wide=wide, here=ctx.api.backend.local),
    )


def _changes(
    ctx: Context, reader: ChangeReader, limit: int | None, *, follow: bool
) -> Iterator[ChangeRecord]:
    past = reader.past(None if limit is None else max(1, limit))
    found: Iterator[ChangeRecord] = past if limit is None else iter(deque(past, maxlen=limit))
    first = next(found, None)
    if reader.rotated and first is not None and limit is None:
        ctx.progress(f"irons: {reader.rotated:,} earlier changes made room for others")
    told = reader.lost
    if first is not None:
        yield first
    yield from found
    if reader.lost > told and limit is None:
        ctx.progress(f"irons: {reader.lost - told:,} changes between these made room for others")
    if follow:
        yield from reader.coming()
