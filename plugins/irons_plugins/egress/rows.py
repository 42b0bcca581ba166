"""What the egress commands return; their JSON keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from irons_policy.rules import Rule


class Change(NamedTuple):
    """A rule that is now in a list (`list` is empty where it was taken off).

    `changed` is false where it was there before; `cut` counts the live connections that its request ended, at the last rule of
    the request alone.
    """

    pattern: str
    list: str
    covers: str
    changed: bool = True
    cut: int = 0
    sandbox: str | None = None


class RuleRow(NamedTuple):
    """A rule as `egress list` shows it."""

    list: str
    pattern: str
    private: tuple[str, ...] = ()
    note: str | None = None
    covers: str | None = None
    created_at: str | None = None


class Mode(NamedTuple):
    """A mode; `source` is whose it is (`account` or `sandbox`), `differs` names the sandboxes whose own mode is another."""

    mode: str
    sandbox: str | None = None
    source: str = "account"
    differs: Mapping[str, str] = {}


class EgressCheck(NamedTuple):
    """What the gateway would say to a connection."""

    host: str
    port: int | None
    allowed: bool
    verdict: str
    mode: str
    rule: str | None
    list: str | None
    scope: str | None
    reason: str
    live: dict[str, Any] | None = None


class Suggestion(NamedTuple):
    """A pattern that would cover what a sandbox tried.

    `marks` say why it is not taken unasked: once, unreached, random, address.
    """

    pattern: str
    hits: int
    first: datetime | None
    last: datetime | None
    ports: tuple[int, ...]
    marks: tuple[str, ...] = ()


class _Policy(NamedTuple):
    mode: str | None
    rules: tuple[Rule, ...]


class PolicyRow(_Policy):
    """A whole policy; without a mode a sandbox follows the account's."""

    __slots__ = ()

    def _asdict(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rules = [{"private": [], "note": "", "broad": False, **rule.to_request()} for rule in self.rules]
        return {"mode": self.mode, "rules": rules}


class Drift(NamedTuple):
    """One difference between two policies: `added`, `removed` or `changed`, or `mode`, whose `pattern` is the new mode."""

    change: str
    list: str
    pattern: str
    private: tuple[str, ...] = ()
    note: str = ""
    before: str = ""
