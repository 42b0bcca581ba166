"""What egress refused, or let through in vain, while a command ran in a sandbox: said at its end, on stderr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from irons.answers import Unrecorded
from irons.errors import IronsError
from irons.text import clean

if TYPE_CHECKING:
    from irons.api import Event
    from irons.context import Context

SHOWN = 10
"""Hosts named at most."""

REMEMBERED = 50
"""Earlier refusals whose counts are remembered: a repeat within a second is counted there, and is no event of its own."""

LOST = "unresolved,unreached"
"""Outcomes of what was let through and not reached."""

_Counts = Mapping[tuple[str, int | None, str], int]


class Refusals:
    """Marks where the audit log ends now; later tells what came behind."""

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

    def report(self) -> None:
        """Say what was refused since, and what was not reached: host, port, count, why, and the command that tells more."""
        if self._mark is None:
            return
        try:
            refused = self._refused(self._mark)
            lost = self._lost() if "audit-outcomes" in self._ctx.api.extensions else {}
            missing = self._ctx.api.audit(self._name, limit=1).unrecorded
        except IronsError as error:
            self._ctx.progress(f"irons: what egress refused is not known: {error.message}")
            return
        self._list(refused, "egress refused {} while it ran:")
        self._list(lost, "egress let {} through that reached no server:")
        for each in missing:
            if each.count > self._unrecorded:
                now = Unrecorded(each.sandbox, each.count - self._unrecorded)
                self._ctx.progress(f"irons: {now.line}")
        if refused or lost:
            self._ctx.progress(f"irons audit why {self._name} tells more")

    def _refused(self, mark: int) -> _Counts:
        found: dict[tuple[str, int | None, str], int] = {}
        for event in self._ctx.api.events(self._name, mark, verdict="blocked"):
            count = event.count - (0 if event.id is None else self._before.get(event.id, 0))
            if not event.allowed and count > 0:
                _add(found, event, event.reason, count)
        return found

    def _lost(self) -> _Counts:
        found: dict[tuple[str, int | None, str], int] = {}
        for event in self._ctx.api.events(self._name, self._end, outcome=LOST):
            if event.allowed and event.outcome in LOST.split(","):
                _add(found, event, event.ended or event.outcome, event.count)
        return found

    def _list(self, found: _Counts, head: str) -> None:
        if not found:
            return
        total = sum(found.values())
        self._ctx.progress(head.format(f"{total} connection{'s' if total != 1 else ''}"))
        for (host, port, reason), count in list(found.items())[:SHOWN]:
            where = f"{host}:{port}" if port else host
            times = f" ({count} times)" if count != 1 else ""
            self._ctx.progress(f"  {clean(where)}{times}" + (f": {clean(reason)}" if reason else ""))
        if len(found) > SHOWN:
            self._ctx.progress(f"  and {len(found) - SHOWN} more")


def _add(found: dict[tuple[str, int | None, str], int], event: Event, reason: str, count: int) -> None:
    what = event.host, event.port, reason
    found[what] = found.get(what, 0) + count
