"""Handler of `audit why`: the last refusal, the rule behind it, what the rules say by now, and what would allow it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from irons.errors import ApiError, NotFound, Unsupported, UsageError
from irons.record import NamedTuple
from irons_plugins.audit.by_now import by_now, pin_of
from irons_plugins.audit.filters import Filter, check_host
from irons_plugins.audit.views import LOST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from irons.client.models.audit import Rotated, Unrecorded
    from irons.client.models.egress import CheckResult
    from irons.context import Context
    from irons_policy.addresses import Address
    from irons_policy.event import Event


NO_CAUSE = (
    "the event has no cause (it is older, or of another server); the command is what the rules need now"
)
"""The note for an event that gives a reason to people and none to programs."""


@dataclass(frozen=True)
class Why:
    """A refusal, the command that would let the same pass (`fix`; empty where no rule can), and what else to know (`note`).

    `now` is what the rules say by now where that has changed: `verdict`, `rule`, and `sandbox`, which is None for all sandboxes.
    """

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
    cause: str = ""
    outcome: str = ""
    note: str = ""
    rotated: int = 0
    rotated_before: datetime | None = None
    now: Mapping[str, Any] | None = None


def why(ctx: Context, *, name: str, host: str | None) -> Why:
    """Return the last refusal of a sandbox, or of a host, or what was let through and not reached, whichever is newer.

    Where there is neither, it is the last that mode warn let pass.

    Raises:
        NotFound: Nothing was refused.
        UsageError: The host is none.
    """
    check_host(host)
    wanted = [Filter(verdict="blocked", host=host)]
    if "audit-outcomes" in ctx.api.extensions:
        wanted.append(Filter(host=host, outcomes=LOST))
    try:
        found = [_last(ctx, name, each) for each in wanted]
    except NotFound as error:
        used = ctx.settings["sandbox"]
        if host is None and used not in (None, name):
            # With a sandbox in use one might take the only word for the host, as after `egress check`.
            error.hint = f"irons audit why {used} {name} asks about that host"
        raise
    event = max((each.event for each in found if each.event is not None), key=_age, default=None)
    event = event or _last(ctx, name, Filter(verdict="warn", host=host)).event
    rotated, unrecorded = found[0].rotated, found[0].unrecorded
    if rotated is not None:
        ctx.progress(f"irons: {rotated.line}")
    if unrecorded is not None:
        ctx.progress(f"irons: {unrecorded.line}")
        if host is None:
            return _unrecorded(name, unrecorded.count)
    if event is None:
        of = f" of {host}" if host else ""
        raise NotFound(
            f"nothing{of} was refused for {name}", hint=f"irons audit egress {name} shows what it tried"
        )
    from irons_policy.remedy import note

    remedy = _remedy(ctx, name, event)
    return Why(
        event.time,
        event.sandbox,
        event.host,
        event.port,
        event.protocol,
        event.verdict,
        event.mode,
        event.rule,
        event.ended if event.outcome in LOST and event.ended else event.reason,
        event.count,
        remedy.fix,
        event.cause,
        event.outcome,
        note(event.cause, event.mode) if event.cause or not event.reason else NO_CAUSE,
        rotated.events if rotated is not None else 0,
        rotated.before if rotated is not None else None,
        remedy.now,
    )


def _unrecorded(name: str, count: int) -> Why:
    """Return the refusals that no event tells of: they are newer than all that the log has."""
    from irons_policy.causes import Cause, Outcome
    from irons_policy.remedy import note

    return Why(
        time=None,
        sandbox=name,
        host="*",
        port=None,
        protocol="",
        verdict="blocked",
        mode="",
        rule="",
        reason="the audit log cannot be written: the disk is full",
        count=count,
        fix="",
        cause=Cause.JOURNAL.value,
        outcome=Outcome.REFUSED.value,
        note=note(Cause.JOURNAL),
    )


def _age(event: Event) -> int:
    """By which of two events the newer one is found: ids only grow."""
    return event.id or 0


class _Found(NamedTuple):
    """The last event of those wanted, and how many of the sandbox's are missing, where the server says it.

    Attributes:
        event: The event.
        rotated: How many were rotated out.
        unrecorded: How many refusals could not be recorded.
    """

    event: Event | None
    rotated: Rotated | None = None
    unrecorded: Unrecorded | None = None


def _last(ctx: Context, name: str, wanted: Filter) -> _Found:
    asked = wanted.params()
    if "audit-filters" in ctx.api.extensions:
        asked["limit"] = 1
        page = ctx.api.audit(name, **asked)
        last = next((event for event in reversed(page.events) if wanted(event)), None)
        return _Found(last, next(iter(page.rotated), None), next(iter(page.unrecorded), None))
    last = None
    for event in ctx.api.events(name, **asked):
        if wanted(event):
            last = event
    return _Found(last)


class _Remedy(NamedTuple):
    """What the rules say of an event.

    Attributes:
        fix: The command that would let the same pass; empty where none would, or where it would pass.
        now: What they say by now, where that has changed.
    """

    fix: str = ""
    now: Mapping[str, Any] | None = None


def _remedy(ctx: Context, name: str, event: Event) -> _Remedy:
    """Ask the rules again, of the host and of the address it led to.

    What they would let pass now needs no command, and what they had no say in has none. An event without a cause, from
    another server or from before causes were recorded, is taken to be the rules' own.
    """
    from irons_policy.causes import Cause
    from irons_policy.patterns import HTTPS, narrowest
    from irons_policy.remedy import suggestion

    ruled = ("", Cause.RULE, Cause.UNCOVERED, Cause.FLOOR, Cause.ASKED)
    if event.protocol in ("udp", "icmp") or event.cause not in ruled:
        return _Remedy()
    # A plain v0 server tells no port; without one a rule covers 443 and 80.
    port = event.port or HTTPS
    try:
        told = [
            ctx.api.check(narrowest(host, port, exact=True), name)
            for host in (event.host, event.address)
            if host
        ]
    except Unsupported:
        return _Remedy("" if event.cause == Cause.ASKED else suggestion(event.host, port) or "")
    except (ApiError, UsageError):
        # A host that no request can carry is none that a rule could name.
        return _Remedy()
    held = _address(event.address) if event.cause == Cause.FLOOR else None
    pin = None if held is None else pin_of(ctx, name, event, held)
    fix = "" if event.cause == Cause.ASKED else _fix(name, event, port, told, held if pin is None else None)
    return _Remedy(fix, by_now(name, event, told, pin))


def _fix(name: str, event: Event, port: int, told: Sequence[CheckResult], held: Address | None) -> str:
    """Return the command that would let an event's like pass; `held` is the address that only a new pin opens."""
    from irons.client.models.egress import CheckResult
    from irons_policy.causes import Cause
    from irons_policy.policy import Decision
    from irons_policy.remedy import suggestion

    denying = next((answer for answer in told if answer.list == "deny"), None)
    if denying is None and event.cause == Cause.FLOOR:
        return suggestion(event.host, port, sandbox=name, private=held) or "" if held is not None else ""
    answer = denying or next(iter(told), None) or CheckResult(event.host)
    if answer.verdict == "allowed":
        return ""
    decision = Decision(
        allowed=answer.allowed,
        verdict="blocked",
        mode="deny",
        rule=answer.rule,
        list="deny" if answer.list == "deny" else None,
        scope="sandbox" if answer.scope == "sandbox" else "account",
        reason=answer.reason,
        cause=Cause.RULE if answer.rule else Cause.UNCOVERED,
        # An older server does not say; what the name was allowed by is known here.
        covered=answer.covered is not False or (answer is not told[0] and told[0].list == "allow"),
    )
    return suggestion(event.host, port, decision=decision, sandbox=name) or ""


def _address(text: str) -> Address | None:
    from ipaddress import ip_address

    try:
        return ip_address(text)
    except ValueError:
        return None
