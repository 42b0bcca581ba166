"""How long work reports how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float | None], None]
"""Called with one line for people and, where it is known, the part done from 0 to 1."""


def unheard(_line: str, _done: float | None) -> None:
    """The `Progress` of a caller that does not listen."""
