"""The keys that open the questions at the prompt and in xonsh, as the setting `ask_chord` names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from irons.record import NamedTuple
from irons.text import clean

if TYPE_CHECKING:
    from prompt_toolkit.filters import Filter

DEFAULT: Final = ("alt-q", "f2")
"""What opens the questions where the setting names nothing that can."""
_WITH_VI: Final = "f2"
"""What opens them with vi keys, where Escape begins no chord, unless a function key is named."""
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_TAKEN: Final = "f4"
"""Changes between emacs and vi keys."""
_FORM: Final = "alt- and a letter, or f1 to f12 but f4"


class AskChord(NamedTuple):
    """One of the keys, and with which keys of the line it opens the questions.

    Attributes:
        name: As in the setting, `alt-q` or `f2`.
        keys: What the terminal sends for it, as prompt_toolkit names that.
        emacs: Whether it does with emacs keys.
        vi: Whether it does with vi keys.
    """

    name: str
    keys: tuple[str, ...]
    emacs: bool = True
    vi: bool = True

    @property
    def filter(self) -> Filter:
        """When it opens the questions, for a key binding."""
        from prompt_toolkit.filters import Always, emacs_mode, vi_mode

        if self.emacs and self.vi:
            return Always()
        return emacs_mode if self.emacs else vi_mode


class AskChords(NamedTuple):
    """The keys.

    Attributes:
        names: Each as `alt-q` or `f2`.
        trouble: What is wrong with the setting; empty where nothing is.
    """

    names: tuple[str, ...] = DEFAULT
    trouble: str = ""

    @property
    def all(self) -> tuple[AskChord, ...]:
        """Each, and F2 with vi keys alone where none of these is a function key."""
        named = tuple(
            AskChord(name, ("escape", name[-1]), vi=False)
            if name.startswith("alt-")
            else AskChord(name, (name,))
            for name in self.names
        )
        if any(chord.vi for chord in named):
            return named
        return (*named, AskChord(_WITH_VI, (_WITH_VI,), emacs=False))

    def of(self, *, vi: bool) -> tuple[AskChord, ...]:
        """Return those that open the questions with vi keys, or with emacs keys."""
        return tuple(chord for chord in self.all if (chord.vi if vi else chord.emacs))

    def name(self, *, vi: bool) -> str:
        """Return the one to show."""
        return "-".join(part.capitalize() for part in self.of(vi=vi)[0].name.split("-"))


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
