"""Handler of `audit why`: the last refusal, the rule behind it, and what would allow it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from irons.answers import text_of
from irons.errors import ApiError, NotFound, Unsupported, UsageError
from irons_plugins.audit.filters import Filter

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

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
        _fix(ctx, name, event),
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


def _fix(ctx: Context, name: str, event: Event) -> str:
    """The rules are asked again, of the host and of the address it led to.

    What they would let pass now, and what they had no say in, was refused by something else: the floor, which names the address,
    a cap, or a request that makes no sense.
    """
    from irons_plugins.local.advice import suggestion
    from irons_plugins.local.floor import SHUT
    from irons_plugins.local.policy import UNCOVERED, Decision

    if event.protocol in ("udp", "icmp") or event.reason.endswith(SHUT):
        return ""
    # A plain v0 server tells no port; without one a rule covers 443 and 80.
    port = event.port or 443
    try:
        told = [ctx.api.check(_at(host, port), name) for host in (event.host, event.address) if host]
    except Unsupported:
        return suggestion(event.host, port) or ""
    except (ApiError, UsageError):
        # A host that no request can carry is none that a rule could name.
        return ""
    denying = next((answer for answer in told if answer.get("list") == "deny"), None)
    refused = None if event.allowed or event.address not in event.reason else _address(event.address)
    if denying is None and refused is not None:
        return suggestion(event.host, port, sandbox=name, private=refused) or ""
    answer = denying or next(iter(told), {})
    by_rules = not event.reason or event.rule or event.reason.startswith(UNCOVERED)
    if answer.get("verdict") == "allowed" or not by_rules:
        return ""
    rule, kind, scope = (text_of(answer.get(key)) for key in ("rule", "list", "scope"))
    decision = Decision(
        allowed=answer.get("allowed") is True,
        verdict="blocked",
        mode="deny",
        rule=rule or None,
        list="deny" if kind == "deny" else None,
        scope="sandbox" if scope == "sandbox" else "account",
        reason=text_of(answer.get("reason")),
    )
    return suggestion(event.host, port, decision=decision, sandbox=name) or ""


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(text: str) -> IPv4Address | IPv6Address | None:
    from ipaddress import ip_address

    try:
        return ip_address(text)
    except ValueError:
        return None
