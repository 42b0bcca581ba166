"""The policy of one sandbox, as a value: its mode, its rules, and the verdicts that were given; pure.

`decide` judges by it, for the gateway, ``egress check`` and tests alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import ip_address
from operator import itemgetter
from typing import Any, NamedTuple, cast

from irons_policy.addresses import Address, embedded, unmapped
from irons_policy.causes import Cause
from irons_policy.ends import Moment
from irons_policy.hostnames import Host
from irons_policy.hostnet import HostNetwork
from irons_policy.modes import WIRE_MODES, Mode, Verdict, read_mode, wire_mode
from irons_policy.patterns import Pattern, PatternError, read_never, read_pattern
from irons_policy.rules import ListName, Rule, RuleError, Scope


class PolicyError(ValueError):
    """A policy that cannot be read; the message says why."""


@dataclass(frozen=True)
class Policy:
    """What holds for one sandbox: its mode, the rules of its account and its own, and names with fixed addresses.

    Attributes:
        mode: "deny" enforces the rules; "warn" waives their verdicts, and nothing else; "ask" is "deny" where a person may
            be asked first.
        rules: both scopes together; a deny of either wins.
        hosts: canonical name to addresses (``[local.hosts]``), used in place of resolving.
        never: what no person is asked about (``[ask] never``); it decides nothing else.
    """

    mode: Mode = "warn"
    rules: tuple[Rule, ...] = ()
    hosts: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    never: tuple[Pattern, ...] = ()

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
        if mode not in WIRE_MODES:
            raise PolicyError(f"the mode is {' or '.join(WIRE_MODES)}, not {mode!r}")
        if not isinstance(rules, list) or not isinstance(hosts, Mapping):
            raise PolicyError("a policy's rules are a list, and its hosts an object")
        try:
            return cls(
                read_mode(fields),
                tuple(Rule.from_json(rule) for rule in rules),
                _read_hosts(hosts),
                read_never(fields.get("never", [])),
            )
        except (RuleError, PatternError) as error:
            raise PolicyError(str(error)) from None

    def to_json(self) -> dict[str, Any]:
        """The JSON form, which ``from_json`` reads back to an equal policy."""
        return {
            **wire_mode(self.mode),
            "rules": [rule.to_json() for rule in self.rules],
            "hosts": {
                name: [str(address) for address in addresses] for name, addresses in self.hosts.items()
            },
            **({"never": [each.text for each in self.never]} if self.never else {}),
        }

    def addresses_of(self, host: Host) -> tuple[Address, ...] | None:
        """Where the host leads without resolving: itself, or what ``[local.hosts]`` says; else None."""
        if host.address is not None:
            return (host.address,)
        return self.hosts.get(host.text)

    def unasked(self, host: Host, port: int) -> Pattern | None:
        """The pattern by which no person is asked about a place; None where one may be."""
        return self._never_index.covering(host, port)

    @cached_property
    def is_timed(self) -> bool:
        """True where a rule ends by a clock."""
        return any(rule.until is not None and rule.until.at is not None for rule in self.rules)

    def at(self, now: Moment) -> Policy:
        """The policy as it is at a moment: without the rules that are over; itself where none is."""
        if not self.is_timed:
            return self
        left = tuple(rule for rule in self.rules if rule.until is None or not rule.until.over(now))
        return self if len(left) == len(self.rules) else replace(self, rules=left)

    def changes_in(self, now: Moment) -> int | None:
        """Microseconds until the next of its rules is over; None where none ends by a clock."""
        lefts = (rule.until.left(now) for rule in self.rules if rule.until is not None)
        return min((left for left in lefts if left is not None), default=None)

    def names(self, name: str) -> bool:
        """True where a rule for exactly this canonical name, or `[local.hosts]`, has it."""
        return name in self.hosts or name in self._index

    @cached_property
    def verdicts(self) -> Verdicts:
        """What it has decided lately."""
        return Verdicts()

    @cached_property
    def _never_index(self) -> PatternIndex:
        return PatternIndex(self.never)

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


_Place = str | tuple[int, int, int]
_EVERY = -1
"""In place of a port: any that a pattern has."""


class PatternIndex:
    """Patterns by what they cover: finds the first one that covers a host, or covers something that another pattern does.

    Of two patterns, the hosts of one are within those of the other, or apart from them. So there is a place for each set of hosts, and a
    pattern is looked up in its own, in each wider one, and among those within it.

    Args:
        patterns: in the order that says which is the first.
    """

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._at: dict[tuple[_Place, int | None], tuple[int, Pattern]] = {}
        self._within: dict[tuple[_Place, int | None], tuple[int, Pattern]] = {}
        for found in enumerate(patterns):
            pattern = found[1]
            own, *wider = _places(pattern)
            for port in (_EVERY, *(pattern.ports or (None,))):
                self._at.setdefault((own, port), found)
                for place in wider:
                    self._within.setdefault((place, port), found)

    def covering(self, host: Host, port: int) -> Pattern | None:
        """The first pattern that covers a host on a port."""
        places: tuple[_Place, ...] = (
            (host.text, *_wider(host.text))
            if host.address is None
            else _networks(host.address, host.address.max_prefixlen)
        )
        return _first(self._at.get((place, each)) for place in places for each in (port, None))

    def overlapping(self, pattern: Pattern) -> Pattern | None:
        """The first pattern that covers some host and port that another one covers."""
        own, *wider = _places(pattern)
        ports = (_EVERY,) if pattern.ports is None else (*pattern.ports, None)
        within = [self._within.get((own, port)) for port in ports]
        return _first([*within, *(self._at.get((place, port)) for place in (own, *wider) for port in ports)])


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
    """What one policy decided lately: a sandbox asks for the same few places again and again, and at each step again.

    Attributes:
        hosts: by host and port.
        addresses: by host, port and address, for the host network of the last question.
    """

    def __init__(self) -> None:
        self.hosts: dict[tuple[Host, int], Decision] = {}
        self.addresses: dict[tuple[Host, int, Address], Decision] = {}
        self._host_network: HostNetwork | None = None

    def on(self, host_network: HostNetwork) -> dict[tuple[Host, int, Address], Decision]:
        """Return what was decided of addresses for exactly this host network."""
        if self._host_network is not host_network:
            self._host_network, self.addresses = host_network, {}
        return self.addresses


def _places(pattern: Pattern) -> tuple[_Place, ...]:
    """The place of a pattern, and each wider one."""
    if pattern.kind == "any":
        return ("*",)
    if pattern.network is not None:
        return _networks(pattern.network.network_address, pattern.network.prefixlen)
    return (_place(pattern), *_wider(pattern.name))


def _wider(name: str) -> Iterator[str]:
    """The places above a name, and above what is below it."""
    while "." in name:
        name = name.partition(".")[2]
        yield f"*.{name}"
    yield "*"


def _networks(address: Address, prefix: int) -> tuple[_Place, ...]:
    """The places of a block, and each block that it is within."""
    bits = int(address) >> (address.max_prefixlen - prefix)
    return (*((address.version, prefix - up, bits >> up) for up in range(prefix + 1)), "*")


def _first(found: Iterable[tuple[int, Pattern] | None]) -> Pattern | None:
    first = min((each for each in found if each is not None), key=itemgetter(0), default=None)
    return None if first is None else first[1]


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
