"""ASCII in place of characters that a stream's encoding lacks: signs of irons' own by what stands for them, all else as escapes."""

from __future__ import annotations

from typing import Final

SIGNS: Final = {
    "…": "...",
    "→": "->",
    "←": "<-",
    "↑": "^",
    "↓": "v",
    "×": "x",  # noqa: RUF001 - the sign itself
    "·": "-",
    "\N{EN DASH}": "-",
    "—": "-",
    "─": "-",
    "│": "|",
    "█": "#",
    "⏎": "\\n",
    **dict.fromkeys("🟢🟡🟠🔴⚪●○•", "*"),
    **dict(zip("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "-\\|/-\\|/-\\", strict=True)),
}
"""What irons itself prints, such as circles, the ellipsis and the spinner's frames."""


def spelled(error: UnicodeError) -> tuple[str, int]:
    """Return what is written in place of the characters that could not be encoded, and where to go on (`codecs.register_error`).

    Raises:
        UnicodeError: It did not happen in encoding.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(SIGNS.get(character) or _escape(character) for character in lost), error.end


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")
