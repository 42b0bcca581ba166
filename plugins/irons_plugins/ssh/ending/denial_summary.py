"""What egress refused, or let through in vain, while a command ran in a sandbox: printed at its end, on stderr."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

from irons.client.models.audit import Unrecorded
from irons.errors import IronsError
from irons.record import NamedTuple
from irons.text import clean

if TYPE_CHECKING:
    from typing import Unpack

    from irons.client.models.audit import AuditFilters, AuditPage
    from irons.context import Context
    from irons_policy.event import Event

SHOWN = 10
"""Hosts named at most."""

REMEMBERED = 50
"""Earlier refusals whose counts are remembered: a repeat within a second is counted there, and is not an event of its own."""

LOST = "unresolved,unreached"
"""Outcomes of what was let through and not reached."""


class Tried(NamedTuple):
    """Connections to one place that came to nothing for one reason; `port` is None where there is none, as for a question."""

    host: str
    port: int | None
    reason: str
    count: int  # type: ignore[assignment]


class Findings(NamedTuple):
    """What came to nothing while a command ran.

    Attributes:
        refused: What egress refused.
        unreachable: What it let through and that reached no server.
        unrecorded: Lines about what the log does not have.
        asked: What the agent inside asked a person for, without a connection.
    """

    refused: tuple[Tried, ...] = ()
    unreachable: tuple[Tried, ...] = ()
    unrecorded: tuple[str, ...] = ()
    asked: tuple[Tried, ...] = ()


class Refusals:
    """Marks where the audit log ends now; later tells what came after."""

    def __init__(self, ctx: Context, name: str) -> None:
        """Ask the server for the mark; a server that can't tell, or fails, is left in peace."""
        self._ctx = ctx
        self._name = name
        self._mark: int | None = None
        self._end = 0
        self._before: dict[int, int] = {}
        self._unrecorded = 0
        try:
            if "audit-filters" in ctx.api.extensions:
                page = ctx.api.audit(name, limit=REMEMBERED, verdict="blocked")
                self._before = {event.id: event.count for event in page.events if event.id is not None}
                self._mark = min(self._before, default=page.token + 1) - 1
                self._end = page.token
                self._unrecorded = sum(each.count for each in page.unrecorded)
        except IronsError:
            return

    def found(self) -> Findings | None:
        """Return what came since the mark; None where the server can't tell. Raises `IronsError`."""
        if self._mark is None:
            return None
        events, page = self._events(self._mark, verdict="blocked")
        refused, asked = self._refused(events)
        lost: tuple[Tried, ...] = ()
        if "audit-outcomes" in self._ctx.api.extensions:
            events, page = self._events(self._end, outcome=LOST)
            lost = _lost(events)
        now = (Unrecorded(each.sandbox, each.count - self._unrecorded) for each in page.unrecorded)
        return Findings(refused, lost, tuple(each.line for each in now if each.count > 0), asked)

    def report(self) -> None:
        """Say what was refused since, and what was not reached: host, port, count, why, and the command that shows more."""
        try:
            found = self.found()
        except IronsError as error:
            self._ctx.progress(f"irons: egress denials cannot be shown: {error.message}")
            return
        if found is None:
            return
        self._ctx.refused(self._name, [(each.host, each.port) for each in found.refused])
        self._list(found.refused, "egress denied {} connection{} while it ran:")
        self._list(found.unreachable, "egress let {} connection{} through that reached no server:")
        self._list(found.asked, "the agent made {} request{} for a person while it ran:")
        for line in found.unrecorded:
            self._ctx.progress(f"irons: {line}")
        if found.refused or found.unreachable or found.asked:
            self._ctx.progress(f"irons audit why {self._name} shows more")

    def _events(self, token: int, **filters: Unpack[AuditFilters]) -> tuple[Iterable[Event], AuditPage]:
        """Return the events after a token, and the first page of them: after most commands there is one, and it is empty."""
        api = self._ctx.api
        page = api.audit(self._name, token, **filters)
        if not page.events:
            return (), page
        if page.left_out or not page.token:
            return api.events(self._name, token, **filters), page
        return chain(page.events, api.events(self._name, page.token, **filters)), page

    def _refused(self, events: Iterable[Event]) -> tuple[tuple[Tried, ...], tuple[Tried, ...]]:
        """Return the connections that were refused, and what was only asked for."""
        from irons_policy.event import REQUEST_PROTOCOL

        found: dict[tuple[str, int | None, str], int] = {}
        asked: dict[tuple[str, int | None, str], int] = {}
        for event in events:
            count = event.count - (0 if event.id is None else self._before.get(event.id, 0))
            if not event.allowed and count > 0:
                _add(asked if event.protocol == REQUEST_PROTOCOL else found, event, event.reason, count)
        return _tried(found), _tried(asked)

    def _list(self, found: tuple[Tried, ...], head: str) -> None:
        if not found:
            return
        total = sum(each.count for each in found)
        self._ctx.progress(head.format(total, "" if total == 1 else "s"))
        for each in found[:SHOWN]:
            where = f"{each.host}:{each.port}" if each.port else each.host
            times = f" ({each.count} times)" if each.count != 1 else ""
            self._ctx.progress(
                f"  {clean(where)}{times}" + (f": {clean(each.reason)}" if each.reason else "")
            )
        if len(found) > SHOWN:
            self._ctx.progress(f"  and {len(found) - SHOWN} more")


def _lost(events: Iterable[Event]) -> tuple[Tried, ...]:
    found: dict[tuple[str, int | None, str], int] = {}
    for event in events:
        if event.allowed and event.outcome in LOST.split(","):
            _add(found, event, event.ended or event.outcome, event.count)
    return _tried(found)


def _add(found: dict[tuple[str, int | None, str], int], event: Event, reason: str, count: int) -> None:
    what = event.host, event.port, reason
    found[what] = found.get(what, 0) + count


def _tried(found: dict[tuple[str, int | None, str], int]) -> tuple[Tried, ...]:
    return tuple(Tried(*what, count) for what, count in found.items())
