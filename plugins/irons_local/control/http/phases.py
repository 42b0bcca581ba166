"""The phases of a connection to the API, and how long each may take."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class Phase(Enum):
    """What a connection is at."""

    FRESH = auto()
    """Connected, and nothing of a request has come."""
    KEPT = auto()
    """An answer has gone out, and nothing of the next request has come."""
    HEAD = auto()
    BODY = auto()
    ANSWERING = auto()
    """The request is whole; the application takes its time."""
    SENDING = auto()
    """The answer is whole, and the peer has yet to take it."""
    LEAVING = auto()
    """The last answer is on its way; what still comes is thrown away."""


class TimesAllowed(NamedTuple):
    """Seconds that each phase of a connection may take.

    Attributes:
        handshake: of TLS.
        head: from the connection, or the first byte of a further request, to the end of the request's head.
        body: from the end of the head to the end of the body.
        kept: between two requests, where a valid key was shown.
        kept_unknown: between two requests, where none was shown.
        stalled: without the peer taking any of its answer.
        leaving: from the last answer to the end of the connection.
    """

    handshake: float = 10.0
    head: float = 10.0
    body: float = 30.0
    kept: float = 600.0
    kept_unknown: float = 5.0
    stalled: float = 30.0
    leaving: float = 2.0

    def of(self, phase: Phase, *, known: bool) -> float | None:
        """Return the seconds that a phase may take, with or without a valid key; None means no limit."""
        return {
            Phase.FRESH: self.head,
            Phase.KEPT: self.kept if known else self.kept_unknown,
            Phase.HEAD: self.head,
            Phase.BODY: self.body,
            Phase.SENDING: self.stalled,
            Phase.LEAVING: self.leaving,
        }.get(phase)
