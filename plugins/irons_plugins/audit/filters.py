"""Which events are wanted: asked of the server, and held on this side too, for servers that do not heed it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from fnmatch import translate
from functools import cached_property
from typing import TYPE_CHECKING

from irons.errors import UsageError
from irons.text import rfc3339

if TYPE_CHECKING:
    from irons.client.models.audit import AuditFilters
    from irons_policy.event import Event


class Filter:
    """Times, verdict, outcomes and host pattern; an event without a time is within any."""

    def __init__(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        verdict: str | None = None,
        host: str | None = None,
        outcomes: Sequence[str] = (),
    ) -> None:
        """Take what was asked for; None asks for nothing."""
        self.since = since
        self.until = until
        self.verdict = verdict
        self.host = host
        self.outcomes = outcomes

    def params(self) -> AuditFilters:
        """Return the filters that ask a server for the same."""
        return {
            "since": rfc3339(self.since) if self.since else None,
            "until": rfc3339(self.until) if self.until else None,
            "verdict": self.verdict,
            "host": self.host,
            "outcome": ",".join(self.outcomes) or None,
        }

    def __bool__(self) -> bool:
        return bool(self.since or self.until or self.verdict or self.host or self.outcomes)

    def __call__(self, event: Event) -> bool:
        """Tell whether an event is wanted."""
        if event.time is not None:
            if self.since is not None and event.time < self.since:
                return False
            if self.until is not None and event.time > self.until:
                return False
        if self.verdict is not None and event.verdict != self.verdict:
            return False
        if self.outcomes and event.outcome not in self.outcomes:
            return False
        return self._host is None or self._host.match(event.host) is not None

    @cached_property
    def _host(self) -> re.Pattern[str] | None:
        if self.host is None:
            return None
        # `*` stands for any text, as on the server; nothing else is special.
        plain = self.host.replace("[", "[[]").replace("?", "[?]")
        return re.compile(translate(plain), re.IGNORECASE)


def check_host(host: str | None) -> None:
    """Refuse a pattern that is the host of no event: a URL, or one with a port, as messages show it.

    Raises:
        UsageError: It is one.
    """
    if host is None:
        return
    if "://" in host:
        raise UsageError(f"{host!r} is not a host", hint="a name or an address, such as *.example.com")
    bare, _, port = host.rpartition(":")
    if bare and port.isdecimal() and (":" not in bare or bare.endswith("]")):
        raise UsageError(f"events are found by host alone, not by {host!r}", hint=f"type {bare.strip('[]')}")
