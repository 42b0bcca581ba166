"""The part of a long text that is shown, and the keys that move it."""

from __future__ import annotations

from irons.record import NamedTuple

PAGE_DOWN = ("pagedown", " ")
STEPS = {"up": -1, "k": -1, "down": 1, "j": 1}
"""Keys that go by a line, with how far."""


class Paging(NamedTuple):
    """Which lines of a text are on the screen.

    Attributes:
        top: The first line that is shown.
        length: The lines of the text, as last drawn.
        room: The lines that the screen had for it; 0 while it was not drawn.
    """

    top: int = 0
    length: int = 0
    room: int = 0

    def drawn(self, length: int, room: int) -> Paging:
        """Return the same place for a text and a screen as they are now: never beyond the last line."""
        return Paging(max(0, min(self.top, length - room)), length, room)

    def moved(self, key: str) -> Paging | None:
        """Return the place after a key; None where the key moves nothing, as all of the text is shown."""
        page = max(1, self.room - 1)
        by = page if key in PAGE_DOWN else -page if key == "pageup" else STEPS.get(key, 0)
        if not by or 0 < self.length <= self.room:
            return None
        return self._replace(top=max(0, min(self.top + by, self.length - self.room)))

    @property
    def more(self) -> str:
        """The key that shows more of the text; empty where all of it is shown."""
        if self.length <= self.room:
            return ""
        return "PgDn" if self.top + self.room < self.length else "PgUp"
