"""The words for verdicts and modes that people read and type; the wire has older ones for some of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

VERDICTS: Final[Mapping[str, str]] = {"allowed": "allowed", "blocked": "denied", "warn": "would-deny"}
"""Each verdict of the wire with its word; `would-deny` is what passes only because the mode is warn."""

LISTS: Final[Mapping[str, str]] = {"allow": "allowed", "deny": "denied"}
"""Each list of rules with the word for what is on it."""

SPELLINGS: Final = (
    ("blocked", "denied"),
    ("warn", "would-deny"),
    ("allow", "allowed"),
    ("deny", "denied"),
    ("refused", "denied"),
    ("would_deny", "would-deny"),
    ("would-be-denied", "would-deny"),
    ("warned", "would-deny"),
)
"""Other spellings of these words, the wire's among them, that a filter takes."""

_WIRE: Final[Mapping[str, str]] = {word: wire for wire, word in VERDICTS.items()}
_MEANT: Final[Mapping[str, str]] = dict(SPELLINGS)


def verdict_word(verdict: str, *, allowed: bool | None = None) -> str:
    """Return the word for a verdict of the wire; without one, from whether it was allowed."""
    if verdict:
        return VERDICTS.get(verdict, verdict)
    return "" if allowed is None else "allowed" if allowed else "denied"


def wire_verdict(word: str | None) -> str | None:
    """Return the wire's verdict for a word in any of its spellings, of several with commas between them each; None for none."""
    if word is None:
        return None
    meant = (_MEANT.get(each.strip().lower(), each.strip().lower()) for each in word.split(","))
    return ",".join(_WIRE.get(each, each) for each in meant)


def mode_word(mode: str) -> str:
    """Return the word for an egress mode: `warn` with what it does."""
    return "warn (log only)" if mode == "warn" else mode
