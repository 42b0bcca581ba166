"""Styled fragments of one line."""

from __future__ import annotations

from collections.abc import Iterable


def cut(fragments: Iterable[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """Cut a line on its right, with a mark where something is missing."""
    whole = list(fragments)
    missing = len("".join(text for _, text in whole).rstrip()) > width
    room = width - 1 if missing else width
    kept: list[tuple[str, str]] = []
    for style, text in whole:
        kept.append((style, text[: max(0, room)]))
        if missing and len(text) > room:
            kept.append((style, "…"[:width]))
            break
        room -= min(room, len(text))
    return [part for part in kept if part[1]]
