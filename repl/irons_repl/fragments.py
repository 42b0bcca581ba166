"""Styled fragments of one line."""

from __future__ import annotations

from collections.abc import Sequence


def cut(fragments: Sequence[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """Return fragments without what is beyond `width` columns."""
    kept: list[tuple[str, str]] = []
    for style, text in fragments:
        kept.append((style, text[:width]))
        width = max(0, width - len(text))
    return kept
