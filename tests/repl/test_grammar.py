"""Tokens into steps, and errors that point at the column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_repl.line.grammar import LineError, LineStep, Redirection, steps_of


def test_steps_know_how_they_are_joined() -> None:
    """`;`, `&&`, `||` and the end of a line stand before the step they join."""
    steps = steps_of("a 1; b && c || d\ne")
    assert [(step.words, step.joiner) for step in steps] == [
        (("a", "1"), ";"),
        (("b",), ";"),
        (("c",), "&&"),
        (("d",), "||"),
        (("e",), ";"),
    ]


def test_output_goes_to_files_pipes_and_shells(monkeypatch: pytest.MonkeyPatch) -> None:
    """`>`, `>>`, `|` and `!` are read, `~` at the beginning of a word is the home directory."""
    monkeypatch.setenv("HOME", "/home/me")
    assert steps_of("list > ~/out.txt -q; list >> '~x'; list -q | sort -r; !ls") == [
        LineStep(("list", "-q"), ";", "", Redirection("/home/me/out.txt", append=False)),
        LineStep(("list",), ";", "", Redirection("~x", append=True)),
        LineStep(("list", "-q"), ";", "sort -r"),
        LineStep((), ";", "ls"),
    ]


@pytest.mark.parametrize("line", ["", "   ", "\n\n", "# only a comment"])
def test_a_blank_line_has_no_steps(line: str) -> None:
    """Nothing is run for nothing."""
    assert steps_of(line) == []


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("list 'x", 5, "quote ' is not closed"),
        ('a"b\\"c', 1, 'quote " is not closed'),
        ("list \\", 5, "backslash"),
        ("list |", 5, "nothing follows |"),
        ("list | | cat", 5, "nothing follows |"),
        ("| cat", 0, "there is no command before |"),
        ("; a", 0, "there is no command before ;"),
        ("a ;; b", 3, "there is no command before ;"),
        ("a && && b", 5, "there is no command before &&"),
        ("a &&", 2, "nothing follows &&"),
        ("a ||\n", 2, "nothing follows ||"),
        ("a & b", 2, "& has no meaning here"),
        ("a < b", 2, "< has no meaning here"),
        ("a >", 2, "> needs a file"),
        ("a > ''", 2, "> needs a file"),
        ("a > b > c", 6, "output goes to one file"),
        ("a > b | c", 6, "not both"),
        ("a 2> b", 2, "only standard output"),
        ("> b", 0, "there is no command before >"),
        ("!", 0, "nothing follows !"),
        ("a \x00", 2, "control character"),
        ("a '\x1b[2J'", 3, "control character"),
    ],
)
def test_what_makes_no_sense_points_at_its_column(line: str, column: int, message: str) -> None:
    """Each error knows where the line stops making sense."""
    with pytest.raises(LineError) as caught:
        steps_of(line)
    assert message in caught.value.message
    assert caught.value.column == column


@given(st.text(st.sampled_from("ab;|&<>!#'\"\\\n ()~\0"), max_size=60))
def test_any_line_is_steps_or_one_error(line: str) -> None:
    """No matter what is typed, the answer is steps or a `LineError` within the line."""
    found: LineError | None = None
    try:
        steps_of(line)
    except LineError as error:
        found = error
    assert found is None or 0 <= found.column <= len(line)
