"""Patterns as people type them, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from irons.errors import UsageError

if TYPE_CHECKING:
    from irons_policy.ends import RuleEnd
    from irons_policy.rules import ListName, Rule


def checked(
    text: str,
    kind: ListName,
    *,
    private: Sequence[str] = (),
    broad: bool = False,
    note: str = "",
    until: RuleEnd | None = None,
) -> Rule:
    """Make a rule. Raises `UsageError` with the reason where that cannot be one."""
    from irons_policy.rules import RuleError, make_rule

    try:
        return make_rule(text, kind, private=private, broad=broad, note=note, until=until)
    except RuleError as error:
        raise UsageError(
            f"{text!r} can't be a rule: {error}", hint="irons help egress explains patterns"
        ) from None


def spelled(text: str) -> str:
    """Return a pattern of a rule that may be there already in its one spelling. Raises `UsageError` where it is none."""
    from irons_policy.patterns import PatternError, read_pattern

    try:
        return read_pattern(text).text
    except PatternError as error:
        raise UsageError(
            f"{text!r} is not a rule: {error}", hint="irons egress list shows the rules there are"
        ) from None
