"""What the log says of one attempt: each is recorded exactly once, however it ends."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from irons_local.gateway.ask.asking import UNCOVERED
from irons_local.gateway.decide.verdicts import Judged, RefusedError, untouched
from irons_local.gateway.record.journal import Entry
from irons_local.gateway.record.refusal import Refusal
from irons_local.times import now
from irons_policy.causes import Cause, Outcome
from irons_policy.event import record

if TYPE_CHECKING:
    from irons_local.gateway.shared.cell import Cell
    from irons_local.gateway.shared.context import Context
    from irons_policy.addresses import Address
    from irons_policy.hostnames import Host

_log = logging.getLogger(__name__)
OTHERS = 256
"""Second names of one connection that are remembered, so that each has one record."""


class Ending(NamedTuple):
    """How an attempt ended.

    Attributes:
        text: one line for the log.
        outcome: what became of it.
        cause: what ended it; None where its verdict's cause stays.
    """

    text: str
    outcome: Outcome
    cause: Cause | None


class Volume(NamedTuple):
    """Bytes that went each way.

    Attributes:
        out: to the server.
        back: from the server to the client.
    """

    out: int
    back: int


NOTHING = Volume(0, 0)


class Account:
    """Writes the records of one attempt.

    Args:
        context: where they are written.
        cell: whose attempt it is.
        port: the port it connected to.

    Attributes:
        protocol: what it speaks, as far as is known.
        since: when it began, microseconds since 1970: no record of it is older.
        told: it needs no further record: its refusal is recorded, or it does not belong in the log.
    """

    def __init__(self, context: Context, cell: Cell, port: int) -> None:
        self._context = context
        self._cell = cell
        self._port = port
        self._entry: Entry | None = None
        self._host = ""
        self._reaching = False
        self._others: set[str] = set()
        self._began = time.monotonic()
        self._traced = _log.isEnabledFor(logging.DEBUG)
        self.since = now()
        self.protocol = "tcp"
        self.told = False

    @property
    def sandbox(self) -> str:
        """The id of its sandbox."""
        return self._cell.name

    @property
    def connection(self) -> str:
        """The id of the connection, as its records have it: the run and the number in it; empty before the first record."""
        return "" if self._entry is None else self._entry.name

    def trace(self, what: str, *values: object) -> None:
        """Log a step of the connection, where such lines are logged at all."""
        if self._traced:
            _log.debug(what, *values, extra={"of": self})

    def others(self, judged: Judged) -> None:
        """Record, under both names, that only the mode lets a second name pass.

        Raises:
            JournalError: it could not be written.
        """
        if judged.others and self._reaching and self._entry is not None:
            self._entry.verdict(**judged.record(self._port, self.protocol))
        for other in judged.others:
            if other.text not in self._others:
                if len(self._others) >= OTHERS:
                    # One that comes again has another record: too many are better than none.
                    self._others.clear()
                self._others.add(other.text)
                fields = judged._replace(host=other).record(self._port, self.protocol)
                self._context.journal.event(self._cell.name, **fields)

    def accepted(self, host: Host) -> None:
        """Write the opening record, before anything else is done with the connection.

        Args:
            host: the name, or the address, it was opened to.

        Raises:
            JournalError: it could not be written.
        """
        self._host = host.text
        self._entry = self._context.journal.open(self._cell.name, **self._opening())
        if self._traced:
            self.trace("accepted, to %s port %d", self._host, self._port)

    def reach(self, host: Host) -> None:
        """From here on something outside may hear of it: the opening record names the host.

        Raises:
            JournalError: it could not be written.
        """
        self._reaching = True
        if self._entry is not None and self._host != host.text:
            self._host = host.text
            self._entry.open(**self._opening())

    def asks(self, host: Host) -> None:
        """A person is asked about it: recorded before it waits.

        Raises:
            JournalError: it could not be written.
        """
        if self._entry is not None:
            self._host = host.text
            self._entry.open(**self._opening(), **record(reason=UNCOVERED, cause=Cause.ASKED))
            self.trace("a person is asked: %s", self._host)
            # What comes to pass after it does not leave that as the last word: `reach` says it again.
            self._host = ""

    def _opening(self) -> dict[str, Any]:
        return record(host=self._host, port=self._port, protocol=self.protocol)

    def verdict(self, judged: Judged, address: Address | None = None) -> None:
        """Write the verdict record.

        Raises:
            JournalError: it could not be written.
        """
        if self._entry is not None:
            fields = judged.record(self._port, self.protocol)
            if address is not None:
                fields |= record(address=str(address))
            self._entry.verdict(**fields)
            self.trace("let through: %s, %s to %s", fields["host"], self.protocol, address)

    def refused(self, error: RefusedError, *, dialled: bool) -> None:
        """Write a refusal: in the attempt's own record where it is open, else folded with its like.

        Args:
            error: the refusal.
            dialled: the attempt itself was let through; what is refused came later on it.

        Raises:
            JournalError: it could not be written.
        """
        self.told = True
        self.trace("refused: %s, %s", error.refusal.host, error.refusal.cause)
        self._context.folder.remember(self._cell.name, error.refusal, error.command(self._cell.title))
        if self._entry is None or dialled:
            self._context.folder.refused(self._cell.name, error.refusal)
        elif self._reaching:
            self._entry.verdict(**error.refusal.record())
        else:
            self._fold(error.refusal)

    def close(self, host: Host, judged: Judged | None, moved: Volume, ending: Ending) -> None:
        """Write the closing record; of an attempt that never came to anything its only one."""
        if self._entry is None:
            return
        duration = round((time.monotonic() - self._began) * 1000)
        fields = record(
            protocol=self.protocol,
            bytes_out=moved.out,
            bytes_in=moved.back,
            duration_ms=duration,
            ended=ending.text,
            outcome=ending.outcome,
        )
        if ending.cause is not None:
            fields |= record(cause=ending.cause)
        if self._traced:
            self.trace("%s: %s, %d bytes out, %d in, %d ms", ending.text, ending.outcome, *moved, duration)
        if self._reaching:
            self._entry.close(**fields)
        elif not self.told:
            found = judged or untouched(self._cell.policy, host, self._port, self.protocol)
            if isinstance(found, Refusal):
                self._fold(found)
            else:
                self._entry.close(**{**found.record(self._port, self.protocol), **fields})

    def _fold(self, refusal: Refusal) -> None:
        """Leave the record, which is none of the attempt's own any more, to its like."""
        entry, self._entry = self._entry, None
        self._context.folder.refused(self._cell.name, refusal, entry)
