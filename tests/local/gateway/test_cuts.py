"""How bytes are cut into reads never changes a verdict, nor what goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.local.gateway.conversations import TALKS
from tests.local.gateway.talks import Change, Outcome, Talk, Turn, without_io

from irons_local.gateway.conversation.events import Side

BINARY = "a request in pieces on another port"
"""Half a line with a control byte goes on, as no strict server takes it for HTTP; that it was HTTP shows after the dial."""

ALONG = {"TLS in the middle of a message, elsewhere"}
"""What a ClientHello hides in goes on as it comes; its name is judged before its last byte does."""


def cut(data: bytes, at: list[int]) -> Iterator[bytes]:
    """The pieces between these places."""
    places = sorted({each % len(data) for each in at} - {0}) if data else []
    for begin, end in zip([0, *places], [*places, len(data)], strict=True):
        yield data[begin:end]


def in_pieces(talk: Talk, at: list[int], *sides: Side) -> Talk:
    """The same talk, cut."""
    turns: list[Turn | Change] = []
    for turn in talk.turns:
        if isinstance(turn, Change):
            turns.append(turn)
        else:
            turns += (Turn(turn.side, part) for part in cut(turn.data, at if turn.side in sides else []))
    return talk._replace(turns=tuple(turns))


def turns_of(talk: Talk) -> list[Turn]:
    """The turns of a conversation."""
    return [turn for turn in talk.turns if isinstance(turn, Turn)]


CUTS = st.lists(st.integers(1, 2000), max_size=12)


def agree(whole: Outcome, pieces: Outcome, name: str) -> None:
    """The verdict is the same, and what has gone on; less of it where it is read along as it goes by."""
    assert pieces.verdict == whole.verdict
    assert pieces.out == whole.out or (
        name in ALONG and turns_of(TALKS[name])[0].data[:-1].startswith(pieces.out)
    )


@settings(max_examples=120)
@given(name=st.sampled_from([name for name in TALKS if name != BINARY]), at=CUTS)
def test_a_client_may_cut_as_it_likes(name: str, at: list[int]) -> None:
    """Every conversation of the list, with what the client says cut anywhere."""
    talk = TALKS[name]
    agree(without_io(talk), without_io(in_pieces(talk, at, Side.CLIENT)), name)


@pytest.mark.parametrize("name", [name for name in TALKS if name != BINARY])
def test_byte_by_byte(name: str) -> None:
    """Each byte of a client in a read of its own; of a long one the first and the last thousands."""
    talk = TALKS[name]
    size = max((len(turn.data) for turn in turns_of(talk)), default=0)
    at = [each for each in range(size) if each < 1000 or each > size - 1000]
    agree(without_io(talk), without_io(in_pieces(talk, at, Side.CLIENT)), name)


@settings(max_examples=60)
@given(
    name=st.sampled_from(
        [name for name in TALKS if name.startswith(("TLS", "HTTP/2", "a second", "a WebS"))]
    ),
    at=CUTS,
)
def test_a_server_may_cut_as_it_likes(name: str, at: list[int]) -> None:
    """Where the server's words matter, they may be cut anywhere too."""
    talk = TALKS[name]
    whole, pieces = without_io(talk), without_io(in_pieces(talk, at, Side.SERVER))
    assert (pieces.verdict, pieces.out) == (whole.verdict, whole.out)


def test_a_binary_line_that_was_a_request_is_refused_either_way() -> None:
    """Whole it is refused before the dial, in pieces after it; its second piece never goes on."""
    talk = TALKS[BINARY]
    whole = without_io(
        talk._replace(turns=(Turn(Side.CLIENT, b"".join(turn.data for turn in turns_of(talk))),))
    )
    pieces = without_io(talk)
    assert whole.out == b""
    assert pieces.out == turns_of(talk)[0].data
    for each in (whole, pieces):
        assert each.records[-1][1].get("cause", "malformed") == "malformed"
        assert any(kind == "refused" for kind, _ in each.records)
