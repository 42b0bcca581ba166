"""The logs as an export reads them: batches of records, each with the position after it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from irons.client.api import PAGE_SIZE
from irons.errors import ApiError, UsageError
from irons.record import NamedTuple
from irons_plugins.audit.changes import ChangeReader
from irons_plugins.audit.export.position import Position
from irons_plugins.audit.export.records import ExportRecord, change_record, event_record, rotated_record
from irons_plugins.audit.following import Patience

if TYPE_CHECKING:
    from irons.client.models.audit import AuditPage, EventCounts
    from irons.context import Context
    from irons_policy.event import Event

MOST_IDS = 500
"""Events that one request asks for by their ids."""

RECHECKED_EVERY = 1.0
"""Seconds between two looks at the events that may still change."""


class Batch(NamedTuple):
    """What is exported next.

    Attributes:
        records: The records.
        position: The position after them.
        more: More is there already.
        settling: The counts of some refusals are final within seconds.
    """

    records: Sequence[ExportRecord]
    position: Position
    more: bool = False
    settling: bool = False


class Source(Protocol):
    """A log."""

    def read(self, wait: float = 0.0) -> Batch:
        """Return what comes next; where there is nothing, after `wait` seconds at most."""
        ...


class EventSource:
    """Events, each once, when it no longer changes.

    Args:
        ctx: The call's context.
        sandbox: The name or id of the one sandbox; None for all.
        position: The position to go on from.
        patient: Survive failed requests, all but the first.
        final: Keep events back until they no longer change; without it each is given as it is now.
    """

    def __init__(
        self, ctx: Context, sandbox: str | None, position: Position, *, patient: bool, final: bool
    ) -> None:
        self._api = ctx.api
        self._name = sandbox
        self._asked = sandbox
        self._at = position
        self._final = final
        self._patience = Patience(ctx, patient=patient)
        self._checked = float("-inf")
        self._counting: frozenset[int] = frozenset()

    def read(self, wait: float = 0.0) -> Batch:
        """Return what comes next; where there is nothing, after `wait` seconds at most."""
        at = self._at
        page = self._patience.ask(
            lambda: self._api.audit(
                self._asked, at.token, page_size=PAGE_SIZE, wait=wait or None, export=True
            )
        )
        counts = self._checked_counts(page.counts)
        records: list[ExportRecord] = []
        lost = counts.ever - counts.left - at.known
        known = at.known + lost + len(page.events)
        open_ids = frozenset(page.unsettled) if self._final else frozenset[int]()
        fresh = [event for event in page.events if event.id not in open_ids]
        waiting = [event for event in page.events if event.id in open_ids]
        settled, pending, vanished = self._recheck(at.pending)
        if lost + vanished > 0:
            records.append(rotated_record("events", lost + vanished, self._name or ""))
        records += map(event_record, (*settled, *fresh))
        self._counting |= {event.id for event in waiting if event.id and _is_refusal(event)}
        pending = (*pending, *(event.id for event in waiting if event.id))
        self._counting &= frozenset(pending)
        self._at = Position(page.token or at.token, known, pending, counts.sandbox)
        return Batch(records, self._at, len(page.events) == PAGE_SIZE, bool(self._counting))

    def _checked_counts(self, counts: EventCounts | None) -> EventCounts:
        if counts is None:
            raise ApiError("the server does not say how many events there are")
        if self._at.sandbox and counts.sandbox != self._at.sandbox:
            raise UsageError(
                f"the cursor is of another sandbox than {self._name}, with the id {self._at.sandbox}",
                hint="name that id, or another cursor",
            )
        if counts.sandbox:
            # The name may be given to another sandbox.
            self._asked = counts.sandbox
        elif self._at.sandbox:
            raise UsageError(f"the cursor is of one sandbox, with the id {self._at.sandbox}, not of all")
        if counts.ever < self._at.known:
            raise UsageError(
                "the cursor is of another log: the server has had fewer events than were exported",
                hint="begin another export, with another cursor and another file",
            )
        return counts

    def _recheck(self, pending: tuple[int, ...]) -> tuple[list[Event], tuple[int, ...], int]:
        """Ask for events that may still change; returns those that no longer do, the others, and how many are gone."""
        now = time.monotonic()
        if not pending or now - self._checked < RECHECKED_EVERY:
            return [], pending, 0
        self._checked = now
        settled: list[Event] = []
        left: list[int] = []
        found = 0
        for begin in range(0, len(pending), MOST_IDS):
            ids = pending[begin : begin + MOST_IDS]
            page = self._ask_for(ids)
            open_ids = frozenset(page.unsettled)
            found += len(page.events)
            for event in page.events:
                if event.id in open_ids:
                    left.append(event.id)
                    if _is_refusal(event):
                        self._counting |= {event.id}
                else:
                    settled.append(event)
        return settled, tuple(left), len(pending) - found

    def _ask_for(self, ids: tuple[int, ...]) -> AuditPage:
        asked = ",".join(map(str, ids))
        return self._patience.ask(
            lambda: self._api.audit(self._asked, ids=asked, page_size=len(ids), export=True)
        )


class ChangeSource:
    """The change log, each change once.

    Args:
        ctx: The call's context.
        sandbox: The name or id of the one sandbox; None for all.
        position: The position to go on from.
        patient: Survive failed requests, all but the first.
    """

    def __init__(self, ctx: Context, sandbox: str | None, position: Position, *, patient: bool) -> None:
        self._at = position
        self._reader = ChangeReader(ctx, sandbox, patient=patient, token=position.token)

    def read(self, wait: float = 0.0) -> Batch:
        """Return what comes next; where there is nothing, after `wait` seconds at most."""
        found = self._reader.page(page_size=PAGE_SIZE, wait=wait or None)
        if self._reader.ever < self._at.token:
            raise UsageError(
                "the cursor is of another log: the server has had fewer changes than were exported",
                hint="begin another export, with another cursor and another file",
            )
        records = [change_record(each) for each in found]
        if self._reader.rotated:
            # Of all scopes: the log does not say of which sandbox they were.
            records.insert(0, rotated_record("changes", self._reader.rotated, ""))
        self._at = self._at._replace(token=self._reader.token)
        return Batch(records, self._at, len(found) == PAGE_SIZE)


def batches(source: Source, *, follow: bool, wait: float, settle: float) -> Iterator[Batch]:
    """Return batch after batch of a source.

    Args:
        source: The log.
        follow: Go on for ever.
        wait: Seconds that a request for more is held where the log is followed.
        settle: Seconds that the last refusals get to become final, where it is not.
    """
    until: float | None = None
    while True:
        batch = source.read(wait if follow else 0.0)
        yield batch
        if follow:
            if not batch.records:
                # Also a server that says it waits, and does not, is left in peace.
                time.sleep(0.05)
            continue
        if batch.more:
            continue
        until = until or time.monotonic() + settle
        if not batch.settling or time.monotonic() >= until:
            return
        time.sleep(RECHECKED_EVERY)


def _is_refusal(event: Event) -> bool:
    """Tell whether only the count of an event may change, within seconds; a connection may stay open for days."""
    return event.outcome == "refused"
