"""The policy's answers to what a conversation asks: given in the call that asks, from what is known already."""

from __future__ import annotations

from collections.abc import Callable

from irons_local.gateway.conversation import actions as do
from irons_local.gateway.conversation import events as ev
from irons_local.gateway.decide.verdicts import (
    UNKNOWN,
    Judged,
    RefusedError,
    check_named,
    judge,
    judge_addresses,
    refuse_for,
)
from irons_policy.causes import Cause
from irons_policy.decide import decide, decide_proxy
from irons_policy.hostnames import Host
from irons_policy.hostnet import HostNetwork
from irons_policy.policy import Policy


def answer(
    policy: Policy | None,
    question: do.Names | do.Addresses | do.ByName,
    where: Host,
    host_network: Callable[[], HostNetwork],
) -> ev.Verdict | ev.Passing | ev.Denied:
    """Apply the rules to a question.

    Args:
        policy: of the sandbox; None where none is known.
        question: what is asked.
        where: the address that the connection was opened to.
        host_network: the live facts, as they are at this moment.
    """
    try:
        if policy is None:
            about = question.host if isinstance(question, do.Names) else question.judged.host
            raise refuse_for(about or where, question.port, question.protocol, None, UNKNOWN, Cause.NO_POLICY)
        if isinstance(question, do.Names):
            return ev.Verdict(_names(policy, question))
        if isinstance(question, do.Addresses):
            judged, port, protocol, addresses = question
            return ev.Passing(judge_addresses(policy, judged, port, protocol, addresses, host_network()))
        _may_be_named(policy, question, host_network())
        return ev.Verdict(question.judged)
    except RefusedError as error:
        return ev.Denied(error)


def _names(policy: Policy, question: do.Names) -> Judged:
    host, where, port, claimed, protocol, proxied, reached, early = question
    if reached and host is not None:
        return check_named(policy, host, claimed, port, protocol, proxied=proxied)
    if early and host is None:
        # Which host it is for is still to come.
        return Judged(where, decide(policy, where, port))
    return judge(policy, host, where, claimed, port, protocol, proxied=proxied)


def _may_be_named(policy: Policy, question: do.ByName, host_network: HostNetwork) -> None:
    """Raise where the upstream proxy may not be asked for a name."""
    host, port = question.judged.host, question.port
    refused = decide_proxy(policy, host, port, host_network) or decide(policy, host, port)
    if not refused.allowed:
        raise refuse_for(host, port, question.protocol, policy, refused.reason, refused.cause)
