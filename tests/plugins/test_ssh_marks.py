"""The marks of `exec` in a program's stderr: read and taken out, however the bytes arrive, and nothing else is."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from irons_plugins.ssh.openssh.marks import Marks

TOKEN = "0123456789abcdef" * 2
MARK = f"\0irons {TOKEN} ".encode()
CLOSED = b"Connection to box closed by remote host.\r\n"


def read(text: bytes, cuts: list[int] | None = None) -> tuple[Marks, bytes]:
    """Feed a text in pieces, cut at these places, and return what came out."""
    marks = Marks(TOKEN, "box")
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts or [])})
    out = b"".join(marks.feed(text[a:b]) for a, b in pairwise(places))
    return marks, out + marks.finish()


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"\0irons", MARK[:-1], b"\0", CLOSED, CLOSED[:9], b"\0irons \0irons x\n"]),
    ),
    max_size=6,
)


@given(before=PIECES, after=PIECES, cuts=st.lists(st.integers(0, 400), max_size=30))
def test_marks_are_taken_out_and_nothing_else(
    before: list[bytes], after: list[bytes], cuts: list[int]
) -> None:
    """No matter what a program writes around them, and however it arrives, its bytes come out as they were."""
    first, rest = b"".join(before), b"".join(after)
    text = MARK + b"began\n" + first + MARK + b"alive\n" + MARK + b"ended 137 yes\n" + rest
    marks, out = read(text, cuts)
    # What OpenSSH writes last is its own.
    assert out == first + rest.removesuffix(CLOSED)
    assert marks.closed == rest.endswith(CLOSED)
    assert marks.began is not None
    assert marks.end == (137, "yes")


def test_what_is_not_a_mark_is_read_over() -> None:
    """A mark with words that are unknown, or out of range, teaches nothing and is taken out."""
    for words in (b"ended 256 yes", b"ended -1 no", b"ended 1 perhaps", b"ended", b"\xff", b"x" * 200):
        marks, out = read(b"a" + MARK + words + b"\nb")
        assert (marks.end, marks.began, out) == (None, None, b"ab")
    assert read(MARK + b"failed\n")[0].failed


def test_openssh_says_last_that_the_connection_was_closed() -> None:
    """OpenSSH's own line at the very end is not the program's, which had no say after its end."""
    marks, out = read(b"text\n" + CLOSED)
    assert (marks.closed, out) == (True, b"text\n")
    marks, out = read(CLOSED + b"text\n")
    assert (marks.closed, out) == (False, CLOSED + b"text\n")
    marks, out = read(CLOSED + MARK + b"ended 0 no\n")
    assert (marks.closed, out) == (False, CLOSED)
    marks, out = read(MARK + b"ended 0 no\n" + CLOSED)
    assert (marks.closed, out) == (True, b"")
    assert read(MARK + b"killed\n")[0].killed


def test_what_can_be_known_to_be_the_programs_is_not_held_back() -> None:
    """A prompt without a line's end comes out at once."""
    assert Marks(TOKEN, "box").feed(b"continue? ") == b"continue? "
