"""Rules and lists of them: made, edited and compared, without a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast

from irons_policy import floor
from irons_policy.addresses import Network, is_single
from irons_policy.patterns import Pattern, PatternError, parse_network, parse_pattern, read_pattern

ListName = Literal["allow", "deny"]
Scope = Literal["account", "sandbox"]


class RuleError(ValueError):
    """A rule that cannot be; the message says why.

    Attributes:
        private: the private address that is at fault; empty where it is the pattern.
    """

    def __init__(self, message: str, *, private: str = "") -> None:
        super().__init__(message)
        self.private = private


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: a pattern in the allow or the deny list of the account or of one sandbox.

    Attributes:
        private: the networks that an allow rule opens beneath the floor (``--private``).
        broad: the pattern was accepted though it covers a private public suffix (``--broad``).
        note: what its author wrote beside it.
    """

    pattern: Pattern
    list: ListName
    scope: Scope = "account"
    private: tuple[Network, ...] = ()
    broad: bool = False
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The rule as the policy's JSON holds it; networks of one address are written as the address."""
        answer: dict[str, Any] = {
            "pattern": self.pattern.text,
            "list": self.list,
            "scope": self.scope,
            "private": [spell(network) for network in self.private],
            "broad": self.broad,
        }
        if self.note:
            answer["note"] = self.note
        return answer

    @classmethod
    def from_json(cls, obj: object) -> Rule:
        """Read a rule that was accepted before; public suffixes are not looked at again.

        Raises:
            RuleError: when it is malformed.
        """
        if not isinstance(obj, Mapping):
            raise RuleError("a rule is not a JSON object")
        fields = cast("Mapping[str, Any]", obj)
        pattern, kind, scope = fields.get("pattern"), fields.get("list"), fields.get("scope", "account")
        private, note = fields.get("private") or (), fields.get("note") or ""
        if (
            not isinstance(pattern, str)
            or kind not in ("allow", "deny")
            or scope not in ("account", "sandbox")
        ):
            raise RuleError("a rule has a pattern, a list (allow or deny) and a scope (account or sandbox)")
        if not isinstance(private, list | tuple) or not isinstance(note, str):
            raise RuleError("a rule's private addresses are a list, and its note is a string")
        try:
            networks = _networks(private)
            return cls(
                read_pattern(pattern, mapped=True), kind, scope, networks, fields.get("broad") is True, note
            )
        except PatternError as error:
            raise RuleError(f"rule {pattern!r}: {error}") from None


class RuleDiff(NamedTuple):
    """What turns one list of rules into another; of a changed rule, the new form."""

    added: tuple[Rule, ...]
    removed: tuple[Rule, ...]
    changed: tuple[Rule, ...]

    def __bool__(self) -> bool:
        return any(self)


def make_rule(
    pattern: str,
    kind: ListName,
    *,
    scope: Scope = "account",
    private: Sequence[str] = (),
    broad: bool = False,
    note: str = "",
) -> Rule:
    """Make a rule of what a person typed.

    Args:
        pattern: as ``parse_pattern`` takes it.
        kind: the list it goes to.
        scope: whose list that is.
        private: addresses and blocks that the rule opens beneath the floor.
        broad: accept a wildcard over a private public suffix.
        note: kept beside the rule.

    Raises:
        RuleError: with the reason; its text is fit to show.
    """
    try:
        parsed = parse_pattern(pattern, broad=broad)
    except PatternError as error:
        raise RuleError(str(error)) from None
    for text in private:
        try:
            parse_network(text)
        except PatternError as error:
            raise RuleError(str(error), private=text) from None
    networks = _networks(private)
    if networks and kind == "deny":
        raise RuleError(
            "a deny rule opens nothing, so --private has no place on it", private=spell(networks[0])
        )
    for network in networks:
        _check_pin(parsed, network)
    return Rule(parsed, kind, scope, networks, broad, note)


def spell(network: Network) -> str:
    """A network as people write it: one address without its prefix length."""
    return str(network.network_address) if is_single(network) else str(network)


def put_rule(rules: Iterable[Rule], rule: Rule) -> tuple[tuple[Rule, ...], bool]:
    """Add a rule; one with the same pattern and scope, in whichever list, gives way to it.

    Returns:
        The new rules, in their order with the new one in the old one's place or at the end, and whether
        anything changed.
    """
    kept = tuple(rules)
    for at, old in enumerate(kept):
        if _key(old) == _key(rule):
            return (*kept[:at], rule, *kept[at + 1 :]), old != rule
    return (*kept, rule), True


def drop_rule(
    rules: Iterable[Rule], text: str, scope: Scope = "account"
) -> tuple[tuple[Rule, ...], Rule | None]:
    """Take the rule with this pattern, in any spelling, out of a scope; None when there was none.

    Raises:
        RuleError: when the text is no pattern.
    """
    kept = tuple(rules)
    try:
        key = (scope, read_pattern(text).text)
    except PatternError as error:
        raise RuleError(str(error)) from None
    dropped = next((rule for rule in kept if _key(rule) == key), None)
    return tuple(rule for rule in kept if _key(rule) != key), dropped


def diff_rules(old: Iterable[Rule], new: Iterable[Rule]) -> RuleDiff:
    """Compare two lists of rules by pattern and scope; list, private addresses and note make a change."""
    before = {_key(rule): rule for rule in old}
    after = {_key(rule): rule for rule in new}
    return RuleDiff(
        tuple(rule for key, rule in after.items() if key not in before),
        tuple(rule for key, rule in before.items() if key not in after),
        tuple(rule for key, rule in after.items() if key in before and _plain(before[key]) != _plain(rule)),
    )


def _key(rule: Rule) -> tuple[str, str]:
    return rule.scope, rule.pattern.text


def _plain(rule: Rule) -> Rule:
    return replace(rule, broad=False, private=tuple(sorted(set(rule.private), key=spell)))


def _networks(texts: Iterable[object]) -> tuple[Network, ...]:
    found: list[Network] = []
    for text in texts:
        if not isinstance(text, str):
            raise PatternError("a private address is a string")
        network = parse_network(text)
        if network not in found:
            found.append(network)
    return tuple(found)


def _check_pin(pattern: Pattern, network: Network) -> None:
    """Refuse what the floor would not heed, rather than let a rule silently do nothing."""
    step, what = floor.held(network) or ("", "")
    spelled = spell(network)
    if step == "never":
        raise RuleError(f"{spelled} is {what}; no rule opens that", private=spelled)
    if step != "own":
        return
    if not is_single(network):
        raise RuleError(
            f"{spelled} is this machine's own, opened only one exact address at a time", private=spelled
        )
    if pattern.ports is None or len(pattern.ports) != 1:
        raise RuleError(
            f"{spelled} is this machine's own, opened only for one port; give the rule one", private=spelled
        )
