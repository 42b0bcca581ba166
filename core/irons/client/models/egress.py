"""Rules and modes of egress: what the API answers about them, and what its requests may say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from irons.client.models.fields import (
    count_of,
    mode_of,
    rows_of,
    text_of,
    texts_by_key,
    texts_of,
    time_of,
    whole_of,
    word_of,
)
from irons.record import NamedTuple

if TYPE_CHECKING:
    from irons_policy.rules import RuleRequest


class ListedRule(NamedTuple):
    """A rule as the server lists it; `irons_policy.rules.Rule.from_json` takes its mapping.

    Attributes:
        list: `allow` or `deny`.
        pattern: Its pattern, in its one spelling.
        private: Networks that it opens although they are private.
        note: What its author wrote next to it.
        covers: What it covers, in one sentence.
        created_at: When it was made.
        broad: It was accepted although it covers a private public suffix.
        until: When it ends by itself: an RFC 3339 time, or `stop`, for when its sandbox stops; None where it stays.
        left: Seconds until that time by the server's clocks, which no step of the wall clock moves; None where it does not say.
    """

    list: str
    pattern: str
    private: tuple[str, ...] = ()
    note: str | None = None
    covers: str | None = None
    created_at: datetime | None = None
    broad: bool = False
    until: str | None = None
    left: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ListedRule:
        """Read a rule of an answer."""
        get = row.get
        return cls(
            text_of(get("list")),
            text_of(get("pattern")),
            texts_of(get("private")),
            word_of(get("note")),
            word_of(get("covers")),
            time_of(get("created_at")),
            get("broad") is True,
            word_of(get("until")),
            whole_of(get("left")),
        )


class EgressRules(NamedTuple):
    """Allow and deny lists, of all sandboxes or of one.

    Attributes:
        allowed: The patterns of the allow list.
        denied: The patterns of the deny list.
        mode: The mode that applies to them; empty where the server does not say.
        rules: Both lists as rules, the allow list first.
        revision: Names just this state of rules and mode, for `Api.replace_rules`; empty where the server has none.
        never: Patterns that no person is asked about.
    """

    allowed: tuple[str, ...]
    denied: tuple[str, ...]
    mode: str = ""
    rules: tuple[ListedRule, ...] = ()
    revision: str = ""
    never: tuple[str, ...] = ()

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> EgressRules:
        """Read an answer of `GET …/egress`; a plain v0 server has the lists alone."""
        lists = {
            kind: texts_of(answer.get(key))
            for kind, key in (("allow", "allowed_domains"), ("deny", "denied_domains"))
        }
        known = {(rule.list, rule.pattern): rule for rule in map(ListedRule.of, rows_of(answer, "rules"))}
        return cls(
            lists["allow"],
            lists["deny"],
            mode_of(answer),
            tuple(
                known.get((kind, pattern)) or ListedRule(kind, pattern)
                for kind, patterns in lists.items()
                for pattern in patterns
            ),
            text_of(answer.get("revision")),
            texts_of(answer.get("never")),
        )


class RuleChanged(NamedTuple):
    """What a change did to one rule.

    Attributes:
        pattern: The rule's pattern, in its one spelling.
        list: The list that it is, or was, in: `allow` or `deny`.
        covers: What it covers, in one sentence; empty where the server does not say.
        changed: False where it was there already, just as it is.
    """

    pattern: str
    list: str = ""
    covers: str = ""
    changed: bool = True


class RulesChanged(NamedTuple):
    """What one change of rules did, or, as a dry run, would do.

    Attributes:
        rules: The rules that it put or removed.
        cut: Live connections that it cut.
        mode: The mode that applies to them; empty where the server does not say.
        followers: How many sandboxes a change for all of them is for; None for a change of one, or where the server does not say.
    """

    rules: tuple[RuleChanged, ...]
    cut: int = 0
    mode: str = ""
    followers: int | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any], patterns: Sequence[str]) -> RulesChanged:
        """Read what a change of rules did; `patterns` are those that were asked for, where a plain server does not name them."""
        rows = rows_of(answer, "rules") or ([answer] if len(patterns) == 1 else [])
        if len(rows) != len(patterns):
            rows = [{}] * len(patterns)
        rules = (
            RuleChanged(
                text_of(row.get("pattern")) or pattern,
                text_of(row.get("list")),
                text_of(row.get("covers")),
                row.get("changed") is not False,
            )
            for row, pattern in zip(rows, patterns, strict=True)
        )
        mode, followers = mode_of(answer), whole_of(answer.get("followers"))
        return cls(tuple(rules), count_of(answer.get("cut")), mode, followers)


class NewPolicy(TypedDict, total=False):
    """A whole policy for `Api.replace_rules`.

    Attributes:
        rules: All its rules; what is not among them is removed.
        mode: Its mode; None has a sandbox follow all sandboxes' mode, and left out it stays.
        revision: That of the `EgressRules` which it was made of; left out, others' changes since are overwritten.
        never: What no person is asked about; left out it stays. Needs the extension `policy-never`.
    """

    rules: Sequence[RuleRequest]
    mode: str | None
    revision: str
    never: Sequence[str]


class PolicyDiff(NamedTuple):
    """What replacing a policy did, or, as a dry run, would do.

    Attributes:
        added: Rules that were not there.
        removed: Rules that went.
        changed: Rules of which something else than the pattern changed, as they are then.
        cut: Live connections that it cut.
        followers: How many sandboxes a policy of all of them is for, as in `RulesChanged`.
    """

    added: tuple[ListedRule, ...] = ()
    removed: tuple[ListedRule, ...] = ()
    changed: tuple[ListedRule, ...] = ()
    cut: int = 0
    followers: int | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> PolicyDiff:
        """Read an answer of `PUT …/egress`."""
        added, removed, changed = (
            tuple(map(ListedRule.of, rows_of(answer, kind))) for kind in ("added", "removed", "changed")
        )
        cut, followers = count_of(answer.get("cut")), whole_of(answer.get("followers"))
        return cls(added, removed, changed, cut, followers)


class ModeInfo(NamedTuple):
    """An egress mode.

    Attributes:
        mode: `warn`, `deny` or `ask`.
        sandbox: Whose it is; None for all sandboxes'.
        source: Where a sandbox has it from: `sandbox` for one of its own, else `account`.
        differs: Sandboxes whose own mode is another, with that mode.
        followers: How many sandboxes follow a mode that was just set for all of them; None otherwise.
    """

    mode: str
    sandbox: str | None = None
    source: str = "account"
    differs: Mapping[str, str] = {}
    followers: int | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any], sandbox: str | None) -> ModeInfo:
        """Read an answer of `GET …/egress/mode`; `sandbox` is whose mode was asked for."""
        differs = texts_by_key(answer.get("differs"))
        asking = (name for name in texts_of(answer.get("asking")) if name in differs)
        return cls(
            mode_of(answer),
            sandbox,
            text_of(answer.get("source")) or "account",
            {**differs, **dict.fromkeys(asking, "ask")},
        )


class ModeChanged(NamedTuple):
    """What setting a mode did, or, as a dry run, would do.

    Attributes:
        mode: The mode that applies then; empty where the server does not say.
        changed: False where it was that mode already.
        cut: Live connections that it cut.
        followers: How many sandboxes follow a mode of all of them, as in `RulesChanged`.
    """

    mode: str = ""
    changed: bool = True
    cut: int = 0
    followers: int | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> ModeChanged:
        """Read an answer of `PUT …/egress/mode`."""
        return cls(
            mode_of(answer),
            answer.get("changed") is not False,
            count_of(answer.get("cut")),
            whole_of(answer.get("followers")),
        )


class _LiveFields(NamedTuple):
    outcome: str
    addresses: tuple[str, ...] | None = None
    resolve_ms: int | None = None
    address: str | None = None
    connect_ms: int | None = None
    proxy: bool | None = None
    cause: str | None = None
    error: str | None = None


class LiveCheck(_LiveFields):
    """How far the gateway came when it reached for a host; what it did not come to is None.

    Attributes:
        outcome: `reached`, or what kept it from that.
        addresses: Where the name leads.
        resolve_ms: Milliseconds until that was known.
        address: The address that it connected to.
        connect_ms: Milliseconds until it was connected.
        proxy: Whether that was by way of the upstream proxy.
        cause: Why it was refused.
        error: What went wrong.
    """

    __slots__ = ()

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> LiveCheck:
        """Read what an answer of `GET /egress/check` has of it."""
        get = answer.get
        addresses, proxy = get("addresses"), get("proxy")
        return cls(
            text_of(get("outcome")),
            texts_of(addresses) if isinstance(addresses, list) else None,
            whole_of(get("resolve_ms")),
            word_of(get("address")),
            whole_of(get("connect_ms")),
            proxy if isinstance(proxy, bool) else None,
            word_of(get("cause")),
            word_of(get("error")),
        )

    def _asdict(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {name: value for name, value in zip(self._fields, self, strict=True) if value is not None}


class _CheckFields(NamedTuple):
    host: str
    port: int | None = None
    allowed: bool = False
    verdict: str = ""
    mode: str = ""
    rule: str | None = None
    list: str | None = None
    scope: str | None = None
    reason: str = ""
    live: LiveCheck | None = None
    cause: str = ""
    covered: bool | None = None


class CheckResult(_CheckFields):
    """What the gateway would say to a connection.

    Attributes:
        host: Where it would go.
        port: On which port.
        allowed: Whether it would pass.
        verdict: `allowed`, `blocked`, or `warn` for what only the mode lets pass.
        mode: The mode it was judged in.
        rule: The pattern of the rule that decides; None where none does.
        list: The list of that rule.
        scope: The scope of that rule.
        reason: Why, in one clause.
        live: How the gateway reached it; None where it did not try.
        cause: What decides, for programs; empty where the server does not say.
        covered: Where a deny rule decides, whether an allow rule covers it too; None where the server does not say.
    """

    __slots__ = ()

    @classmethod
    def of(cls, answer: Mapping[str, Any], host: str) -> CheckResult:
        """Read an answer of `GET /egress/check`; `host` is what was asked for."""
        get = answer.get
        live, covered = get("live"), get("covered")
        return cls(
            text_of(get("host")) or host,
            whole_of(get("port")) or None,
            get("allowed") is True,
            text_of(get("verdict")),
            mode_of(answer),
            word_of(get("rule")),
            word_of(get("list")),
            word_of(get("scope")),
            text_of(get("reason")),
            LiveCheck.of(live) if isinstance(live, dict) else None,
            text_of(get("cause")),
            covered if isinstance(covered, bool) else None,
        )

    def _asdict(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        live = None if self.live is None else self.live._asdict()
        return {**dict(zip(self._fields, self, strict=True)), "live": live}
