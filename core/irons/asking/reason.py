"""Words of a sandbox for a question, made one quoted text that can't pass for anything else."""

from __future__ import annotations

import unicodedata
from typing import Final

from irons.text import clean, in_quotes

_BLANK: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and signs without ink: fillers of Hangul, and the empty sign of Braille."""


def quoted(reason: str) -> str:
    r"""Return the words in quotes.

    Nothing inside ends the quotes. What has no ink or no width of its own, such as a mark above another letter, is an escape. Runs of
    blanks are one.
    """
    # A letter that exists with its mark is one letter.
    words = " ".join(clean(unicodedata.normalize("NFC", reason)).split())
    return in_quotes("".join(each if _has_ink(each) else _escaped(each) for each in words))


def _has_ink(character: str) -> bool:
    if character.isascii():
        return True
    return (
        character.isprintable()
        and character not in _BLANK
        and unicodedata.category(character) not in ("Mn", "Me")
    )


def _escaped(character: str) -> str:
    point = ord(character)
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
