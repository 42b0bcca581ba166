"""Handler of `audit why`: the last refusal, the rule behind it, and what would allow it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from irons.errors import ApiError, NotFound, Unsupported
from irons_plugins.audit.filters import Filter

if TYPE_CHECKING:
    from irons.api import Event
    from irons.context import Context


@dataclass(frozen=True)
class Why:
    """A refusal, and the command that would let the same pass (`fix`; empty where no rule can)."""

    time: datetime | None
    sandbox: str
    host: str
    port: int | None
    protocol: str
    verdict: str
    mode: str
    rule: str
    reason: str
    count: int
    fix: str


def why(ctx: Context, *, name: str, host: str | None) -> Why:
    """Return the last refusal of a sandbox, or of a host; where nothing was refused, the last that mode warn let pass.

    Raises:
        NotFound: Nothing was refused.
    """
    event = _last(ctx, name, host, "blocked") or _last(ctx, name, host, "warn")
    if event is None:
        of = f" of {host}" if host else ""
        raise NotFound(
            f"nothing{of} was refused for {name}", hint=f"irons audit egress {name} shows what it tried"
        )
    return Why(
        event.time,
        event.sandbox,
        event.host,
        event.port,
        event.protocol,
        event.verdict,
        event.mode,
        event.rule,
        event.reason,
        event.count,
        _fix(ctx, event),
    )


def _last(ctx: Context, name: str, host: str | None, verdict: str) -> Event | None:
    wanted = Filter(verdict=verdict, host=host)
    asked: dict[str, Any] = wanted.params()
    if "audit-filters" in ctx.api.extensions:
        asked["limit"] = 1
    last = None
    for event in ctx.api.events(name, **asked):
        if wanted(event):
            last = event
    return last


def _fix(ctx: Context, event: Event) -> str:
    """The rules are asked again: what they would let pass now was refused by something that they do not decide."""
    from ipaddress import ip_address

    from irons_plugins.local.advice import suggestion
    from irons_plugins.local.policy import Decision

    if event.protocol in ("udp", "icmp"):
        return ""
    # A plain v0 server tells no port; without one a rule covers 443 and 80.
    port = event.port or 443
    where = f"[{event.host}]:{port}" if ":" in event.host else f"{event.host}:{port}"
    try:
        told = ctx.api.check(where, event.sandbox)
    except Unsupported:
        return suggestion(event.host, port) or ""
    except ApiError:
        return ""
    if told.get("verdict") == "allowed":
        try:
            address = ip_address(event.address)
        except ValueError:
            return ""
        return suggestion(event.host, port, sandbox=event.sandbox, private=address) or ""
    decision = Decision(
        allowed=told.get("allowed") is True,
        verdict="blocked",
        mode="deny",
        rule=told.get("rule"),
        list=told.get("list"),
        scope=told.get("scope"),
        reason=str(told.get("reason") or ""),
    )
    return suggestion(event.host, port, decision=decision, sandbox=event.sandbox) or ""
