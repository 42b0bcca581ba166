"""What the rules say by now of an older event, where that is something else than what it tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.errors import ApiError
from irons.record import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from irons.client.models.egress import CheckResult
    from irons.context import Context
    from irons_policy.addresses import Address
    from irons_policy.event import Event


class PinningRule(NamedTuple):
    """A rule that opens an address beneath the floor.

    Attributes:
        pattern: Its pattern.
        sandbox: The sandbox that it is for; None for all sandboxes.
        address: The address.
    """

    pattern: str
    sandbox: str | None
    address: str


def pin_of(ctx: Context, name: str, event: Event, address: Address) -> PinningRule | None:
    """Return the rule that opens this address for an event's host by now; None where there is none, or the server fails to say."""
    from irons_policy.addresses import unmapped
    from irons_policy.hostnames import HostError, canonical_host
    from irons_policy.patterns import HTTPS
    from irons_policy.rules import Rule, RuleError

    try:
        host = canonical_host(event.host)
        scopes = [(sandbox, ctx.api.rules(sandbox).rules) for sandbox in (name, None)]
    except (HostError, ApiError):
        return None
    wanted, port = unmapped(address), event.port or HTTPS
    for sandbox, listed in scopes:
        for each in listed:
            if each.list != "allow" or not each.private:
                continue
            try:
                rule = Rule.from_json(each._asdict())
            except RuleError:
                continue
            covers = rule.pattern.covers_port(port) and rule.pattern.covers_host(host)
            if covers and any(wanted in network for network in rule.private):
                return PinningRule(rule.pattern.text, sandbox, str(wanted))
    return None


def by_now(
    name: str, event: Event, told: Sequence[CheckResult], pin: PinningRule | None
) -> dict[str, Any] | None:
    """Return the verdict by now, its rule and the sandbox that the rule is for; None where nothing has changed since the event.

    Args:
        name: The sandbox.
        event: What happened.
        told: What the server says of the host, and of the address it led to.
        pin: The rule that opens that address.
    """
    from irons_policy.causes import Cause

    answer = next((each for each in told if each.list == "deny"), None)
    if answer is None and event.cause == Cause.FLOOR:
        if pin is None:
            return None
        return {"verdict": "allowed", "rule": pin.pattern, "sandbox": pin.sandbox, "private": pin.address}
    answer = answer or next(iter(told), None)
    before = event.verdict or ("allowed" if event.allowed else "blocked")
    if answer is None or (answer.verdict, answer.rule or "") == (before, event.rule):
        return None
    if answer.rule is None:
        return {"verdict": answer.verdict, "rule": None, "sandbox": name, "reason": answer.reason}
    return {
        "verdict": answer.verdict,
        "rule": answer.rule,
        "sandbox": name if answer.scope == "sandbox" else None,
    }
