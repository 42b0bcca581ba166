"""Patterns as people type them, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from irons.errors import UsageError


class Checked(NamedTuple):
    """A pattern in its one spelling, what it covers, and the addresses it opens."""

    pattern: str
    covers: str
    private: tuple[str, ...] = ()


def checked(
    text: str, kind: Literal["allow", "deny"], *, private: Sequence[str] = (), broad: bool = False
) -> Checked:
    """Read a pattern. Raises `UsageError` with the reason where it cannot be a rule."""
    from irons_policy.patterns import covers
    from irons_policy.rules import RuleError, make_rule, spell

    try:
        rule = make_rule(text, kind, private=private, broad=broad)
    except RuleError as error:
        raise UsageError(
            f"{text!r} can't be a rule: {error}", hint="irons help egress tells what patterns there are"
        ) from None
    return Checked(rule.pattern.text, covers(rule.pattern), tuple(map(spell, rule.private)))


def spelled(text: str) -> str:
    """Return a pattern of a rule that may be there already in its one spelling. Raises `UsageError` where it is none."""
    from irons_policy.patterns import PatternError, read_pattern

    try:
        return read_pattern(text).text
    except PatternError as error:
        raise UsageError(
            f"{text!r} is not a rule: {error}", hint="irons egress list shows the rules there are"
        ) from None
