"""The line below the prompt: where commands go, and what it looks like there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from irons.text import clean
from irons_repl.status.status_model import Outlook

_MARKS = {
    "ready": "class:good",
    "running": "class:good",
    "error": "class:bad",
    "creating": "class:busy",
    "starting": "class:busy",
    "stopping": "class:busy",
}


class Part(NamedTuple):
    """A part of the line; those with the highest `rank` go first where there is no room."""

    style: str
    text: str
    rank: int


def toolbar(outlook: Outlook, width: int) -> list[tuple[str, str]]:
    """Return the line as styled fragments that fit into `width` columns."""
    parts = list(_parts(outlook))
    while len(parts) > 1 and _length(parts) > width:
        parts.remove(max(parts, key=lambda part: part.rank))
    fragments: list[tuple[str, str]] = []
    for at, part in enumerate(parts):
        fragments.append(("", " │ " if at else " "))
        fragments.append((part.style, part.text))
    return _cut(fragments, width)


def _parts(outlook: Outlook) -> Sequence[Part]:
    where = clean(outlook.backend or "…", limit=40)
    if outlook.profile and outlook.profile != "default":
        where += f" ({clean(outlook.profile, limit=20)})"
    parts = [Part("class:where", where, 3)]
    if outlook.trouble:
        parts.append(Part("class:bad", outlook.trouble, 0))
    if outlook.ending:
        parts.append(Part("class:bad", clean(outlook.ending, limit=60), 1))
    if outlook.mode:
        parts.append(_mode(outlook))
    if outlook.states is not None:
        parts.extend(_states(outlook.states))
    if outlook.denied is not None:
        parts.append(Part("class:bad" if outlook.denied else "", f"{outlook.denied} denied", 2))
    return parts


def _mode(outlook: Outlook) -> Part:
    """The mode; red where anything is left open."""
    own = (
        f", {outlook.differs} of their own"
        if outlook.differs > 1
        else ", 1 of its own"
        if outlook.differs
        else ""
    )
    if outlook.mode == "warn":
        return Part("class:bad", f"WARN: nothing is blocked{own}", 1)
    return Part(
        "class:bad" if outlook.differs else "class:good", f"mode {clean(outlook.mode, limit=12)}{own}", 1
    )


def _states(states: Mapping[str, int]) -> Sequence[Part]:
    if not states:
        return [Part("", "no sandboxes", 5)]
    return [
        Part(_MARKS.get(state, ""), f"{count} {clean(state, limit=12)}", 5 + at)
        for at, (state, count) in enumerate(states.items())
    ]


def _length(parts: Sequence[Part]) -> int:
    return 1 + sum(len(part.text) for part in parts) + 3 * (len(parts) - 1)


def _cut(fragments: list[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    cut: list[tuple[str, str]] = []
    for style, text in fragments:
        cut.append((style, text[:width]))
        width = max(0, width - len(text))
    return cut
