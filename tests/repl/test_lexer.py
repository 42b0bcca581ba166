"""Lines into tokens."""

from __future__ import annotations

import gc
import shlex
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_repl.line.lexer import left_open, lex, quoted

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SHELLISH = st.text(st.sampled_from("ab '\"\\x-/=~\té"), max_size=30)


@given(TEXT)
def test_a_quoted_word_is_read_back_as_it_was(word: str) -> None:
    """No matter what a word holds, `quoted` writes it so that one token comes out, with exactly that text."""
    token, *rest = lex(quoted(word))
    assert (token.text, token.kind, rest) == (word, "word", [])


@given(SHELLISH)
def test_words_are_those_of_a_posix_shell(line: str) -> None:
    """Where the standard library's reader of shell words accepts a line, the same words come out."""
    try:
        expected = shlex.split(line)
    except ValueError:
        return
    assert [token.text for token in lex(line)] == expected


@given(st.text(st.sampled_from("ab;|&<>!#'\"\\\n ()\0\x1b"), max_size=60))
def test_offsets_lie_in_order_within_the_line(line: str) -> None:
    """Tokens never overlap, and an open one ends the line."""
    at = 0
    for token in lex(line):
        assert at <= token.start <= token.end <= len(line)
        at = token.end
        assert not token.open or (token.end == len(line) and 0 <= token.opened < len(line))


def test_a_quoted_operator_is_a_word() -> None:
    """`";"` is a word, `;` an operator, and both know where they stand."""
    assert [(t.text, t.kind, t.start, t.end) for t in lex('a ";" ;b')] == [
        ("a", "word", 0, 1),
        (";", "word", 2, 5),
        (";", "operator", 6, 7),
        ("b", "word", 7, 8),
    ]


@pytest.mark.parametrize(
    ("line", "shell"),
    [
        ("list | grep x", "grep x"),
        ("list | grep ';' | wc -l; next", "grep ';' | wc -l"),
        ("list | cat && next", "cat"),
        ("list | (cat; echo x) ; next", "(cat; echo x)"),
        ("list | cat 2>&1", "cat 2>&1"),
        ("list |cat\nnext", "cat"),
    ],
)
def test_text_behind_a_pipe_is_the_shells(line: str, shell: str) -> None:
    """Behind `|` the text goes to the system's shell as written, up to what ends the step."""
    assert [token.text for token in lex(line) if token.kind == "shell"] == [shell]


def test_text_behind_a_bang_is_the_shells_to_the_end_of_the_line() -> None:
    """`!` at a command's place hands the rest of the line over, operators included; elsewhere it is a character."""
    tokens = lex("a !b; !echo x; echo 'y\nz' | w\nnext")
    assert [t.text for t in tokens] == ["a", "!b", ";", "!", "echo x; echo 'y\nz' | w", "\n", "next"]


def test_a_comment_ends_with_its_line() -> None:
    """`#` begins a comment only where a word may begin."""
    assert [(t.text, t.kind) for t in lex("a#b # c; d\ne")] == [
        ("a#b", "word"),
        ("# c; d", "comment"),
        ("\n", "operator"),
        ("e", "word"),
    ]


@pytest.mark.parametrize("line", ["a 'b", 'a "b', "a \\", "!echo 'x", 'list | grep "x', "a \\\n"])
def test_an_open_line_asks_for_more(line: str) -> None:
    """An open quote or a last backslash goes on in the next line."""
    assert left_open(line)


@pytest.mark.parametrize("line", ["", "a", "a 'b'", "a \\\nb", "# it's", "a \\\\"])
def test_a_whole_line_does_not(line: str) -> None:
    """What is complete is run."""
    assert not left_open(line)


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["x", "'", '"', "\\", "; ", "| ", "a ", "!(", "\n", "#"])
def test_long_lines_are_read_in_proportion(piece: str) -> None:
    """Eight times the length takes about eight times as long, no matter what the line is made of: not its square."""

    def took(characters: int) -> float:
        # Collecting garbage takes as long as all else that this process holds is large.
        gc.disable()
        try:
            began = time.process_time()
            lex(piece * (characters // len(piece)))
            return time.process_time() - began
        finally:
            gc.enable()

    # A busy machine makes one of them late.
    assert any(took(400_000) < 24 * max(took(50_000), 0.01) for _ in range(3))
