"""The one rule type of files, requests, the store and the gateway: made, read and compared; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, NotRequired, TypedDict, cast

from irons_policy import floor
from irons_policy.addresses import Network, is_single
from irons_policy.ends import RuleEnd, read_end
from irons_policy.patterns import Pattern, PatternError, parse_network, parse_pattern, read_pattern

ListName = Literal["allow", "deny"]
LISTS: Final[tuple[ListName, ...]] = ("allow", "deny")
Scope = Literal["account", "sandbox"]
SCOPES: Final[tuple[Scope, ...]] = ("account", "sandbox")
ChangeKind = Literal["added", "removed", "changed"]


class RuleRequest(TypedDict):
    """A rule as a request of the API carries it; its fields are those of ``Rule``."""

    pattern: str
    list: ListName
    private: NotRequired[Sequence[str]]
    note: NotRequired[str]
    broad: NotRequired[bool]
    until: NotRequired[str]


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

    Two rules are the same exactly where they are equal: everything counts except ``created_at``.

    Attributes:
        private: the networks that an allow rule opens beneath the floor (``--private``); once each, in ascending order.
        broad: the pattern was accepted though it covers a private public suffix (``--broad``).
        note: what its author wrote next to it.
        until: when it ends by itself; None where it stays.
        created_at: microseconds since 1970; 0 for a rule that is not stored.
    """

    pattern: Pattern
    list: ListName
    scope: Scope = "account"
    private: tuple[Network, ...] = ()
    broad: bool = False
    note: str = ""
    until: RuleEnd | None = None
    created_at: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        """Put the private networks in order, so that the order they were given in makes no difference."""
        if len(self.private) > 1:
            object.__setattr__(self, "private", tuple(sorted(set(self.private), key=_position)))

    @property
    def pins(self) -> tuple[str, ...]:
        """The private networks as text; one address is written without its prefix length."""
        return tuple(map(spell, self.private))

    def to_json(self) -> dict[str, Any]:
        """The rule as a policy's JSON holds it."""
        answer: dict[str, Any] = {
            "pattern": self.pattern.text,
            "list": self.list,
            "scope": self.scope,
            "private": list(self.pins),
            "broad": self.broad,
        }
        if self.note:
            answer["note"] = self.note
        if self.until is not None:
            answer["until"] = self.until.text
            if self.until.up is not None:
                answer["until_up"] = self.until.up
        return answer

    def to_request(self) -> RuleRequest:
        """The rule as a request of the API carries it: the path names its scope, and the server its time."""
        body: RuleRequest = {"pattern": self.pattern.text, "list": self.list}
        if self.private:
            body["private"] = list(self.pins)
        if self.note:
            body["note"] = self.note
        if self.broad:
            body["broad"] = True
        if self.until is not None:
            body["until"] = self.until.text
        return body

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
        if not isinstance(pattern, str) or kind not in LISTS or scope not in SCOPES:
            raise RuleError("a rule has a pattern, a list (allow or deny) and a scope (account or sandbox)")
        if not isinstance(private, list | tuple) or not isinstance(note, str):
            raise RuleError("a rule's private addresses are a list, and its note is a string")
        try:
            networks = _networks(private)
            until = _end(fields)
            return cls(
                read_pattern(pattern, mapped=True),
                kind,
                scope,
                networks,
                fields.get("broad") is True,
                note,
                until,
            )
        except ValueError as error:
            raise RuleError(f"rule {pattern!r}: {error}") from None


class RuleChange(NamedTuple):
    """One difference between two lists of rules.

    Attributes:
        before: the rule as it was; None where it is new.
        after: the rule as it is then; None where it goes.
    """

    before: Rule | None
    after: Rule | None

    @property
    def kind(self) -> ChangeKind:
        """What happens to the rule."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"

    @property
    def rule(self) -> Rule:
        """The rule as it is then, or, where it goes, as it was."""
        rule = self.before if self.after is None else self.after
        assert rule is not None, "a change has one side at least"  # noqa: S101
        return rule


def make_rule(
    pattern: str,
    kind: ListName,
    *,
    scope: Scope = "account",
    private: Sequence[str] = (),
    broad: bool = False,
    note: str = "",
    until: RuleEnd | None = None,
) -> Rule:
    """Make a rule of what a person typed.

    Args:
        pattern: as ``parse_pattern`` takes it.
        kind: the list it goes to.
        scope: whose list that is.
        private: addresses and blocks that the rule opens beneath the floor.
        broad: accept a wildcard over a private public suffix.
        note: kept next to the rule.
        until: when it ends by itself.

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
    return Rule(parsed, kind, scope, networks, broad, note, until)


def spell(network: Network) -> str:
    """A network as people write it: one address without its prefix length."""
    return str(network.network_address) if is_single(network) else str(network)


def diff_rules(old: Iterable[Rule], new: Iterable[Rule]) -> tuple[RuleChange, ...]:
    """Compare two lists of rules; rules with the same scope and pattern are one rule, which may have changed.

    Returns:
        What turns the old list into the new one: additions and changes in the order of the new list, then removals in
        that of the old one.
    """
    before = {_key(rule): rule for rule in old}
    after = {_key(rule): rule for rule in new}
    stays = (RuleChange(before.get(key), rule) for key, rule in after.items() if before.get(key) != rule)
    goes = (RuleChange(rule, None) for key, rule in before.items() if key not in after)
    return (*stays, *goes)


def _key(rule: Rule) -> tuple[str, str]:
    return rule.scope, rule.pattern.text


def _position(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen


def _networks(texts: Iterable[object]) -> tuple[Network, ...]:
    found: list[Network] = []
    for text in texts:
        if not isinstance(text, str):
            raise PatternError("a private address is a string")
        network = parse_network(text)
        if network not in found:
            found.append(network)
    return tuple(found)


def _end(fields: Mapping[str, Any]) -> RuleEnd | None:
    text, up = fields.get("until"), fields.get("until_up")
    if text is None:
        return None
    if not isinstance(text, str) or not (up is None or type(up) is int):
        raise RuleError("a rule's end is a time or stop")
    return read_end(text, up)


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
