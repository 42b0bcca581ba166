"""The egress mode as one line shows it: of one sandbox, or of all with the exceptions by name. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from irons.record import NamedTuple
from irons.terminal.words import mode_word
from irons.text import clean

OPEN = "warn"
"""The mode that lets pass what no rule allows."""

LONGEST_NAME = 24
MOST_NAMED = 5
"""Letters of a sandbox's name that are shown, and exceptions that are shown by name."""


class ModeFacts(NamedTuple):
    """What is known of the mode.

    Attributes:
        sandbox: The sandbox whose mode it is; None where it is that of all sandboxes.
        mode: The mode that applies to it; None while unknown, empty where there is no such sandbox.
        differs: For all sandboxes: those with another mode of their own, and that mode.
        stale: Whether it may have changed since it was read.
    """

    sandbox: str | None = None
    mode: str | None = None
    differs: Mapping[str, str] = {}
    stale: bool = False


class Styles(NamedTuple):
    """The styles of a mode that blocks, of one that is open, and of one that is stale."""

    good: str = "class:good"
    bad: str = "class:bad"
    stale: str = "class:stale"


TOOLBAR = Styles()


def mode_line(facts: ModeFacts, room: int | None = None, styles: Styles = TOOLBAR) -> list[tuple[str, str]]:
    """Return the mode as styled fragments: red where it is open, never green where it is stale.

    Args:
        facts: What is known. Where no mode is, there are no fragments.
        room: The columns that it may take; the exceptions are counted where their names do not fit. None is any number.
        styles: The styles.
    """
    if facts.mode is None:
        return []
    who = f"{clean(facts.sandbox, limit=LONGEST_NAME)}: " if facts.sandbox else ""
    if not facts.mode:
        return [(styles.bad, f"{who}no such sandbox")]
    head = (_style(facts, facts.mode, styles), f"{who}mode {mode_word(clean(facts.mode, limit=12))}")
    if facts.sandbox or not facts.differs:
        return [head]
    named = [head, *_named(facts, styles)]
    if room is None or _width(named) <= room:
        return named
    return [head, *_counted(facts, styles)]


def _named(facts: ModeFacts, styles: Styles) -> Sequence[tuple[str, str]]:
    others = sorted(facts.differs.items())
    fragments: list[tuple[str, str]] = [("", " (")]
    for at, (name, mode) in enumerate(others[:MOST_NAMED]):
        text = f"{clean(name, limit=LONGEST_NAME)}: {clean(mode, limit=12)}"
        fragments += [("", ", ")] if at else []
        fragments.append((_style(facts, mode, styles), text))
    left_out = others[MOST_NAMED:]
    if left_out:
        is_open = any(mode == OPEN for _, mode in left_out)
        style = _style(facts, OPEN if is_open else "", styles)
        fragments.append((style, f" and {len(left_out)} more"))
    return [*fragments, ("", ")")]


def _counted(facts: ModeFacts, styles: Styles) -> Sequence[tuple[str, str]]:
    count = len(facts.differs)
    is_open = OPEN in facts.differs.values()
    what = (
        "open" if is_open and set(facts.differs.values()) == {OPEN} else "differ" if count > 1 else "differs"
    )
    return [("", " ("), (_style(facts, OPEN if is_open else "", styles), f"{count} {what}"), ("", ")")]


def _style(facts: ModeFacts, mode: str, styles: Styles) -> str:
    if mode == OPEN:
        return styles.bad
    return styles.stale if facts.stale else styles.good


def _width(fragments: Sequence[tuple[str, str]]) -> int:
    return sum(len(text) for _, text in fragments)
