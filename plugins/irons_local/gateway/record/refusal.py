"""A refusal as the audit log reports it: a value, written by `folding` and `account`."""

from __future__ import annotations

from typing import Any, NamedTuple

from irons_policy.causes import Cause, Outcome
from irons_policy.event import record


class Refusal(NamedTuple):
    """Why something was refused, as the log says it.

    Attributes:
        host: a canonical name or address.
        port: 0 where the protocol has none.
        protocol: http, tls, tcp, udp, icmp or the number of another.
        mode: the mode active, or None where no policy was known.
        rule: the pattern that decided, or None.
        reason: one line for the log.
        cause: the same for programs.
        inside: one line for the sandbox, which learns no address the host resolved; None where it may read `reason`.
        address: the address that was refused, where one was.
    """

    host: str
    port: int
    protocol: str
    mode: str | None
    rule: str | None
    reason: str
    cause: Cause
    inside: str | None = None
    address: str | None = None

    def record(self) -> dict[str, Any]:
        """The fields of a verdict record."""
        fields = record(
            host=self.host,
            port=self.port,
            protocol=self.protocol,
            allowed=False,
            verdict="blocked",
            mode=self.mode or "",
            rule=self.rule or "",
            reason=self.reason,
            cause=self.cause,
            outcome=Outcome.REFUSED,
        )
        return fields if self.address is None else fields | record(address=self.address)
