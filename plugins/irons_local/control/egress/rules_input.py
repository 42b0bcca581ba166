"""Rules as people ask for them: checked, in their one spelling, every fault named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from irons_local.control.schema.errors import ApiError, bad
from irons_policy.rules import ListName, Rule, RuleError, make_rule


def rule_of(given: Mapping[str, Any], listed: str | None = None) -> Rule:
    """A rule as a request gives it, in its one spelling.

    Args:
        given: `pattern` (or `domain`), and optionally `list`, `private`, `note`, `broad`.
        listed: the list, where the request does not name it.

    Raises:
        ApiError: the pattern or an address is not one; the text says why.
    """
    text = str(given.get("pattern", given.get("domain", "")))
    kind: ListName = "deny" if (listed or given.get("list")) == "deny" else "allow"
    try:
        return make_rule(
            text,
            kind,
            private=given.get("private") or (),
            broad=bool(given.get("broad")),
            note=given.get("note") or "",
        )
    except RuleError as error:
        if error.private:
            raise bad(f"private {shown(error.private)} of {shown(text)}: {error}") from error
        raise bad(f"{shown(text)}: {error}") from error


def rules_of(given: Sequence[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """Rules as a request gives them.

    Raises:
        ApiError: one of them is bad, or two have the same pattern; the text says which.
    """
    found: dict[str, Rule] = {}
    for index, each in enumerate(given):
        try:
            rule = rule_of(each)
        except ApiError as error:
            raise bad(f"rules[{index}]: {error.text}") from error
        pattern = rule.pattern.text
        if pattern in found:
            raise bad(f"rules[{index}]: {pattern} is there twice")
        found[pattern] = rule
    return tuple(found.values())


def shown(text: str) -> str:
    """What was typed, for an error: quoted, and cut."""
    return repr(text if len(text) <= 100 else f"{text[:100]}…")
