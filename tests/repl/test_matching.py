"""Fuzzy matching."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from irons_repl.line.fuzzy import LIMIT, Fitter, fitting

WORDS = st.text(st.sampled_from("abc-12]^."), min_size=1, max_size=8)


def found(words: list[str], typed: str) -> list[str]:
    """The words that fit."""
    return [c.word for c in fitting(dict.fromkeys(words, ""), typed)]


def test_beginnings_come_before_parts_and_parts_before_scattered_letters() -> None:
    """The order says how well a word fits."""
    assert found(["a-g-4-2", "my-ag42", "ag42", "zzz", "xagx42"], "ag42") == [
        "ag42",
        "my-ag42",
        "xagx42",
        "a-g-4-2",
    ]


def test_upper_case_counts_where_it_is_typed() -> None:
    """Lower case fits both, upper case only itself."""
    assert found(["Alpha", "alpha"], "al") == ["Alpha", "alpha"]
    assert found(["Alpha", "alpha"], "Al") == ["Alpha"]


@given(st.lists(WORDS, unique=True, max_size=30), WORDS)
def test_a_word_fits_when_its_letters_come_in_order(words: list[str], typed: str) -> None:
    """Exactly the words that have the typed letters in order are found, each once (single letters: those that hold it)."""

    def in_order(word: str) -> bool:
        letters = iter(word)
        return all(letter in letters for letter in typed)

    assert sorted(found(words, typed)) == sorted(word for word in words if in_order(word))


def test_ten_thousand_words_give_a_hundred() -> None:
    """Candidates are capped, whichever way they fit."""
    words = [f"agent-{number}" for number in range(10_000)]
    for typed in ("", "a", "agent", "a9", "t-1"):
        assert len(found(words, typed)) == LIMIT


@given(st.lists(WORDS, unique=True, max_size=30), WORDS, st.integers(1, 40))
def test_a_search_that_goes_on_finds_what_a_fresh_one_finds(words: list[str], typed: str, limit: int) -> None:
    """Key by key, and back, the words and their order are those of a search without a memory."""
    values = dict.fromkeys(words, "")
    fitter = Fitter(limit)
    for end in (*range(1, len(typed) + 1), *range(len(typed), 0, -1)):
        fresh = fitting(values, typed[:end], limit)
        assert fitter.fitting(dict(values), typed[:end]) == fresh


def test_other_words_are_searched_afresh() -> None:
    """What fitted among other words says nothing of these."""
    fitter = Fitter()
    assert [c.word for c in fitter.fitting({"alpha": ""}, "al")] == ["alpha"]
    assert [c.word for c in fitter.fitting({"alpha": "", "albert": ""}, "alb")] == ["albert"]
    assert [c.about for c in fitter.fitting({"alpha": "new", "albert": ""}, "alp")] == ["new"]
