"""Wider patterns that a person may put on purpose in answer to a question."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irons.client.models.questions import OpenQuestion


def wider_patterns(question: OpenQuestion) -> tuple[str, ...]:
    """Return the patterns that cover a question's name and those next to it on the same port, the narrowest first.

    There are none for an address, and none where anyone may register the next name: below a public suffix.
    """
    from irons_policy.patterns import PatternError, parse_pattern

    found: list[str] = []
    name = question.host
    while "." in name and question.port is not None:
        name = name.partition(".")[2]
        try:
            pattern = parse_pattern(f"*.{name}:{question.port}")
        except PatternError:
            break
        found.append(pattern.text)
    return tuple(found)
