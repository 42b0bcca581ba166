"""What `greet` does; imported when it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from irons import Context


@dataclass(frozen=True)
class Greeting:
    """One greeting."""

    name: str
    words: str


def greet(ctx: Context, *, names: tuple[str, ...], loud: bool) -> Iterator[Greeting]:
    """Greet each sandbox that is there; one that is not ends it with exit code 3."""
    for name in names:
        state = ctx.api.status(name).status
        words = f"hello, {state} {name}"
        yield Greeting(name, words.upper() if loud else words)
