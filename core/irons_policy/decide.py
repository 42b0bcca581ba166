"""Verdicts of a policy: pure, and the same for the gateway, ``egress check`` and tests.

``decide`` judges a host and port by the rules and the mode, ``decide_address`` the address that is about to be
dialled by the floor and the deny rules. Both must pass before anything is dialled. ``question_rule`` says which DNS
questions of a sandbox the gateway itself may ask: SRV and TXT, of names that an allow rule covers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeVar

from irons_policy import floor
from irons_policy.addresses import Address, unmapped
from irons_policy.causes import Cause
from irons_policy.hostnames import INTERNAL, Host, canonical_host
from irons_policy.hostnet import HostNetwork
from irons_policy.policy import Decision, Policy
from irons_policy.rules import Rule

Kind = Literal["SRV", "TXT"]
"""Of the DNS questions that may leave."""

_REMEMBERED = 512

_WEB = (["_http"], ["_https"])
"""The services of web servers, the first label of a question."""
_MOST_LABELS = 2
"""A service and its protocol (RFC 2782)."""
_MOST_LABEL = 16
"""Bytes: an underscore, and a service name (RFC 6335, section 5.1). Longer ones would carry words of the sandbox's."""


_Place = TypeVar("_Place")


class Live(NamedTuple):
    """A connection that is open: what it was judged by."""

    host: Host
    port: int
    address: Address | None = None


def decide(policy: Policy, host: Host | str, port: int) -> Decision:
    """Judge a host and port by the rules and the mode; the address is judged by ``decide_address`` later.

    A deny rule of either scope wins; else an allow rule lets pass; else the mode decides. The rule named is the
    narrowest that matches in the deciding list.

    Args:
        policy: of the sandbox that asks.
        host: canonical, or a string to be read by ``canonical_host``.
        port: the TCP port.

    Raises:
        HostError: when a string is not a host.
    """
    if isinstance(host, str):
        host = canonical_host(host)
    known, place = policy.verdicts.hosts, (host, port)
    decision = known.get(place)
    if decision is None:
        decision = _remember(known, place, _decide(policy, host, port))
    return decision


def _decide(policy: Policy, host: Host, port: int) -> Decision:
    near = policy.rules_for(host)
    matching = [rule for rule in near if rule.pattern.covers_port(port)]
    denying = next((rule for rule in matching if rule.list == "deny"), None)
    allowing = next((rule for rule in matching if rule.list == "allow"), None)
    if denying is not None:
        against = _against(policy, denying, f"{_rule_text(denying)} denies it")
        return against._replace(covered=allowing is not None)
    if allowing is not None:
        return _for(policy, allowing, f"{_rule_text(allowing)} allows it")
    other = next((rule for rule in near if rule.list == "allow"), None)
    if other is not None:
        ports = " and ".join(str(each) for each in other.pattern.ports or ())
        return _against(
            policy, None, f"no rule allows port {port} of {host.text}; {_rule_text(other)} allows {ports}"
        )
    return _against(policy, None, f"no rule allows {host.text}")


def decide_address(
    policy: Policy, host: Host, port: int, address: Address, host_network: HostNetwork
) -> Decision:
    """Judge the address that is about to be dialled for a host: the floor in every mode, deny rules by the mode."""
    known, place = policy.verdicts.on(host_network), (host, port, address)
    decision = known.get(place)
    if decision is None:
        decision = _remember(known, place, _decide_address(policy, host, port, address, host_network))
    return decision


def _decide_address(
    policy: Policy, host: Host, port: int, address: Address, host_network: HostNetwork
) -> Decision:
    closed = decide_proxy(policy, host, port, host_network)
    if closed is not None:
        return closed
    held = floor.refusal(address, port, _pins(policy, host, port), host_network)
    if held is not None:
        return Decision(False, "blocked", policy.mode, None, None, None, held.reason, held.cause)
    denying = next(iter(policy.denials_by_address(address, port)), None)
    if denying is not None:
        against = _against(
            policy,
            denying,
            f"{host.text} leads to {unmapped(address)}, and {_rule_text(denying)} denies that",
        )
        return against._replace(covered=True)
    reason = f"{unmapped(address)} may be dialled"
    return Decision(True, "allowed", policy.mode, None, None, None, reason, Cause.RULE)


