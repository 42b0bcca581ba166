"""What the egress commands return; their JSON keys."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from irons.record import NamedTuple

if TYPE_CHECKING:
    from irons_policy.rules import Rule


class Change(NamedTuple):
    """A rule that is now in a list (`list` is empty where it was taken off).

    `changed` is false where it was there before; `cut` counts the live connections that its request ended, at the last rule of
    the request alone. `sandbox` is the one it is for, None for all of them; of these `followers` counts those that there are, where
    the server says it. `until` or `seconds` is there where the rule ends by itself.
    """

    pattern: str
    list: str
    covers: str
    changed: bool = True
    cut: int = 0
    sandbox: str | None = None
    followers: int | None = None
    until: str = ""
    seconds: int | None = None


class Suggestion(NamedTuple):
    """A pattern that would cover what a sandbox tried.

    `marks` say why it is not taken unasked: once, unreached, random, address. `note` is what plugins say of it.
    """

    pattern: str
    hits: int
    first: datetime | None
    last: datetime | None
    ports: tuple[int, ...]
    marks: tuple[str, ...] = ()
    note: str = ""


class PresetRow(NamedTuple):
    """A preset: when it was last compared with its sources, how many hosts it has, and what they take."""

    name: str
    version: str
    hosts: int
    what: str
    sends: str


class PresetHostRow(NamedTuple):
    """A host of a preset, and the page that lists it."""

    pattern: str
    what: str
    source: str


class _Policy(NamedTuple):
    mode: str | None
    rules: tuple[Rule, ...]
    never: tuple[str, ...] | None = ()


class PolicyRow(_Policy):
    """A whole policy; without a mode a sandbox follows the account's."""

    __slots__ = ()

    def _asdict(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rules = [{"private": [], "note": "", "broad": False, **rule.to_request()} for rule in self.rules]
        return {"mode": self.mode, "rules": rules, "never": list(self.never or ())}


class Drift(NamedTuple):
    """One difference between two policies: `added`, `removed` or `changed`, or `mode`, whose `pattern` is the new mode.

    `list` is `never` for a pattern that no person is asked about.

    `inherited` is the mode of all sandboxes where that applied before.
    """

    change: str
    list: str
    pattern: str
    private: tuple[str, ...] = ()
    note: str = ""
    before: str = ""
    inherited: str = ""
    until: str = ""
