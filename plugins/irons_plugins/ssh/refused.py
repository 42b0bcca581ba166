"""What egress refused while a command ran in a sandbox: said at its end, on stderr, where the server can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.errors import IronsError
from irons.text import clean

if TYPE_CHECKING:
    from irons.context import Context

SHOWN = 10
"""Hosts named at most."""

REMEMBERED = 50
"""Earlier refusals whose counts are remembered: a repeat within a second is counted there, and is no event of its own."""


class Refusals:
    """Marks where the audit log ends now; later tells what came behind."""

    def __init__(self, ctx: Context, name: str) -> None:
        """Ask the server for the mark; a server that can't tell, or fails, is left in peace."""
        self._ctx = ctx
        self._name = name
        self._mark: int | None = None
        self._before: dict[int, int] = {}
        try:
            if "audit-filters" in ctx.api.extensions:
                page = ctx.api.audit(name, limit=REMEMBERED, verdict="blocked")
                self._before = {event.id: event.count for event in page.events if event.id is not None}
                self._mark = min(self._before, default=page.token + 1) - 1
        except IronsError:
            return

    def report(self) -> None:
        """Say what was refused since: host, port, count, reason, and the command that tells more."""
        if self._mark is None:
            return
        found: dict[tuple[str, int | None, str], int] = {}
        try:
            for event in self._ctx.api.events(self._name, self._mark, verdict="blocked"):
                count = event.count - (0 if event.id is None else self._before.get(event.id, 0))
                if not event.allowed and count > 0:
                    what = event.host, event.port, event.reason
                    found[what] = found.get(what, 0) + count
        except IronsError as error:
            self._ctx.progress(f"irons: what egress refused is not known: {error.message}")
            return
        if not found:
            return
        total = sum(found.values())
        self._ctx.progress(f"egress refused {total} connection{'s' if total != 1 else ''} while it ran:")
        for (host, port, reason), count in list(found.items())[:SHOWN]:
            where = f"{host}:{port}" if port else host
            times = f" ({count} times)" if count != 1 else ""
            self._ctx.progress(f"  {clean(where)}{times}" + (f": {clean(reason)}" if reason else ""))
        if len(found) > SHOWN:
            self._ctx.progress(f"  and {len(found) - SHOWN} more")
        self._ctx.progress(f"irons audit why {self._name} tells more")
