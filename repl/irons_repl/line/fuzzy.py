"""Words that fit what is typed, best first: those that begin with it, those that hold it, those that have its letters in order.

All words are searched at once, as lines of one text, and the search stops where enough are found: ten thousand sandboxes cost a
few milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from irons.cli.completing import Candidate

LIMIT = 100
"""Words that are worth showing."""

RANKED = 1000
"""Words with the letters in order that are ranked; further ones are as good as these."""


def fitting(values: Mapping[str, str], typed: str, limit: int = LIMIT) -> list[Candidate]:
    """Return at most `limit` words that fit, best first, each with what it is.

    Args:
        values: Words, without line ends, with what they are.
        typed: What they should fit; upper and lower case are one where it is lower case.
        limit: The most that are returned.
    """
    return Fitter(limit).fitting(values, typed)


class Fitter:
    """Finds words that fit, and remembers how far the search before went: a key that is added searches among what fitted then."""

    def __init__(self, limit: int = LIMIT) -> None:
        """Take the most words to return."""
        self._limit = limit
        self._values: Mapping[str, str] = {}
        self._all = _Lines(())
        self._last: tuple[str, _Lines] | None = None

    def fitting(self, values: Mapping[str, str], typed: str) -> list[Candidate]:
        """Return the words that fit, best first, each with what it is; arguments as for `fitting`."""
        if not typed:
            return [Candidate(*item) for item in islice(values.items(), self._limit)]
        # The same words come as another mapping where some were left out of it.
        if values is not self._values and values.keys() != self._values.keys():
            self._all, self._last = _Lines(values), None
        self._values = values
        among = self._all
        if (
            self._last is not None
            and typed.startswith(self._last[0])
            and _folds(typed) == _folds(self._last[0])
        ):
            among = self._last[1]
        chosen, whole = among.fitting(typed, self._limit)
        words = [among.words[line] for line in chosen]
        self._last = (typed, _Lines(words)) if whole and len(typed) > 1 else None
        return [Candidate(word, values[word]) for word in words]


class _Lines:
    """Words as the lines of one text."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = list(words)
        self._text = "\n" + "\n".join(self.words)
        self._folded = self._text.lower()

    def fitting(self, typed: str, limit: int) -> tuple[Iterable[int], bool]:
        """Return the numbers of the lines that fit, best first, and whether these are all that there are."""
        text = self._folded if _folds(typed) else self._text
        chosen = dict.fromkeys(islice(_lines_with(text, f"\n{typed}"), limit))
        _add(chosen, _lines_with(text, typed), limit)
        if len(chosen) < limit and len(typed) > 1:
            found = list(islice(_scattered(text, typed), RANKED))
            _add(chosen, (line for _, line in sorted(found)), limit)
            return chosen, len(chosen) < limit and len(found) < RANKED
        return chosen, len(chosen) < limit


def _folds(typed: str) -> bool:
    """Tell whether upper and lower case are one."""
    return typed == typed.lower()


def _add(chosen: dict[int, None], lines: Iterable[int], limit: int) -> None:
    """Add lines that are not chosen yet, up to the limit."""
    for line in lines:
        if len(chosen) >= limit:
            return
        chosen[line] = None


def _lines_with(text: str, wanted: str) -> Iterator[int]:
    """Yield the number of each line that holds `wanted`; each line of `text` has its end before it."""
    line, counted, at = -1, 0, 0
    while (found := text.find(wanted, at)) >= 0:
        line += text.count("\n", counted, found + 1)
        counted = found + 1
        yield line
        at = text.find("\n", found + 1)
        if at < 0:
            return


def _scattered(text: str, typed: str) -> Iterator[tuple[int, int]]:
    """Yield how far apart the letters of `typed` lie, and the number of the line, of each that has them in order."""
    letters = [re.escape(letter) for letter in typed[:64]]
    first, *rest = (f"[^\n{letter}]*+{letter}" for letter in letters)
    line, counted = -1, 0
    for found in re.finditer(f"\n{first}({''.join(rest)})", text):
        line += text.count("\n", counted, found.start() + 1)
        counted = found.start() + 1
        yield found.end(1) - found.start(1), line
