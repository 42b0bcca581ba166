"""One question of the pane as rows: what is asked and by which sandbox, then the facts, then the sandbox's words."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from irons.asking.folding import folded
from irons.asking.reason import quoted
from irons.record import NamedTuple
from irons.terminal.cells import cells, cut, cut_left, cut_middle, rows
from irons.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from irons.client.models.questions import OpenQuestion

NOT_TRIED: Final = "asked by the agent, no connection was made"
"""What there is to say of a question that no connection put."""
MOST_WORDS: Final = 3
"""Lines of each of the sandbox's words at most."""
GOES_ON: Final = "| "
"""Begins each further line of it, so that none reads as one of irons."""
_CUT: Final = "…"
_MARK: Final = 2
_INDENT: Final = 4


class QuestionRows(NamedTuple):
    """The rows of a question, without the mark of the chosen one.

    Attributes:
        asked: The pattern, then the sandbox: what must be seen before a key answers.
        facts: What there is to know of it, where that has no room next to the sandbox.
    """

    asked: tuple[str, ...]
    facts: tuple[str, ...] = ()

    def all(self) -> tuple[str, ...]:
        """Return all rows."""
        return (*self.asked, *self.facts)

    @classmethod
    def of(cls, question: OpenQuestion, width: int, *, whole: bool = False) -> QuestionRows:
        """Return the rows for a pane of so many cells.

        Args:
            question: The question.
            width: The cells.
            whole: The sandbox's name is not cut, as it would look like another one.
        """
        pattern, room = cut_left(clean(question.pattern), width - _MARK), width - _INDENT
        name, facts = clean(question.sandbox), _facts(question)
        if cells(f"{name}: {facts}") <= room:
            return cls((pattern, f"{name}: {facts}"))
        named = tuple(rows(f"{name}:", max(1, room))) if whole else (f"{cut_middle(name, room - 1)}:",)
        return cls((pattern, *named), tuple(folded(facts, room)))


def whole_names(names: Iterable[str], width: int) -> frozenset[str]:
    """Return the names of sandboxes that look like another one where they are cut for a pane of so many cells."""
    shown = {name: cut_middle(clean(name), width - _INDENT - 1) for name in names}
    times = Counter(shown.values())
    return frozenset(name for name, cut in shown.items() if times[cut] > 1)


def around(sizes: Sequence[int], chosen: int, room: int, kept: Iterable[int] = ()) -> list[int]:
    """Return the places of the questions of so many rows to show in so much room: the chosen one in their middle.

    Args:
        sizes: The rows of each.
        chosen: The place of the chosen one, which comes before all others.
        room: The rows.
        kept: Places that the chosen one's neighbours give way to, for as long as there is room.
    """
    if not sizes:
        return []
    shown = {chosen}
    left = room - sizes[chosen]
    for place in kept:
        if place not in shown and sizes[place] <= left:
            shown.add(place)
            left -= sizes[place]
    ends = {-1: chosen, 1: chosen}
    grows = True
    while grows:
        grows = False
        for step, end in tuple(ends.items()):
            place = end + step
            if 0 <= place < len(sizes) and (place in shown or sizes[place] <= left):
                left -= 0 if place in shown else sizes[place]
                shown.add(place)
                ends[step], grows = place, True
    return sorted(shown)


def words_of(question: OpenQuestion, width: int) -> list[str]:
    """Return the program that waits and the agent's reason, quoted and marked as the sandbox's words; their ends are cut before they fill the pane."""
    lines: list[str] = []
    if question.program:
        number = "" if question.pid is None else f"pid {question.pid}, "
        lines += _marked(f"program ({number}the sandbox's word):", question.program, width)
    if question.reason:
        lines += _marked("the sandbox says:", question.reason, width)
    return lines


def _marked(mark: str, text: str, width: int) -> list[str]:
    room = max(1, width - len(GOES_ON))
    # No word is cut as a name is, on its left.
    words = [part for word in quoted(text).split(" ") for part in rows(word, room)]
    first, *more = folded(f"{mark} {' '.join(words)}", room)
    if len(more) >= MOST_WORDS:
        more = [*more[: MOST_WORDS - 2], _CUT]
    return [first, *(f"{GOES_ON}{line}" for line in more)]


def beginnings(words: Iterable[str], width: int) -> list[str]:
    """Return the first row of each text of `words_of`, marked as cut where more follows."""
    found: list[str] = []
    for line in words:
        if not line.startswith(GOES_ON):
            found.append(line)
        elif found and not found[-1].endswith(_CUT):
            found[-1] = cut(f"{found[-1]}{_CUT}", width)
    return found


def _facts(question: OpenQuestion) -> str:
    since = "" if question.since is None else f", since {question.since.astimezone():%H:%M:%S}"
    if question.requests and not question.count:
        return f"{NOT_TRIED}{since}"
    return f"{question.waiting} waiting, {question.count} tried{since}"
