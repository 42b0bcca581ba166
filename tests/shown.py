"""A stream that does something once a text was written to it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable


class Shown(io.StringIO):
    """Calls `then` when a text that matches is written, the first time; what it waits for is what was seen, not a time.

    Args:
        wanted: The regular expression.
        then: What happens then.
    """

    def __init__(self, wanted: str, then: Callable[[], object]) -> None:
        super().__init__()
        self.happened = False
        self._wanted = wanted
        self._then = then

    def write(self, text: str) -> int:
        """Write, and look."""
        if not self.happened and re.search(self._wanted, text):
            self.happened = True
            self._then()
        return super().write(text)
