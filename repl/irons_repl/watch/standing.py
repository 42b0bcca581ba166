"""The rules of what is watched, as they were read last: what they say of a host, and what a key would add to them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from irons.record import NamedTuple
from irons_policy.addresses import network_of, unmapped
from irons_policy.causes import Cause
from irons_policy.decide import decide
from irons_policy.floor import held
from irons_policy.hostnames import HostError, canonical_host
from irons_policy.patterns import HTTPS, narrowest
from irons_policy.policy import Decision, Policy
from irons_policy.remedy import held_address, note, suggestion
from irons_policy.rules import ListName, Rule, RuleError, make_rule, spell
from irons_repl.watch.model import HostRow, target_of

if TYPE_CHECKING:
    from irons_policy.addresses import Address
    from irons_policy.ends import RuleEnd
    from irons_policy.event import Event
    from irons_policy.rules import Scope

Verb = ListName

RULED = ("", Cause.RULE, Cause.UNCOVERED, Cause.FLOOR, Cause.ASKED)
"""Causes that a rule can change; older servers tell none."""


class Proposal(NamedTuple):
    """A rule that a key would add.

    Attributes:
        verb: The list that it goes to.
        pattern: Its pattern.
        sandbox: The sandbox that it is for; None for all sandboxes.
        private: Networks that it opens, beneath the floor.
        note: The note of the rule that it replaces.
    """

    verb: Verb
    pattern: str
    sandbox: str | None = None
    private: tuple[str, ...] = ()
    note: str = ""

    @property
    def rule(self) -> str:
        """The rule as the command line has it."""
        return " ".join((self.pattern, *(f"--private {each}" for each in self.private)))

    @property
    def scope(self) -> str:
        """The sandbox, or all."""
        return self.sandbox or "all sandboxes"


class KnownRules:
    """Rules of the scope that is watched: of all sandboxes, and of the one sandbox where only one is watched.

    Attributes:
        sandbox: The sandbox; None for all.
        known: Whether the rules were read at all.
    """

    def __init__(self, sandbox: str | None, rules: Iterable[Rule] | None = None) -> None:
        """Take the rules of both scopes; None where they are not known yet."""
        self.sandbox = sandbox
        self.known = rules is not None
        # What a rule says does not depend on the mode, which waives it or not.
        self._policy = Policy("deny", tuple(rules or ()))
        self._decisions: dict[tuple[str, int], Decision | None] = {}

    def decision(self, event: Event) -> Decision | None:
        """Return what the rules say of an event's host and port; None where they are not known, or can't name it."""
        place = event.host, event.port or HTTPS
        if place not in self._decisions:
            try:
                self._decisions[place] = decide(self._policy, *place) if self.known else None
            except HostError:
                self._decisions[place] = None
        return self._decisions[place]

    def marks(self, event: Event) -> ListName | None:
        """Return the list of the rule that decides an event's host; None where no rule does."""
        decision = self.decision(event)
        return decision.list if decision is not None else None

    def end_of(self, decision: Decision) -> RuleEnd | None:
        """Return when the rule that decided ends by itself; None where it stays."""
        same = (
            rule
            for rule in self._policy.rules
            if (rule.pattern.text, rule.list, rule.scope) == (decision.rule, decision.list, decision.scope)
        )
        return next((rule.until for rule in same), None)

    def undecided(self, host: HostRow) -> bool:
        """Tell whether attempts at a host were denied, or would be, and a rule that is not there yet would change that."""
        return any(self._undecided(event) for event in host.against.values())

    def _undecided(self, event: Event) -> bool:
        if not _ruled(event) or event.cause == Cause.RULE:
            return False
        address = _floored(event)
        if event.cause == Cause.FLOOR or address is not None:
            return address is not None and not _never(address) and not self._pinned(event, address)
        return self.marks(event) is None

    def propose(self, verb: Verb, event: Event) -> Proposal | str:
        """Return the rule that a key would make of an event, or why there is none to make."""
        if event.host == "*":
            return "This event counts many hosts: no rule names them"
        if not _ruled(event):
            return f"No rule for {target_of(event)}: {note(event.cause) or 'its protocol is always refused'}"
        decision = self.decision(event)
        address = _floored(event)
        if verb == "allow" and address is not None and not self._pinned(event, address):
            return self._pinning(event, address)
        if decision is not None and decision.list == verb:
            done = "allowed" if verb == "allow" else "denied"
            return f"{target_of(event)} is {done} already, by {decision.rule}{self._of(decision.scope)}"
        pattern = target_of(event)
        return self._checked(verb, pattern, (), self._note(pattern))

    def fix(self, event: Event) -> str:
        """Return the command that would allow what an event was refused for; empty where no rule can, or the rules allow it."""
        if not _ruled(event) or event.host == "*":
            return ""
        decision = self.decision(event)
        sandbox = self.sandbox or event.sandbox or None
        if event.cause == Cause.FLOOR:
            address = _address(event.address)
            if address is None or self._pinned(event, address):
                return ""
            return suggestion(event.host, event.port or HTTPS, sandbox=sandbox, private=address) or ""
        if decision is not None and decision.list == "allow":
            return ""
        return suggestion(event.host, event.port or HTTPS, decision=decision, sandbox=sandbox) or ""

    def _pinning(self, event: Event, address: Address) -> Proposal | str:
        if _never(address):
            return f"{target_of(event)} leads to {address}: no rule opens it"
        pattern = narrowest(event.host, event.port or HTTPS, exact=True)
        before = self._own(pattern)
        pins = before.pins if before is not None else ()
        return self._checked(
            "allow",
            pattern,
            tuple(dict.fromkeys((*pins, str(unmapped(address))))),
            before.note if before else "",
        )

    def _checked(self, verb: Verb, pattern: str, private: tuple[str, ...], note: str) -> Proposal | str:
        try:
            rule = make_rule(pattern, verb, private=private, note=note)
        except RuleError as error:
            return f"{pattern} can't be a rule: {error}"
        if verb == "allow":
            wider = self._denied_by(rule)
            if wider is not None:
                where = f" --sandbox {self.sandbox}" if wider.scope == "sandbox" else " --all"
                return f"{wider.pattern.text} denies it{self._of(wider.scope)}: irons egress remove '{wider.pattern.text}'{where}"
        return Proposal(verb, rule.pattern.text, self.sandbox, tuple(map(spell, rule.private)), note)

    def _denied_by(self, rule: Rule) -> Rule | None:
        """Return a deny rule that would go on to win over a new allow rule, which replaces only one of its own pattern and scope."""
        network = rule.pattern.network
        host = rule.pattern.name if network is None else str(network.network_address)
        try:
            found = self._policy.rules_for(canonical_host(host))
        except HostError:
            return None
        own = "account" if self.sandbox is None else "sandbox"
        for each in found:
            same = each.pattern.text == rule.pattern.text and each.scope == own
            if each.list == "deny" and not same and _ports_meet(each, rule):
                return each
        return None

    def _own(self, pattern: str) -> Rule | None:
        """Return the rule of just this pattern in the scope that keys change."""
        own = "account" if self.sandbox is None else "sandbox"
        for rule in self._policy.rules:
            if rule.pattern.text == pattern and rule.scope == own:
                return rule
        return None

    def _note(self, pattern: str) -> str:
        own = self._own(pattern)
        return own.note if own is not None else ""

    def _pinned(self, event: Event, address: Address) -> bool:
        """Tell whether an allow rule opens this address for an event's host already."""
        try:
            found = self._policy.rules_for(canonical_host(event.host))
        except HostError:
            return False
        port = event.port or HTTPS
        return any(
            unmapped(address) in network
            for rule in found
            if rule.list == "allow" and rule.pattern.covers_port(port)
            for network in rule.private
        )

    def _of(self, scope: Scope | None) -> str:
        if self.sandbox is None:
            return ""
        return f" (of {self.sandbox})" if scope == "sandbox" else " (of all sandboxes)"


def _ports_meet(one: Rule, other: Rule) -> bool:
    if one.pattern.ports is None or other.pattern.ports is None:
        return True
    return not set(one.pattern.ports).isdisjoint(other.pattern.ports)


def _ruled(event: Event) -> bool:
    # What mode warn let pass, mode deny would refuse by the rules, no matter what became of it afterwards.
    return event.protocol not in ("udp", "icmp") and (event.cause in RULED or event.verdict == "warn")


def _never(address: Address) -> bool:
    return (held(network_of(unmapped(address))) or ("",))[0] == "never"


def _floored(event: Event) -> Address | None:
    """Return the address that only a pin opens: the one that the floor refused, or the host where it is such an address."""
    if event.cause == Cause.FLOOR:
        return _address(event.address)
    # Names are most hosts, and need no parsing: an address in its canonical spelling ends in a digit or has a colon.
    return held_address(event.host) if event.host[-1:].isdigit() or ":" in event.host else None


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
