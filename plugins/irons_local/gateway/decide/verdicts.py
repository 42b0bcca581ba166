"""Applies the policy to what an attempt says: which host it is for, and whether every name in it agrees.

Pure: nothing is written, resolved or dialled here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from irons_local.gateway.http1.authority import PROXY
from irons_local.gateway.record.refusal import Refusal
from irons_policy.addresses import Address, unmapped
from irons_policy.causes import Cause
from irons_policy.decide import decide, decide_address
from irons_policy.event import record
from irons_policy.hostnames import Host
from irons_policy.hostnet import HostNetwork
from irons_policy.policy import Decision, Policy
from irons_policy.remedy import suggestion

PRIVATE = "it leads to an address that only the owner of this machine can open; the audit log says which"

UNKNOWN = "no policy is known for this sandbox yet"


class RefusedError(Exception):
    """This attempt goes nowhere.

    Attributes:
        refusal: as it is logged.
        place: what a rule would have to be about, and what was decided of it; None where no rule would lift it.
        asked: a person is asked about it, and another try may pass.
    """

    def __init__(self, refusal: Refusal, place: tuple[Host, int, Decision] | None = None) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal
        self.place = place
        self.asked = False

    def command(self, sandbox: str) -> str | None:
        """What a person types to allow it for that sandbox alone; None where no rule would."""
        if self.place is None:
            return None
        host, port, decision = self.place
        return suggestion(host, port, decision=decision, sandbox=sandbox)


def untraced(error: RefusedError) -> RefusedError:
    """Drop what a refusal that was caught refers to: the frames it came through, some of which refer to it.

    Such a cycle would keep all of its connection until the next garbage collection.
    """
    error.__traceback__ = error.__context__ = None
    return error


class Judged(NamedTuple):
    """A host that may be dialled as far as the rules go.

    Attributes:
        host: the host that the attempt is for.
        decision: what the rules say of it.
        others: other names it sent in the clear, which only the mode lets pass.
    """

    host: Host
    decision: Decision
    others: tuple[Host, ...] = ()

    def record(self, port: int, protocol: str) -> dict[str, Any]:
        """The fields of a verdict record."""
        decision = self.decision
        return record(
            host=self.host.text,
            port=port,
            protocol=protocol,
            allowed=decision.allowed,
            verdict=decision.verdict,
            mode=decision.mode,
            rule=decision.rule or "",
            reason=decision.reason,
            cause=decision.cause,
        )


def judge(
    policy: Policy,
    name: Host | None,
    where: Host,
    claimed: tuple[Host, ...],
    port: int,
    protocol: str,
    *,
    proxied: bool = False,
) -> Judged:
    """Judge an attempt by what is known before anything outside is asked.

    Args:
        policy: of the sandbox.
        name: the name its DNS was asked for, or None where it connected to a literal address.
        where: that address.
        claimed: the names it sends in the clear; to a literal address the first is its host.
        port: the port it connected to.
        protocol: what it speaks.
        proxied: the names are sent as to a proxy, in an absolute target.

    Raises:
        RefusedError: with the reason.
    """
    host = name or (claimed[0] if claimed else where)
    decision = decide(policy, host, port)
    if not decision.allowed:
        raise _by_rule(host, port, protocol, decision)
    return _agreeing(Judged(host, decision), claimed, port, protocol, proxied=proxied)


def check_named(
    policy: Policy, host: Host, claimed: tuple[Host, ...], port: int, protocol: str, *, proxied: bool = False
) -> Judged:
    """Judge names that show up after the dial: each must be the one it was dialled for.

    Raises:
        RefusedError: with the reason.
    """
    decision = decide(policy, host, port)
    if not decision.allowed:
        raise _by_rule(host, port, protocol, decision)
    return _agreeing(Judged(host, decision), claimed, port, protocol, proxied=proxied)


def judge_addresses(
    policy: Policy,
    judged: Judged,
    port: int,
    protocol: str,
    addresses: Iterable[Address],
    host_network: HostNetwork,
) -> dict[Address, Judged]:
    """Judge where a host leads.

    Returns:
        The addresses that may be dialled, in order, and what is then to be recorded of each.

    Raises:
        RefusedError: none may be; with the reason of the first.
    """
    decision = decide(policy, judged.host, port)
    if not decision.allowed:
        raise _by_rule(judged.host, port, protocol, decision)
    passing: dict[Address, Judged] = {}
    refused: dict[Address, Decision] = {}
    for address in addresses:
        found = decide_address(policy, judged.host, port, address, host_network)
        if not found.allowed:
            refused[address] = found
        else:
            passing[address] = judged._replace(decision=found) if found.verdict == "warn" else judged
    if passing:
        return passing
    if not refused:
        raise refuse_for(judged.host, port, protocol, policy, "its name has no address", Cause.UNRESOLVED)
    address, first = next(iter(refused.items()))
    literal = judged.host.address is not None
    refusal = Refusal(
        judged.host.text,
        port,
        protocol,
        first.mode,
        first.rule,
        first.reason,
        first.cause,
        None if literal else PRIVATE,
        str(unmapped(address)),
    )
    raise RefusedError(refusal)


def refuse_for(
    host: Host, port: int, protocol: str, policy: Policy | None, reason: str, cause: Cause
) -> RefusedError:
    """A refusal that no rule made and no rule would lift."""
    mode = policy.mode if policy is not None else None
    return RefusedError(Refusal(host.text, port, protocol, mode, None, reason, cause))


def untouched(policy: Policy | None, host: Host, port: int, protocol: str) -> Judged | Refusal:
    """The verdict for an attempt that ended before it could be judged."""
    if policy is None:
        return refuse_for(host, port, protocol, None, UNKNOWN, Cause.NO_POLICY).refusal
    decision = decide(policy, host, port)
    return Judged(host, decision) if decision.allowed else _by_rule(host, port, protocol, decision).refusal


def _agreeing(
    judged: Judged, claimed: tuple[Host, ...], port: int, protocol: str, *, proxied: bool
) -> Judged:
    others = tuple(dict.fromkeys(host for host in claimed if host.text != judged.host.text))
    if not others:
        return judged
    decision, other = judged.decision, others[0]
    reason = f"{other.text} was asked for on a connection to {judged.host.text}"
    if proxied:
        reason += f": {PROXY}"
    if decision.mode != "warn":
        refusal = Refusal(other.text, port, protocol, decision.mode, None, reason, Cause.SECOND_NAME)
        raise RefusedError(refusal)
    against = decision._replace(
        verdict="warn",
        rule=None,
        list=None,
        scope=None,
        reason=f"{reason} (let pass: mode warn)",
        cause=Cause.SECOND_NAME,
    )
    return Judged(judged.host, against, others)


def _by_rule(host: Host, port: int, protocol: str, decision: Decision) -> RefusedError:
    refusal = Refusal(
        host.text, port, protocol, decision.mode, decision.rule, decision.reason, decision.cause
    )
    return RefusedError(refusal, (host, port, decision))
