"""Which events changed after readers saw them: connections that ended, and refusals that were repeated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from irons_local.times import now

MOST = 1_000
"""ChangedEvents events that are remembered of each sandbox."""
MOST_SUBJECTS = 256
"""Sandboxes of which changes are remembered: those that changed last."""


class ChangedEvents(NamedTuple):
    """Events that changed after a cursor.

    Attributes:
        events: their ids, the earliest change first.
        cursor: the cursor of a reader that knows them.
        more: whether there may be more after that cursor.
    """

    events: Sequence[int]
    cursor: int
    more: bool = False


class Changes:
    """Remembers the last changes, each under a number that grows; the number is the cursor of a follower.

    Each subject has room of its own, so that a flood of one pushes out no change of another. Nothing is stored:
    numbers begin with the time in microseconds, so that one of an earlier process is before all of this one, which
    takes in itself what the earlier one did not.
    """

    def __init__(self) -> None:
        self._last = now()
        self._of: dict[int, dict[int, int]] = {}

    def note(self, changed: Iterable[tuple[int, int]]) -> None:
        """Remember that these events changed, each given as its id and its subject."""
        for event, subject in changed:
            self._last += 1
            # What changed last is at the end, of subjects and of events.
            events = self._of.pop(subject, {})
            self._of[subject] = events
            events.pop(event, None)
            events[event] = self._last
            if len(events) > MOST:
                del events[next(iter(events))]
            if len(self._of) > MOST_SUBJECTS:
                del self._of[next(iter(self._of))]

    def since(self, cursor: int, size: int) -> ChangedEvents:
        """Return what changed after a cursor; one that is not there yet means from now on.

        Args:
            cursor: the number up to which changes are known.
            size: events at most.
        """
        found: list[tuple[int, int]] = []
        for events in reversed(self._of.values()):
            before = len(found)
            for event, number in reversed(events.items()):
                if number <= cursor:
                    break
                found.append((number, event))
            if len(found) == before:
                break
        found = sorted(found)[:size]
        more = len(found) == size
        return ChangedEvents([event for _, event in found], found[-1][0] if more else self._last, more)
