"""Handlers: audit, audit egress, audit hosts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from irons.command import Result
from irons.errors import UsageError
from irons.terminal.words import wire_verdict
from irons_plugins.audit.fields import fields_of
from irons_plugins.audit.filters import Filter, check_host
from irons_plugins.audit.following import AuditLog
from irons_plugins.audit.tables import view_of

if TYPE_CHECKING:
    from irons.client.models.audit import HostTried
    from irons.context import Context
    from irons.settings.scope import Scope
    from irons_policy.event import Event

MOST_HOSTS = 20_000
"""Rows that a server has of one sandbox at most."""


def audit(
    ctx: Context,
    *,
    scope: Scope,
    wide: bool,
    follow: bool,
    since: datetime | None,
    until: datetime | None,
    verdict: str | None,
    outcome: str | None,
    host: str | None,
    limit: int | None,
) -> Result:
    """Return the events of one sandbox or of all, oldest first; with `follow` go on with each as it happens."""
    log = _log(
        ctx,
        scope.sandbox,
        follow=follow,
        since=since,
        until=until,
        verdict=verdict,
        outcome=outcome,
        host=host,
        limit=limit,
        columns=fields_of(ctx, contract=False),
    )
    return Result(log, view=view_of(scope.sandbox, wide=wide, contract=False))


def egress(
    ctx: Context,
    *,
    scope: Scope,
    wide: bool,
    follow: bool,
    since: datetime | None,
    until: datetime | None,
    verdict: str | None,
    outcome: str | None,
    host: str | None,
    limit: int | None,
) -> Result:
    """Return the same, in a pipe as the lines of the v0 contract."""
    log = _log(
        ctx,
        scope.sandbox,
        follow=follow,
        since=since,
        until=until,
        verdict=verdict,
        outcome=outcome,
        host=host,
        limit=limit,
        columns=fields_of(ctx, contract=True),
    )
    return Result(log, view=view_of(scope.sandbox, wide=wide, contract=True))


def _log(
    ctx: Context,
    name: str | None,
    *,
    follow: bool,
    since: datetime | None,
    until: datetime | None,
    verdict: str | None,
    outcome: str | None,
    host: str | None,
    limit: int | None,
    columns: str,
) -> Iterator[Event]:
    if follow and ctx.settings["output"] == "json":
        raise UsageError(
            "one JSON document never ends while events are followed", hint="-o jsonl prints an object a line"
        )
    if limit is not None and limit < 0:
        raise UsageError(f"--limit takes a number of events, not {limit}")
    check_host(host)
    if outcome is not None:
        ctx.api.need("audit-outcomes", "a server that says what became of connections")
    wanted = Filter(since, until, wire_verdict(verdict), host, () if outcome is None else (outcome,))
    most = None if limit is None else max(1, limit)
    log = AuditLog(ctx, name, wanted, most, follow=follow, columns=columns)
    return log.past() if limit is None and not follow else _events(log, limit, follow=follow)


def hosts(
    ctx: Context, *, name: str, verdict: str | None, host: str | None, limit: int | None
) -> Sequence[HostTried]:
    """Return what a sandbox tried by host, the one tried last at the end."""
    if limit is not None and limit < 1:
        raise UsageError(f"--limit takes a number of rows, not {limit}")
    check_host(host)
    ctx.api.need("audit-hosts", "a server that sums up what sandboxes tried")
    return ctx.api.hosts(
        name,
        verdict=wire_verdict(verdict),
        host=host,
        limit=None if limit is None else min(limit, MOST_HOSTS),
    )


def _events(log: AuditLog, limit: int | None, *, follow: bool) -> Iterator[Event]:
    past = log.past()
    yield from past if limit is None else deque(past, maxlen=limit)
    if follow:
        yield from log.coming()