def decide_proxy(policy: Policy, host: Host, port: int, host_network: HostNetwork) -> Decision | None:
    """Judge a host by its name: the upstream proxy's own is closed like irons' own ports; None for any other."""
    if (host.text, port) != host_network.proxy:
        return None
    reason = f"{host.text} is the upstream proxy, which is for the gateway alone; no rule opens that"
    return Decision(False, "blocked", policy.mode, None, None, None, reason, Cause.NEVER)


def judge(policy: Policy, host: Host, port: int, host_network: HostNetwork) -> Decision:
    """Judge all that can be judged without resolving or dialling: what ``egress check`` tells.

    The rules and the mode first; then, for a literal address or a name in ``[local.hosts]``, each address as it
    would be dialled. One that may be dialled is enough.
    """
    decision = decide_proxy(policy, host, port, host_network) or decide(policy, host, port)
    addresses = policy.addresses_of(host)
    if not decision.allowed or not addresses:
        return decision
    verdicts = [decide_address(policy, host, port, address, host_network) for address in addresses]
    if any(verdict.verdict == "allowed" for verdict in verdicts):
        return decision
    return next((verdict for verdict in verdicts if verdict.allowed), verdicts[0])


def forbidden(
    policy: Policy, connections: Iterable[Live], host_network: HostNetwork
) -> list[tuple[Live, str]]:
    """Which open connections a new policy forbids, each with the reason; an address not known is not judged."""
    cut: list[tuple[Live, str]] = []
    for live in connections:
        decision = decide(policy, live.host, live.port)
        if decision.allowed and live.address is not None:
            decision = decide_address(policy, live.host, live.port, live.address, host_network)
        if not decision.allowed:
            cut.append((live, decision.reason))
    return cut


def owner_of(name: str) -> str:
    """The name that a question is about: without the leading labels that begin with an underscore (RFC 8552)."""
    labels = name.split(".")
    while labels and labels[0].startswith("_"):
        del labels[0]
    return ".".join(labels)


def question_rule(policy: Policy, name: str, kind: Kind) -> Rule | None:
    """The rule that lets a question leave; None where none does.

    Only an allow rule does, in every mode, on whichever port: what a name has in the DNS is not about one. A wildcard
    lets no TXT question leave, for whoever runs the DNS of a name below it could answer with anything. One deny rule
    for the name, on whichever port, keeps all questions in. More leading labels, or longer ones, than a service and its
    protocol have could tell the name's servers something, and are kept in too. Of a web server no SRV question leaves: a client
    that went to its target would name the owner in its request, and be refused for the second name (apt does).

    Args:
        policy: of the sandbox that asks.
        name: canonical.
        kind: the type of the records.
    """
    owner = owner_of(name)
    if not owner or owner in {"localhost", INTERNAL}:
        return None
    service = name.split(".")[: -len(owner.split("."))]
    if len(service) > _MOST_LABELS or any(len(label) > _MOST_LABEL for label in service):
        return None
    if kind == "SRV" and service[:1] in _WEB:
        return None
    rules = policy.rules_for(Host(owner))
    if any(rule.list == "deny" for rule in rules):
        return None
    return next((rule for rule in rules if kind == "SRV" or rule.pattern.kind == "name"), None)


def _remember(known: dict[_Place, Decision], place: _Place, decision: Decision) -> Decision:
    """Keep a verdict; a sandbox that asks for ever more places only makes its earlier ones be judged again."""
    if len(known) >= _REMEMBERED:
        known.clear()
    known[place] = decision
    return decision


def _pins(policy: Policy, host: Host, port: int) -> list[floor.Pin]:
    return [
        floor.Pin(network, rule.pattern.ports is not None and len(rule.pattern.ports) == 1)
        for rule in policy.rules_for(host)
        if rule.private and rule.list == "allow" and rule.pattern.covers_port(port)
        for network in rule.private
    ]


def _for(policy: Policy, rule: Rule, reason: str) -> Decision:
    return Decision(
        True, "allowed", policy.mode, rule.pattern.text, rule.list, rule.scope, reason, Cause.RULE
    )


def _against(policy: Policy, rule: Rule | None, reason: str) -> Decision:
    waived = policy.mode == "warn"
    return Decision(
        waived,
        "warn" if waived else "blocked",
        policy.mode,
        rule.pattern.text if rule else None,
        rule.list if rule else None,
        rule.scope if rule else None,
        f"{reason} (let pass: mode warn)" if waived else reason,
        Cause.RULE if rule else Cause.UNCOVERED,
    )


def _rule_text(rule: Rule) -> str:
    return f"rule {rule.pattern.text} ({'all sandboxes' if rule.scope == 'account' else 'this sandbox'})"
