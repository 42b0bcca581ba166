"""Lines of several sandboxes on one stream: no matter what one writes, every line of it has its name."""

from __future__ import annotations

import io
import os
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from irons_plugins.ssh.execute.prefixed import LONGEST, Prefixed, Shared

HOSTILE = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from(
            [b"\n", b"\r", b"\x1b[A", b"\x1b[2K\rtwo: ", b"\t", "漢".encode() * 9, "\u202e".encode()]
        ),
    ),
    max_size=12,
)


def shown(pieces: list[bytes], columns: int | None) -> str:
    """Return what a stream got of sandbox `one`."""
    stream = io.StringIO()
    sink = Prefixed("one", Shared(stream, columns))
    for piece in pieces:
        sink(piece)
    sink.end()
    return stream.getvalue()


@given(pieces=HOSTILE, columns=st.integers(8, 40))
def test_no_sandbox_writes_in_anothers_name(pieces: list[bytes], columns: int) -> None:
    """On a terminal every row, as wide as it is at most, begins with the name, and nothing moves the cursor."""
    text = shown(pieces, columns)
    for row in text.splitlines():
        assert row.startswith("one: ")
        assert row.isprintable()
        assert sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in row) <= columns
    assert text.splitlines() == text.split("\n")[:-1]


@given(pieces=HOSTILE)
def test_a_pipe_gets_the_bytes(pieces: list[bytes]) -> None:
    """Where no terminal is, lines pass as they are, each after the name."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as out:
        with os.fdopen(writing, "w") as stream:
            sink = Prefixed("one", Shared(stream, None))
            for piece in pieces:
                sink(piece)
            sink.end()
        got = out.read()
    lines = b"".join(pieces).split(b"\n")
    assert got == b"".join(b"one: %s\n" % line for line in (lines if lines[-1] else lines[:-1]))


def test_a_line_without_end_takes_no_room() -> None:
    """A line of any length is passed on in pieces."""
    lines = shown([b"x" * (LONGEST - 1)] * 3, None).splitlines()
    assert [len(line) for line in lines] == [5 + LONGEST, 5 + LONGEST, 5 + LONGEST - 3]
