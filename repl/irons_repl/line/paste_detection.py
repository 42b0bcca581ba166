"""Much text at once, from a terminal that does not mark what is pasted: taken as one paste, not as thousands of keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TextIO

from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

BURST = 64
"""Characters that arrive together and are no longer typing."""


class BurstInput(Vt100Input):
    """The terminal's keys, with bursts of text made pastes.

    Attributes:
        taking: Takes the keys that are not for the line, and returns the others.
    """

    def __init__(self, stdin: TextIO, taking: Callable[[list[KeyPress]], list[KeyPress]] = list) -> None:
        """Take the terminal, and who takes keys that are not for the line."""
        super().__init__(stdin)
        self.taking = taking

    def read_keys(self) -> list[KeyPress]:
        """Return the keys that have arrived."""
        return self.taking(merged(super().read_keys()))

    def flush_keys(self) -> list[KeyPress]:
        """Return the keys that may have been the beginning of longer ones, such as Escape."""
        return self.taking(super().flush_keys())


def merged(keys: Iterable[KeyPress]) -> list[KeyPress]:
    """Return the keys with each run of at least `BURST` printable characters as one paste."""
    found: list[KeyPress] = []
    run: list[KeyPress] = []
    for key in keys:
        if isinstance(key.key, Keys) or not key.key.isprintable():
            found += _one_or_many(run)
            run = []
            found.append(key)
        else:
            run.append(key)
    return found + _one_or_many(run)


def _one_or_many(run: list[KeyPress]) -> list[KeyPress]:
    if len(run) < BURST:
        return run
    return [KeyPress(Keys.BracketedPaste, "".join(key.data for key in run))]
