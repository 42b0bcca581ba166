"""How many connections were refused since the prompt was opened."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from irons.client.following.cursor import Counted, Cursor
from irons.errors import IronsError, Unsupported
from irons_policy.event import REQUEST_PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from irons.client.api import Api
    from irons_policy.event import Event

PAGES = 50
"""Pages that one look reads of one log; the rest is read at the next."""

SANDBOXES = 8
"""Sandboxes whose logs are read where the server has none of all sandboxes together."""


class Denials:
    """The count, and how far each log has been read."""

    def __init__(self, refused: Callable[[Event], None] = lambda _: None) -> None:
        """Begin where the logs are at the first look; `refused` hears each refusal."""
        self._hear = refused
        self._read: dict[str | None, Cursor] = {}
        self._counted = Counted()
        self._together = True
        self.count: int | None = None
        self._by: Counter[str] = Counter()

    @property
    def by_sandbox(self) -> dict[str, int]:
        """The count of each sandbox, by its name and by its id."""
        return dict(self._by)

    def begin(self, api: Api) -> None:
        """Note where the log of all sandboxes ends, if that is not noted yet: what is refused from now on counts.

        Raises:
            IronsError: The server did not answer.
        """
        if self._together and None not in self._read:
            try:
                self._one(api, None)
            except Unsupported:
                self._together = False

    def look(self, api: Api, sandboxes: Iterable[str]) -> int | None:
        """Read what is new and return the count so far; None where the server has no log to tell from.

        Raises:
            IronsError: The server did not answer.
        """
        if self._together:
            try:
                self._one(api, None)
            except Unsupported:
                self._together = False
        if not self._together:
            for name in list(sandboxes)[:SANDBOXES]:
                try:
                    self._one(api, name)
                except Unsupported:
                    return None
                except IronsError:
                    continue
        return self.count

    def _one(self, api: Api, sandbox: str | None) -> None:
        if sandbox not in self._read:
            self._read[sandbox] = _at_the_end(api, sandbox)
            self.count = self.count or 0
            return
        cursor = self._read[sandbox]
        for _ in range(PAGES):
            token = cursor.token
            page = cursor.read()
            # A repeated refusal is an event that was read before, with a higher count.
            for event in page.changed:
                self._add(event, self._counted.change(event, _refused(event)))
            for event in page.events:
                self._add(event, self._counted.add(event, _refused(event)))
            if not page.events or cursor.token == token:
                return

    def _add(self, event: Event, count: int) -> None:
        self.count = (self.count or 0) + count
        for key in {event.sandbox, event.sandbox_id} - {""} if count else ():
            self._by[key] += count
        if count:
            self._hear(event)


def _refused(event: Event) -> int:
    """Return how many refused connections an event stands for."""
    return 0 if event.allowed or event.protocol == REQUEST_PROTOCOL else event.count


def _at_the_end(api: Api, sandbox: str | None) -> Cursor:
    """Return a cursor at a log's end: at its newest event, where the server takes a limit; else every page is read."""
    cursor = Cursor(api, sandbox)
    page = cursor.read(limit=1)
    for _ in range(PAGES):
        token = cursor.token
        if not page.events or not token:
            break
        page = cursor.read()
        if cursor.token == token:
            break
    return cursor
