"""The functions that the tour passes, in order, and how calls of them become a path."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from types import CodeType
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Stop(NamedTuple):
    """One function on the way.

    Attributes:
        module: the module's import path.
        name: the function in it; a method with its class.
        says: what happens there, for whoever follows.
    """

    module: str
    name: str
    says: str

    def code(self) -> CodeType:
        """Return the function's code.

        Raises:
            ImportError: the module is gone.
            AttributeError: the function is gone.
        """
        function = inspect.unwrap(attrgetter(self.name)(importlib.import_module(self.module)))
        code: CodeType = function.__code__
        return code

    def place(self) -> str:
        """Return file and line, from the repository's root where the file is below it."""
        code = self.code()
        file = Path(code.co_filename)
        shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
        return f"{shown}:{code.co_firstlineno}"


class Call(NamedTuple):
    """A call of one of the functions.

    Attributes:
        stop: the index of the stop.
        at: the monotonic clock, in nanoseconds; all processes of a machine share it.
    """

    stop: int
    at: int


class LostError(Exception):
    """A stop was not reached after the one before it; the message names it."""


_GATEWAY = "irons_local.gateway"
_AUDIT = "irons_local.control.audit"

GATEWAY = (
    Stop(
        f"{_GATEWAY}.accept.dns",
        "answer",
        "The resolver of the sandbox is the gateway. No DNS packet leaves the cell.",
    ),
    Stop(
        f"{_GATEWAY}.shared.synthetic_names",
        "SyntheticNames.address",
        "A made-up address stands for the name from now on.",
    ),
    Stop(
        f"{_GATEWAY}.accept.listeners",
        "CellListeners._connection",
        "Every address of the world is local in the cell. The gateway accepts.",
    ),
    Stop(
        f"{_GATEWAY}.shared.synthetic_names",
        "SyntheticNames.name",
        "The made-up address becomes the name again.",
    ),
    Stop(
        f"{_GATEWAY}.record.journal",
        "Journal.open",
        "Opening record: one write, before anything is read.",
    ),
    Stop(f"{_GATEWAY}.inspect.sniff", "kind", "The first bytes show what is spoken: here HTTP."),
    Stop(
        f"{_GATEWAY}.http1.heads",
        "parse_head",
        "The request's head is parsed strictly. It shows a second name.",
    ),
    Stop(f"{_GATEWAY}.decide.verdicts", "judge", "Every name in the clear must agree, and be allowed."),
    Stop("irons_policy.decide", "decide", "The rules decide. This function is pure."),
    Stop(
        "irons_policy.policy",
        "Policy.addresses_of",
        "[local.hosts] says where this name leads; other names are resolved on the host.",
    ),
    Stop(f"{_GATEWAY}.decide.verdicts", "judge_addresses", "Each address is judged before it is dialled."),
    Stop(
        "irons_policy.floor",
        "refusal",
        "The floor: this machine is closed, but for the address that --private opened.",
    ),
    Stop(
        f"{_GATEWAY}.record.journal", "Entry.verdict", "Verdict record, before anything outside hears of it."
    ),
    Stop(f"{_GATEWAY}.reach.dial", "dial", "Exactly that address is dialled."),
    Stop(f"{_GATEWAY}.streams.splice", "Flow.start", "The kernel moves the bytes of the answer."),
    Stop(f"{_GATEWAY}.record.journal", "Entry.close", "Closing record, with bytes and duration."),
    Stop(
        f"{_GATEWAY}.record.notify", "Notifier.wrote", "The control plane is notified that the log has grown."
    ),
)
"""In the gateway's worker."""
CONTROL = (
    Stop(f"{_AUDIT}.ingest", "Ingest.take", "The control plane reads the log on, in one transaction."),
    Stop(f"{_AUDIT}.intake", "RunIntake.record", "Records become one event, each exactly once."),
    Stop(f"{_AUDIT}.log", "Audit.page", "A reader asks for events: irons audit egress."),
    Stop(f"{_AUDIT}.events", "page", "The event comes from the database."),
)
"""In the control plane."""
STOPS = (*GATEWAY, *CONTROL)


RECORDED = len(STOPS) - 2
"""How many stops there are until the event is in the database; the others are of who reads it."""


def path(calls: Iterable[Call], stops: Sequence[Stop] = STOPS) -> list[Call]:
    """Find one call of each stop, each after that of the stop before it.

    Raises:
        LostError: there is none.
    """
    found: list[Call] = []
    left = iter(sorted(calls, key=lambda call: call.at))
    for index, stop in enumerate(stops):
        call = next((each for each in left if each.stop == index), None)
        if call is None:
            after = f" after {stops[index - 1].name}" if index else ""
            raise LostError(f"{stop.module}:{stop.name} was not called{after}")
        found.append(call)
    return found


def retraced(fetch: Callable[[], None], calls: Callable[[], list[Call]], tries: int) -> list[Call]:
    """Fetch, and return the path of its calls; fetch again where there is none.

    The control plane may be reading the log when a record is written, and take it before the worker notifies: such a
    connection is recorded as well, but its way is not the one that the stops describe.

    Args:
        fetch: makes one connection.
        calls: waits for a path of the connection that was made last, and returns it; raises LostError.
        tries: how many connections are made at most.

    Raises:
        LostError: none of them has a path.
    """
    for _ in range(tries - 1):
        fetch()
        try:
            return calls()
        except LostError:
            continue
    fetch()
    return calls()
