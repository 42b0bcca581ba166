"""Candidates that fit what is typed, best first: those that begin with it, those that hold it, those that have its letters in order.

The search stops at `LIMIT`, and letters in order are looked for by one regular expression over all words at once, so that ten thousand
sandboxes cost a few milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from irons.completing import Candidate

LIMIT = 100
"""Candidates that are worth showing."""


def fitting(candidates: Sequence[Candidate], typed: str, limit: int = LIMIT) -> list[Candidate]:
    """Return at most `limit` candidates that fit `typed`, best first; upper and lower case are one where `typed` is lower case."""
    if not typed:
        return list(candidates[:limit])
    fold = typed == typed.lower()
    words = [c.word.lower() for c in candidates] if fold else [c.word for c in candidates]
    chosen = dict.fromkeys(_first(limit, (at for at, word in enumerate(words) if word.startswith(typed))))
    if len(chosen) < limit:
        inside = (at for at, word in enumerate(words) if typed in word and at not in chosen)
        chosen.update(dict.fromkeys(_first(limit - len(chosen), inside)))
    if len(chosen) < limit and len(typed) > 1:
        scattered = sorted(rank for rank in _scattered(words, typed) if rank[2] not in chosen)
        chosen.update(dict.fromkeys(at for *_, at in scattered[: limit - len(chosen)]))
    return [candidates[at] for at in chosen]


def _first(limit: int, found: Iterable[int]) -> Iterable[int]:
    for count, at in enumerate(found):
        if count == limit:
            return
        yield at


def _scattered(words: Sequence[str], typed: str) -> Iterable[tuple[int, int, int]]:
    """Yield (spread, length, index) of the words that have the letters of `typed` in order."""
    letters = [re.escape(letter) for letter in typed[:32]]
    between = [f"[^\n{letter}]*{letter}" for letter in letters]
    pattern = re.compile("^" + between[0] + "(" + "".join(between[1:]) + ")", re.MULTILINE)
    text = "\n".join(words)
    starts = -1
    at = 0
    for found in pattern.finditer(text):
        at += text.count("\n", max(starts, 0), found.start())
        starts = found.start()
        yield found.end(1) - found.start(1), len(words[at]), at
