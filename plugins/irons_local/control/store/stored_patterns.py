"""Patterns as rows have them, read once for all who have the same."""

from __future__ import annotations

from functools import lru_cache

from irons_policy.patterns import Pattern, read_pattern


@lru_cache(maxsize=10_000)
def stored_pattern(text: str) -> Pattern:
    """Read a stored pattern; each change reads all rules again, and reading them costs more than the database does."""
    return read_pattern(text, mapped=True)
