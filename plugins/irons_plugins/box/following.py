"""What a sandbox tried to reach, as a program reads it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING

from irons.terminal.words import wire_verdict
from irons_plugins.audit.filters import Filter, check_host
from irons_plugins.audit.following import AuditLog

if TYPE_CHECKING:
    from irons_plugins.box.calls import Library
    from irons_policy.event import Event


def events(
    library: Library,
    name: str,
    since: datetime | None,
    until: datetime | None,
    verdict: str | None,
    host: str | None,
    *,
    follow: bool,
) -> Iterator[Event]:
    """Return events; the arguments are those of `Box.events`."""
    check_host(host)
    wanted = Filter(since, until, wire_verdict(verdict), host)
    log = AuditLog(library.context(), name, wanted, None, follow=follow)
    return chain(log.past(), log.coming()) if follow else log.past()
