"""What the log says of one attempt: every one is told exactly once, however it goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from irons_plugins.local.gateway.folding import Refusal
from irons_plugins.local.gateway.journal import Entry, JournalError
from irons_plugins.local.gateway.verdicts import Judged, RefusedError, untouched

if TYPE_CHECKING:
    from irons_plugins.local.gateway.cell import Cell
    from irons_plugins.local.gateway.context import Context
    from irons_plugins.local.gateway.dial import Address
    from irons_plugins.local.gateway.session import Session
    from irons_plugins.local.policy import Host


class Account:
    """Writes the records of one attempt.

    Args:
        context: where they are written.
        cell: whose attempt it is.
        port: the port it connected to.

    Attributes:
        protocol: what it speaks, as far as is known.
        told: it needs no more mention: it was refused and told so, or is none of the log's business.
    """

    def __init__(self, context: Context, cell: Cell, port: int) -> None:
        self._context = context
        self._cell = cell
        self._port = port
        self._entry: Entry | None = None
        self._others: set[str] = set()
        self._began = time.monotonic()
        self.protocol = "tcp"
        self.told = False

    def others(self, judged: Judged) -> None:
        """Record, under both names, that only the mode lets a second name pass.

        Raises:
            JournalError: it could not be written.
        """
        if judged.others and self._entry is not None:
            self._entry.verdict(**judged.record(self._port, self.protocol))
        for other in judged.others:
            if other.text not in self._others:
                self._others.add(other.text)
                fields = judged._replace(host=other).record(self._port, self.protocol)
                self._context.journal.event(self._cell.name, **fields)

    def open(self, host: Host) -> None:
        """Write the opening record: from here on something outside may hear of it.

        Raises:
            JournalError: it could not be written.
        """
        fields = {"host": host.text, "port": self._port, "protocol": self.protocol}
        self._entry = self._context.journal.open(self._cell.name, **fields)

    def verdict(self, judged: Judged, address: Address | None = None) -> None:
        """Write the verdict record.

        Raises:
            JournalError: it could not be written.
        """
        if self._entry is not None:
            fields = judged.record(self._port, self.protocol)
            self._entry.verdict(**fields, **({} if address is None else {"address": str(address)}))

    def refused(self, error: RefusedError, *, dialled: bool) -> None:
        """Write a refusal: in the attempt's own record where it is open, else folded with its like.

        Args:
            error: the refusal.
            dialled: the attempt itself was let through; what is refused came later on it.

        Raises:
            JournalError: it could not be written.
        """
        self.told = True
        self._context.folder.remember(self._cell.name, error.refusal, error.command)
        if self._entry is None or dialled:
            self._context.folder.refused(self._cell.name, error.refusal)
        else:
            self._entry.verdict(**error.refusal.record())

    def close(self, host: Host, judged: Judged | None, session: Session | None, ending: str) -> None:
        """Write the closing record; of an attempt that never came to anything its only one."""
        duration = round((time.monotonic() - self._began) * 1000)
        moved = (session.bytes_out, session.bytes_in) if session is not None else (0, 0)
        fields = {"bytes_out": moved[0], "bytes_in": moved[1], "duration_ms": duration, "ended": ending}
        if self._entry is not None:
            self._entry.close(protocol=self.protocol, **fields)
        elif not self.told:
            self._told_at_last(
                judged or untouched(self._cell.policy, host, self._port, self.protocol), fields
            )

    def _told_at_last(self, judged: Judged | Refusal, fields: dict[str, Any]) -> None:
        if isinstance(judged, Refusal):
            self._context.folder.refused(self._cell.name, judged)
            return
        try:
            self._context.journal.event(self._cell.name, **judged.record(self._port, self.protocol), **fields)
        except JournalError as error:
            self._context.journal.lost += 1
            self._context.complain(str(error))
