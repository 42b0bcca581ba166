"""What the egress commands return; their JSON keys."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from irons_policy.rules import Rule


class Change(NamedTuple):
    """A rule that is now in a list (`list` is empty where it was taken off).

    `changed` is false where it was there before; `cut` counts the live connections that its request ended, at the last rule of
    the request alone. `sandbox` is the one it is for, None for all of them; of these `followers` counts those that there are, where
    the server says it.
    """

    pattern: str
    list: str
    covers: str
    changed: bool = True
    cut: int = 0
    sandbox: str | None = None
    followers: int | None = None


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
