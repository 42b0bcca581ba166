"""Tells when a new question is worth a bell: a sandbox that asks without end rings once in a while, and no one else's bell is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irons.client.models.questions import QuestionPage

QUIET = 5.0
"""Seconds for which a sandbox that rang does not ring again."""


class Ringing:
    """What rang lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take what tells the seconds."""
        self._clock = clock
        self._known: set[str] = set()
        self._rang: dict[str, float] = {}

    def rings(self, page: QuestionPage) -> bool:
        """Take the open questions; return whether one is new of a sandbox that has not rung lately.

        A question that came in the quiet time of its sandbox is new until the first look after that time.
        """
        now = self._clock()
        self._rang = {name: at for name, at in self._rang.items() if now - at < QUIET}
        new = {each.sandbox for each in page.questions if each.id not in self._known}
        due = new - self._rang.keys()
        self._known = {each.id for each in page.questions if each.id in self._known or each.sandbox in due}
        self._rang |= dict.fromkeys(due, now)
        return bool(due)
