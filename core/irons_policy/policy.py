"""The policy of one sandbox and the verdicts it gives; pure, and the same for the gateway, ``egress check`` and tests.

``decide`` judges a host and port by the rules and the mode, ``check_address`` the address that is about to be
dialled by the floor and the deny rules. Both must pass before anything is dialled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from typing import Any, Literal, NamedTuple, TypeVar, cast

from irons_local.linux.routes import read_ground
from irons_policy import floor
from irons_policy.addresses import Address, Network, embedded, unmapped
from irons_policy.causes import Cause
from irons_policy.hostnames import Host, HostError, canonical_host
from irons_policy.hostnet import Ground
from irons_policy.patterns import Pattern, PatternError, covers, parse_pattern, read_pattern
from irons_policy.rules import (
    ListName,
    Rule,
    RuleDiff,
    RuleError,
    Scope,
    diff_rules,
    drop_rule,
    make_rule,
    put_rule,
)

__all__ = [
    "Decision",
    "Ground",
    "Host",
    "HostError",
    "Live",
    "Pattern",
    "PatternError",
    "Policy",
    "PolicyError",
    "Rule",
    "RuleDiff",
    "RuleError",
    "canonical_host",
    "check_address",
    "covers",
    "decide",
    "decide_address",
    "decide_proxy",
    "diff_rules",
    "drop_rule",
    "forbidden",
    "judge",
    "make_rule",
    "parse_pattern",
    "private_pins",
    "put_rule",
    "read_ground",
]

Mode = Literal["warn", "deny"]
Verdict = Literal["allowed", "blocked", "warn"]

_REMEMBERED = 512
_Place = TypeVar("_Place")


class PolicyError(ValueError):
    """A policy that cannot be read; the message says why."""


@dataclass(frozen=True)
class Policy:
    """What holds for one sandbox: its mode, the rules of its account and its own, and names with fixed addresses.

    Attributes:
        mode: "deny" enforces the rules; "warn" waives their verdicts, and nothing else.
        rules: both scopes together; a deny of either wins.
        hosts: canonical name to addresses (``[local.hosts]``), used in place of resolving.
    """

    mode: Mode = "warn"
    rules: tuple[Rule, ...] = ()
    hosts: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, obj: object) -> Policy:
        """Read a policy from its JSON form, in which its rules were accepted before.

        Raises:
            PolicyError: when it is malformed; no policy at all is safer than half of one.
        """
        if not isinstance(obj, Mapping):
            raise PolicyError("a policy is not a JSON object")
        fields = cast("Mapping[str, Any]", obj)
        mode, rules, hosts = fields.get("mode"), fields.get("rules", []), fields.get("hosts", {})
        if mode not in ("warn", "deny"):
            raise PolicyError(f"the mode is warn or deny, not {mode!r}")
        if not isinstance(rules, list) or not isinstance(hosts, Mapping):
            raise PolicyError("a policy's rules are a list, and its hosts an object")
        try:
            return cls(mode, tuple(Rule.from_json(rule) for rule in rules), _read_hosts(hosts))
        except RuleError as error:
            raise PolicyError(str(error)) from None

    def to_json(self) -> dict[str, Any]:
        """The JSON form, which ``from_json`` reads back to an equal policy."""
        return {
            "mode": self.mode,
            "rules": [rule.to_json() for rule in self.rules],
            "hosts": {
                name: [str(address) for address in addresses] for name, addresses in self.hosts.items()
            },
        }

    def addresses_of(self, host: Host) -> tuple[Address, ...] | None:
        """Where the host leads without resolving: itself, or what ``[local.hosts]`` says; else None."""
        if host.address is not None:
            return (host.address,)
        return self.hosts.get(host.text)

    def names(self, name: str) -> bool:
        """True where a rule for exactly this canonical name, or `[local.hosts]`, has it."""
        return name in self.hosts or name in self._index

    @cached_property
    def verdicts(self) -> Verdicts:
        """What it has decided lately."""
        return Verdicts()

    @cached_property
    def _index(self) -> dict[str, tuple[Rule, ...]]:
        """The rules by where a host would look for them: its name, each ``*.`` above it, ``*``, or the networks."""
        index: dict[str, list[Rule]] = {}
        for rule in self.rules:
            index.setdefault(_place(rule.pattern), []).append(rule)
        return {place: tuple(rules) for place, rules in index.items()}

    def rules_for(self, host: Host) -> list[Rule]:
        """The rules whose pattern covers the host, on whichever ports; the narrowest first, always in one order."""
        index = self._index
        if not index:
            return []
        found = list(index.get("*", ()))
        if host.address is not None:
            found.extend(rule for rule in index.get("/", ()) if rule.pattern.covers_host(host))
        else:
            found.extend(index.get(host.text, ()))
            rest = host.text
            while "." in rest:
                rest = rest.partition(".")[2]
                found.extend(index.get("*." + rest, ()))
        return sorted(found, key=_rank)

    def denials_by_address(self, address: Address, port: int) -> list[Rule]:
        """The deny rules that cover an address to be dialled, or an IPv4 address inside it; the narrowest first."""
        faces = [unmapped(address), *(inner for _, inner in embedded(address))]
        rules = (
            rule
            for rule in self._index.get("/", ())
            if rule.list == "deny" and rule.pattern.covers_port(port)
        )
        return sorted((rule for rule in rules if any(_holds(rule, face) for face in faces)), key=_rank)


class Decision(NamedTuple):
    """A verdict and what led to it.

    Attributes:
        allowed: whether the connection may go on; in ``warn`` also where the rules are against it.
        verdict: "allowed", "blocked", or "warn" for what only the mode lets pass.
        mode: the mode it was judged in.
        rule: the pattern of the rule that decided, None where none did.
        list: the list of that rule.
        scope: the scope of that rule.
        reason: one clause for the audit log. ``decide_address`` names addresses in it that the host's resolver
            found: those are for the log, never for the sandbox.
        cause: what decided, for programs.
        covered: where a deny rule decided, whether an allow rule covers the same, so that it passes without that one.
    """

    allowed: bool
    verdict: Verdict
    mode: Mode
    rule: str | None
    list: ListName | None
    scope: Scope | None
    reason: str
    cause: Cause
    covered: bool = False


class Verdicts:
    """What one policy decided lately: a sandbox asks for the same few places again and again, and at each step anew.

    Attributes:
        hosts: by host and port.
        addresses: by host, port and address, on the ground of the last question.
    """

    def __init__(self) -> None:
        self.hosts: dict[tuple[Host, int], Decision] = {}
        self.addresses: dict[tuple[Host, int, Address], Decision] = {}
        self._ground: Ground | None = None

    def on(self, ground: Ground) -> dict[tuple[Host, int, Address], Decision]:
        """What was decided of addresses on exactly this ground."""
        if self._ground is not ground:
            self._ground, self.addresses = ground, {}
        return self.addresses


class Live(NamedTuple):
    """A connection that is open: what it was judged by."""

    host: Host
    port: int
    address: Address | None = None


def decide(policy: Policy, host: Host | str, port: int) -> Decision:
    """Judge a host and port by the rules and the mode; the address is judged by ``check_address`` later.

    A deny rule of either scope wins; else an allow rule lets pass; else the mode decides. The rule named is the
    narrowest that matches in the deciding list.

    Args:
        policy: of the sandbox that asks.
        host: canonical, or a string to be read by ``canonical_host``.
        port: the TCP port.

    Raises:
        HostError: when a string is no host.
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
        against = _against(policy, denying, f"{_called(denying)} denies it")
        return against._replace(covered=allowing is not None)
    if allowing is not None:
        return _for(policy, allowing, f"{_called(allowing)} allows it")
    other = next((rule for rule in near if rule.list == "allow"), None)
    if other is not None:
        ports = " and ".join(str(each) for each in other.pattern.ports or ())
        return _against(
            policy, None, f"no rule allows port {port} of {host.text}; {_called(other)} allows {ports}"
        )
    return _against(policy, None, f"no rule allows {host.text}")


