"""What is known of each scope that a change was typed for, and what must be gathered. Imports little: the prompt opens with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons_repl.forecast.ground import Ground

FRESH: Final = 10.0
"""Seconds after which a scope that is still wanted is gathered again."""

WANTED: Final = 15.0
"""Seconds for which a scope is wanted after it was asked for."""


class Gathering:
    """What is known of each scope that a line was typed for. One thread gathers, another one reads."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._grounds: dict[str | None, tuple[float, Ground | None]] = {}
        self._wanted: dict[str | None, float] = {}

    def want(self, sandbox: str | None) -> tuple[Ground | None, bool]:
        """Return what is known of a scope, and whether it is still to be gathered. For the thread of the keys."""
        self._wanted[sandbox] = time.monotonic()
        known = self._grounds.get(sandbox)
        return (None, True) if known is None else (known[1], False)

    def forget(self) -> None:
        """Gather everything again: rules may have changed."""
        self._grounds = {}

    @property
    def due(self) -> bool:
        """Whether something that is wanted is not known, or no longer fresh."""
        return bool(self._due())

    def gather(self, api: Api) -> None:
        """Ask for what is wanted and due.

        Raises:
            IronsError: The server did not answer.
        """
        # Also what a key needs next is imported here.
        from irons_repl.forecast import effects  # noqa: F401
        from irons_repl.forecast.asking import ground_of

        for sandbox in self._due():
            # Before it is asked for: what is forgotten in between stays forgotten.
            grounds = self._grounds
            grounds[sandbox] = (time.monotonic(), ground_of(api, sandbox))

    def _due(self) -> list[str | None]:
        now = time.monotonic()
        return [
            sandbox
            for sandbox, wanted in tuple(self._wanted.items())
            if now - wanted < WANTED and now - self._grounds.get(sandbox, (float("-inf"), None))[0] > FRESH
        ]
