"""The words of a decision, as data: what decided, and what became of the attempt; `modes` has its mode and verdict.

Programs read these, people read the prose. The values are written to the audit log and answered by the API, so they are only ever added to.
"""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """What decided: for an attempt that was let through and not reached, what stopped it."""

    RULE = "rule"
    """A rule allows or denies it."""
    UNCOVERED = "uncovered"
    """No rule covers it."""
    FLOOR = "floor"
    """It leads to an address that only the owner of this machine can open."""
    NEVER = "never"
    """No rule opens it: UDP, ICMP, an address that stands for no name."""
    CAP = "cap"
    """A limit of the sandbox was reached."""
    MALFORMED = "malformed"
    """What was sent is malformed, or was not finished in time."""
    PROTOCOL = "protocol"
    """What was sent is well formed, and is not spoken here: HTTP on port 443, CONNECT."""
    SECOND_NAME = "second-name"
    """A second name was sent on a connection to the first."""
    UNRESOLVED = "unresolved"
    """The name has no address."""
    UNREACHED = "unreached"
    """No server answered."""
    NO_POLICY = "no-policy"
    """Nothing could judge it: no policy is known yet, or no gateway ran."""
    JOURNAL = "journal"
    """The audit log could not be written."""
    ASKED = "asked"
    """A person was asked, in mode ask: who let it pass once, or refused it."""


class Outcome(StrEnum):
    """What became of an attempt; it has none while its connection is open."""

    REACHED = "reached"
    """A server was connected to."""
    REFUSED = "refused"
    """The gateway refused it."""
    UNRESOLVED = "unresolved"
    """It was let through, and its name has no address."""
    UNREACHED = "unreached"
    """It was let through, and no server answered."""
    ABANDONED = "abandoned"
    """It ended before a server was reached: the program closed it, or its sandbox or rule went."""
    INTERRUPTED = "interrupted"
    """The gateway ended before it could say."""