def private_pins(policy: Policy, host: Host, port: int) -> tuple[Network, ...]:
    """What ``--private`` opens for this host and port: the networks of every allow rule that covers them."""
    return tuple(dict.fromkeys(pin.network for pin in _pins(policy, host, port)))


def decide_address(policy: Policy, host: Host, port: int, address: Address, ground: Ground) -> Decision:
    """Judge the address that is about to be dialled for a host: the floor in every mode, deny rules by the mode."""
    known, place = policy.verdicts.on(ground), (host, port, address)
    decision = known.get(place)
    if decision is None:
        decision = _remember(known, place, _decide_address(policy, host, port, address, ground))
    return decision


def _decide_address(policy: Policy, host: Host, port: int, address: Address, ground: Ground) -> Decision:
    closed = decide_proxy(policy, host, port, ground)
    if closed is not None:
        return closed
    held = floor.refusal(address, port, _pins(policy, host, port), ground)
    if held is not None:
        return Decision(False, "blocked", policy.mode, None, None, None, held.reason, held.cause)
    denying = next(iter(policy.denials_by_address(address, port)), None)
    if denying is not None:
        against = _against(
            policy, denying, f"{host.text} leads to {unmapped(address)}, and {_called(denying)} denies that"
        )
        return against._replace(covered=True)
    reason = f"{unmapped(address)} may be dialled"
    return Decision(True, "allowed", policy.mode, None, None, None, reason, Cause.RULE)


