"""The setting `ask_chord`: what it may name, and what of it counts where it names something else."""

from __future__ import annotations

import pytest

from irons_repl.chord import DEFAULT, AskChords, read_chords


@pytest.mark.parametrize(
    ("text", "names", "emacs", "vi"),
    [
        ("alt-q f2", ("alt-q", "f2"), "Alt-Q", "F2"),
        ("Alt-A", ("alt-a",), "Alt-A", "F2"),
        (" F12,alt-z ,f12", ("f12", "alt-z"), "F12", "F12"),
        ("f5", ("f5",), "F5", "F5"),
    ],
)
def test_a_chord_is_named_as_it_is_pressed(text: str, names: tuple[str, ...], emacs: str, vi: str) -> None:
    """With vi keys a function key is told of, which is F2 where none is named."""
    chords = read_chords(text)
    assert chords == AskChords(names)
    assert (chords.name(vi=False), chords.name(vi=True)) == (emacs, vi)


@pytest.mark.parametrize(
    ("text", "emacs", "vi"),
    [
        ("alt-q f5", ["alt-q", "f5"], ["f5"]),
        ("alt-a", ["alt-a"], ["f2"]),
        ("f5 f6", ["f5", "f6"], ["f5", "f6"]),
    ],
)
def test_a_chord_opens_with_the_keys_of_the_line(text: str, emacs: list[str], vi: list[str]) -> None:
    """Escape begins no chord with vi keys, and the F2 that stands in for one there is not taken from emacs keys."""
    chords = read_chords(text)
    assert [chord.name for chord in chords.of(vi=False)] == emacs
    assert [chord.name for chord in chords.of(vi=True)] == vi


@pytest.mark.parametrize("bad", ["ctrl-q", "q", "f4", "f0", "f13", "alt-", "alt-qq", "alt-1", "\x1b[2J", "é"])
def test_what_is_none_is_said_and_leaves_the_others(bad: str) -> None:
    """No setting leaves a person without a chord, and none takes a key that a line needs."""
    alone = read_chords(bad)
    assert alone.names == DEFAULT
    assert "is not a chord" in alone.trouble
    assert alone.trouble.isprintable()
    assert alone.trouble.endswith("; the questions are opened by Alt-Q and F2")
    assert read_chords(f"f6 {bad}").names == ("f6",)
    assert read_chords(f"{bad} f6").trouble.endswith("; the questions are opened by F6")
    assert read_chords("").trouble.startswith("ask_chord: no chord is named")
