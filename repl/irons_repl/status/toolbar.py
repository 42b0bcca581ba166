"""The line below the prompt: where commands go, and what it looks like there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from irons.record import NamedTuple
from irons.text import clean
from irons_repl.fragments import cut
from irons_repl.status.mode_line import mode_line
from irons_repl.status.status_model import Outlook

_STALE = "class:stale"
_MARKS = {
    "ready": "class:good",
    "running": "class:good",
    "error": "class:bad",
    "creating": "class:busy",
    "starting": "class:busy",
    "stopping": "class:busy",
}


class Part(NamedTuple):
    """A part of the line, as styled fragments; those with the highest `rank` go first where there is no room."""

    fragments: Sequence[tuple[str, str]]
    rank: int

    @property
    def width(self) -> int:
        """Its columns."""
        return sum(len(text) for _, text in self.fragments)


MODE = 1
"""The rank of the mode: only why the last look failed is kept longer."""

SINCE = " this session"
"""Says from when on denials are counted, where it has room: the log and the live view have those from before too."""


def toolbar(outlook: Outlook, width: int, keys: str = "") -> list[tuple[str, str]]:
    """Return the line as styled fragments that fit into `width` columns; `keys` is the mode of the keys, where they have one."""
    first = [_part("class:keys", keys, 1)] if keys else []
    parts = [*first, *_parts(outlook, since=SINCE)]
    if _length(parts) > width:
        parts = [*first, *_parts(outlook)]
    if _length(parts) > width:
        parts = [*first, *_parts(outlook, room=0)]
    while len(parts) > 1 and _length(parts) > width:
        parts.remove(max(parts, key=lambda part: part.rank))
    fragments: list[tuple[str, str]] = []
    for at, part in enumerate(parts):
        fragments.append(("", " │ " if at else " "))
        fragments.extend(part.fragments)
    return cut(fragments, width)


def _parts(outlook: Outlook, room: int | None = None, since: str = "") -> Sequence[Part]:
    """The parts; `room` is what the mode may take, None for all that it wants, and `since` goes after what was denied."""
    where = clean(outlook.backend or "…", limit=40)
    if outlook.profile and outlook.profile != "default":
        where += f" ({clean(outlook.profile, limit=20)})"
    stale = bool(outlook.trouble)
    parts = [_part("class:where", where, 3)]
    if outlook.trouble:
        as_of = f", as of {outlook.as_of}" if outlook.as_of else ""
        parts.append(_part("class:bad", f"{outlook.trouble}{as_of}", 0))
    if outlook.ending:
        parts.append(_part("class:bad", clean(outlook.ending, limit=60), 2))
    mode = mode_line(outlook.mode_facts, room)
    if mode:
        parts.append(Part(mode, MODE))
    if outlook.questions:
        parts.append(_part("class:busy", f"{outlook.questions:,} asked", MODE))
    if outlook.timed:
        parts.append(_part(_STALE if stale else "class:busy", outlook.timed, 4))
    if outlook.states is not None:
        parts.extend(_states(outlook.states, stale=stale))
    denied = outlook.denied_here
    if denied is not None:
        style = _STALE if stale else "class:bad" if denied else ""
        parts.append(_part(style, f"{denied} denied{since}", 2))
    parts.extend(_part(_STALE if stale else "", clean(extra, limit=40), 4) for extra in outlook.extras)
    return parts


def _part(style: str, text: str, rank: int) -> Part:
    return Part(((style, text),), rank)


def _states(states: Mapping[str, int], *, stale: bool) -> Sequence[Part]:
    if not states:
        return [_part(_STALE if stale else "", "no sandboxes", 5)]
    return [
        _part(_STALE if stale else _MARKS.get(state, ""), f"{count} {clean(state, limit=12)}", 5 + at)
        for at, (state, count) in enumerate(states.items())
    ]


def _length(parts: Sequence[Part]) -> int:
    return 1 + sum(part.width for part in parts) + 3 * (len(parts) - 1)