def decide_proxy(policy: Policy, host: Host, port: int, ground: Ground) -> Decision | None:
    """Judge a host by its name: the upstream proxy's own is closed like irons' own ports; None for any other."""
    if (host.text, port) != ground.proxy:
        return None
    reason = f"{host.text} is the upstream proxy, which is for the gateway alone; no rule opens that"
    return Decision(False, "blocked", policy.mode, None, None, None, reason, Cause.NEVER)


def check_address(policy: Policy, host: Host, port: int, address: Address, ground: Ground) -> str | None:
    """Judge the address that is about to be dialled: None when it may be, else the reason (for the log alone)."""
    decision = decide_address(policy, host, port, address, ground)
    return None if decision.allowed else decision.reason


def judge(policy: Policy, host: Host, port: int, ground: Ground) -> Decision:
    """Judge all that can be judged without resolving or dialling: what ``egress check`` tells.

    The rules and the mode first; then, for a literal address or a name in ``[local.hosts]``, each address as it
    would be dialled. One that may be dialled is enough.
    """
    decision = decide_proxy(policy, host, port, ground) or decide(policy, host, port)
    addresses = policy.addresses_of(host)
    if not decision.allowed or not addresses:
        return decision
    verdicts = [decide_address(policy, host, port, address, ground) for address in addresses]
    if any(verdict.verdict == "allowed" for verdict in verdicts):
        return decision
    return next((verdict for verdict in verdicts if verdict.allowed), verdicts[0])


def forbidden(policy: Policy, connections: Iterable[Live], ground: Ground) -> list[tuple[Live, str]]:
    """Which open connections a new policy forbids, each with the reason; an address not known is not judged."""
    cut: list[tuple[Live, str]] = []
    for live in connections:
        decision = decide(policy, live.host, live.port)
        if decision.allowed and live.address is not None:
            decision = decide_address(policy, live.host, live.port, live.address, ground)
        if not decision.allowed:
            cut.append((live, decision.reason))
    return cut


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


def _called(rule: Rule) -> str:
    return f"rule {rule.pattern.text} ({rule.scope})"


def _place(pattern: Pattern) -> str:
    if pattern.kind == "network":
        return "/"
    if pattern.kind == "any":
        return "*"
    return "*." + pattern.name if pattern.kind == "below" else pattern.name


def _holds(rule: Rule, address: Address) -> bool:
    return rule.pattern.network is not None and address in rule.pattern.network


def _rank(rule: Rule) -> tuple[int, int, int, bool, str, str]:
    rank, width, ports = rule.pattern.narrowness
    return (-rank, -width, -ports, rule.scope == "account", rule.pattern.text, rule.list)


def _read_hosts(hosts: Mapping[Any, Any]) -> dict[str, tuple[Address, ...]]:
    answer: dict[str, tuple[Address, ...]] = {}
    for name, addresses in hosts.items():
        try:
            pattern = read_pattern(name, mapped=True)
            if pattern.text != pattern.name:
                raise PolicyError(
                    f"host {name!r}: a name alone, without wildcard or port, leads to addresses"
                )
            texts = [addresses] if isinstance(addresses, str) else list(addresses)
            answer[pattern.name] = tuple(unmapped(ip_address(text)) for text in texts)
        except PolicyError:
            raise
        except (TypeError, ValueError) as error:
            raise PolicyError(f"host {name!r}: {error}") from None
    return answer
