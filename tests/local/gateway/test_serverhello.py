"""What a server answers to a ClientHello."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.local.gateway.stand import retry_request

from irons_local.gateway.tls.server_hello import MAX_ANSWER, ServerAnswer

RETRY = retry_request()
FIRST = RETRY[:11] + b"\x77" * 32 + RETRY[43:]
"""A ServerHello with an ordinary random."""
WARNING, FATAL = b"\x15\x03\x03\0\x02\x01\x70", b"\x15\x03\x03\0\x02\x02\x28"


def in_records(data: bytes, size: int) -> bytes:
    """The same message in records of `size` bytes."""
    parts = [data[at : at + size] for at in range(5, len(data), size)]
    return b"".join(b"\x16\x03\x03" + len(part).to_bytes(2, "big") + part for part in parts)


def read(data: bytes, step: int, *, late: bool = False) -> bool | None:
    """Feed bytes in steps, up to the first answer."""
    answer = ServerAnswer(late=late)
    for at in range(0, len(data), step):
        found = answer.feed(data[at : at + step])
        if found is not None:
            return found
    return None


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (RETRY, True),
        (FIRST, False),
        (WARNING + RETRY, True),
        (WARNING + FIRST, False),
        (FATAL, False),
        (in_records(RETRY, 1), True),
        (in_records(RETRY, 10), True),
        (in_records(FIRST, 10), False),
        (RETRY[:42], None),
        (b"", None),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", None),
        (b"500 what?\r\n" * 20_000, None),
    ],
)
def test_what_asks_again(data: bytes, expected: bool | None, step: int, *, late: bool) -> None:
    """Only a ServerHello with the random that says so asks for a second ClientHello, in any records."""
    assert read(data, step, late=late) is expected


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize(
    "before", [b"220 ready\r\n", b"S", b"\x16\x03\x04\x01\0\x00\x25\x01", b"\x16\x03" * 9]
)
def test_text_before_it_matters_only_where_there_may_be_some(before: bytes, step: int) -> None:
    """After plain text a server may end its own first; from the first byte on, what is not TLS never becomes it."""
    assert read(before + RETRY, step, late=True) is True
    assert read(before + FIRST, step, late=True) is False
    assert read(before + RETRY, step) is None


def test_an_answer_is_bounded() -> None:
    """Warnings without end are no TLS."""
    answer = ServerAnswer(late=False)
    assert all(answer.feed(WARNING * 1000) is None for _ in range(MAX_ANSWER // len(WARNING * 1000) + 2))
    assert answer.feed(RETRY) is None


@given(
    st.lists(
        st.sampled_from([b"\x16\x03", b"\x15\x03\x03\0\x02", b"\x02", b"\x01", b"\0", b"a"]), max_size=30
    )
)
def test_pieces_make_no_difference(pieces: list[bytes]) -> None:
    """Byte by byte the answer is the same as in one piece."""
    data = b"".join(pieces)
    for late in (True, False):
        assert read(data + RETRY, 1, late=late) is read(data + RETRY, 10_000, late=late)
