"""A forecast as the line below the prompt shows it."""

from __future__ import annotations

from collections.abc import Sequence

from irons.record import NamedTuple
from irons_repl.fragments import cut


class Clause(NamedTuple):
    """A part of the forecast; where room is short, the parts with the highest rank are left out first."""

    text: str
    style: str = ""
    rank: int = 0
    joiner: str = ", "


def forecast_line(
    clauses: Sequence[Clause], width: int, keys: str = "", as_of: str = ""
) -> list[tuple[str, str]]:
    """Return a forecast as styled fragments that fit into `width` columns; empty where it says nothing.

    Args:
        clauses: What a change would do.
        width: The columns.
        keys: The mode of the keys, where they have one.
        as_of: The time of what it is made of, where the server does not answer now.
    """
    if not clauses:
        return []
    head = [("class:keys", f" {keys} │")] if keys else []
    if as_of:
        head.append(("class:stale", f" as of {as_of}:"))
    room = width - 1 - sum(len(text) for _, text in head)
    kept = list(clauses)
    while len(kept) > 1 and _length(kept) > room:
        worst = max(kept, key=lambda clause: clause.rank)
        if not worst.rank:
            break
        kept.reverse()
        kept.remove(worst)
        kept.reverse()
    fragments = [*head, ("", " ")]
    for at, clause in enumerate(kept):
        fragments += [("", clause.joiner)] if at else []
        fragments.append((clause.style, clause.text))
    return cut(fragments, width)


def _length(clauses: Sequence[Clause]) -> int:
    return sum(len(clause.text) for clause in clauses) + sum(len(clause.joiner) for clause in clauses[1:])
