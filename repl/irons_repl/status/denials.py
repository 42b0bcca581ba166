"""How many connections were refused since the prompt was opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.errors import IronsError, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from irons.client.api import Api

PAGES = 50
"""Pages that one look reads of one log; the rest is read at the next."""

SANDBOXES = 8
"""Sandboxes whose logs are read where the server has none of all sandboxes together."""


class Denials:
    """The count, and how far each log has been read."""

    def __init__(self) -> None:
        """Begin where the logs are at the first look."""
        self._read: dict[str | None, int] = {}
        self._together = True
        self.count: int | None = None

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
            self._read[sandbox] = _end(api, sandbox)
            self.count = self.count or 0
            return
        for _ in range(PAGES):
            token = self._read[sandbox]
            page = api.audit(sandbox, token)
            self.count = (self.count or 0) + sum(event.count for event in page.events if not event.allowed)
            if not page.events or page.token in (0, token):
                return
            self._read[sandbox] = page.token


def _end(api: Api, sandbox: str | None) -> int:
    """The token of a log's end: that of its newest event, where the server takes a limit; else every page is read."""
    token = 0
    page = api.audit(sandbox, limit=1)
    for _ in range(PAGES):
        if not page.events or page.token in (0, token):
            break
        token = page.token
        page = api.audit(sandbox, token)
    return token
