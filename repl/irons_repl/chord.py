"""The keys that open the questions at the prompt and in xonsh, as the setting `ask_chord` names them."""

from __future__ import annotations

from typing import Final

from irons.record import NamedTuple
from irons.text import clean

DEFAULT: Final = ("alt-q", "f2")
"""What opens the questions where the setting names nothing that can."""
VI: Final = "f2"
"""What opens them with vi keys, where Escape begins no chord, unless a function key is named."""
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_TAKEN: Final = "f4"
"""Changes between emacs and vi keys."""
_FORM: Final = "alt- and a letter, or f1 to f12 but f4"


class AskChords(NamedTuple):
    """The keys.

    Attributes:
        names: Each as `alt-q` or `f2`.
        trouble: What is wrong with the setting; empty where nothing is.
    """

    names: tuple[str, ...] = DEFAULT
    trouble: str = ""

    @property
    def alts(self) -> tuple[str, ...]:
        """The letters that open the questions with Alt, with emacs keys."""
        return tuple(name[-1] for name in self.names if name.startswith("alt-"))

    @property
    def functions(self) -> tuple[str, ...]:
        """The function keys that do, with any."""
        return tuple(name for name in self.names if not name.startswith("alt-"))

    def name(self, *, vi: bool) -> str:
        """Return the one to show."""
        name = next(iter(self.functions), VI) if vi else self.names[0]
        return "-".join(part.capitalize() for part in name.split("-"))


def read_chords(text: str) -> AskChords:
    """Read the setting: chords with blanks or commas between them. What is none of them is reported, and the others count."""
    given = list(dict.fromkeys(text.lower().replace(",", " ").split()))
    good = tuple(each for each in given if _is_chord(each))
    bad = [each for each in given if not _is_chord(each)]
    chords = AskChords(good or DEFAULT)
    if not bad and good:
        return chords
    what = f"{clean(bad[0], limit=40)!r} is not a chord" if bad else "no chord is named"
    opens = " and ".join("-".join(part.capitalize() for part in name.split("-")) for name in chords.names)
    return chords._replace(trouble=f"ask_chord: {what} ({_FORM}); the questions are opened by {opens}")


def _is_chord(name: str) -> bool:
    if name.startswith("alt-"):
        return len(name) == len("alt-q") and name[-1] in _LETTERS
    number = name.removeprefix("f")
    return name[:1] == "f" and number in map(str, range(1, 13)) and name != _TAKEN
