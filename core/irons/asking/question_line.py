"""Open questions as one line: of each sandbox its first, and how many more places it tries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.asking.ranking import SandboxQuestions, by_sandbox
from irons.terminal.cells import cut_left, cut_middle
from irons.text import clean

if TYPE_CHECKING:
    from irons.client.models.questions import QuestionPage

MOST_NAMED = 3
"""Sandboxes whose first question is shown in the line at most."""
LONGEST_NAME = 24
"""Characters of a sandbox's name that are shown."""


def question_line(page: QuestionPage, width: int, how: str = "") -> str:
    """Return the open questions as a line of at most `width` characters; empty where there are none.

    Args:
        page: The open questions.
        width: The characters that it may take.
        how: What opens them, such as a key; not shown where there is none that it could open.
    """
    asked = by_sandbox(page)
    if not asked:
        return ""
    tail = f" [{how}]" if how and page.questions else ""
    for named in range(min(len(asked), MOST_NAMED), 0, -1):
        for brief in (False, True):
            line = f"? {_named(asked, named, brief=brief)}{tail}"
            if len(line) <= width:
                return line
    return _shortest(asked, width, tail)


def _named(asked: list[SandboxQuestions], named: int, *, brief: bool) -> str:
    parts = [_part(each, brief=brief) for each in asked[:named]]
    return "; ".join(parts) + _left(len(asked) - named, brief=brief)


def _part(asked: SandboxQuestions, *, brief: bool) -> str:
    who = cut_middle(clean(asked.sandbox), LONGEST_NAME)
    if not asked.questions:
        hosts = f"{asked.more:,} host{'s' if asked.more > 1 else ''}"
        # Too many to be listed: no key answers these.
        return f"{who}: {hosts}" if brief else f"{hosts} of {who}: set a rule"
    first, more = asked.questions[0], asked.places - 1
    return f"{who}: {clean(first.pattern)}{_more(more, brief=brief)}"


def _more(more: int, *, brief: bool) -> str:
    if not more:
        return ""
    return f" +{more:,}" if brief else f" and {more:,} more host{'s' if more > 1 else ''}"


def _left(left: int, *, brief: bool) -> str:
    if not left:
        return ""
    return f"; +{left:,}" if brief else f"; {left:,} more sandbox{'es' if left > 1 else ''}"


def _shortest(asked: list[SandboxQuestions], width: int, tail: str) -> str:
    """One question whose name is cut on its left, so that the rest of the line fits."""
    first = asked[0]
    name = clean(first.questions[0].pattern) if first.questions else "…"
    rest = _more(first.places - 1, brief=True) + _left(len(asked) - 1, brief=True) + tail
    who = cut_middle(clean(first.sandbox), LONGEST_NAME)
    # The name has at least two thirds of what is left.
    room = width - len(rest) - 4
    who = cut_middle(who, max(1, room - max(room - room // 3, min(len(name), room - len(who)))))
    return f"? {who}: {cut_left(name, room - len(who))}{rest}"[:width]
