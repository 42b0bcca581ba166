"""Chunked bodies are framed again from what was understood of them, many small chunks with one write."""

from __future__ import annotations

import pytest

from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http1.chunks import PIECE, TOGETHER, Chunks

BODY = b"5;a=b\r\nhello\r\n0A \t;x\r\n0123456789\r\n000\r\nX-One:  1 \r\nx-two:2\r\n\r\n"
FRAMED = b"5\r\nhello\r\na\r\n0123456789\r\n0\r\nX-One: 1\r\nx-two: 2\r\n\r\n"


def framed(data: bytes, step: int) -> tuple[bytes, bytes]:
    """What goes on of a body that comes so many bytes at a time, and what is left after it."""
    chunks, came, out = Chunks(), bytearray(), b""
    for at in range(0, len(data), step):
        came += data[at : at + step]
        while not chunks.done and (part := chunks.feed(came)):
            out += part
    assert chunks.done
    return out, bytes(came)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_body_is_framed_alike_however_it_comes(step: int) -> None:
    """Extensions, zeros and spaces go, the rest stays; what follows the body is left alone."""
    assert framed(BODY, step) == (FRAMED, b"")
    assert framed(BODY + b"GET", len(BODY) + 3) == (FRAMED, b"GET")


def test_small_chunks_go_on_together_and_not_without_bound() -> None:
    """Many chunks of one byte make few writes, each of a bounded number of them."""
    data = bytearray(b"1\r\nx\r\n" * 10_000)
    chunks = Chunks()
    writes = []
    while part := chunks.feed(data):
        writes.append(part)
    assert b"".join(writes) == b"1\r\nx\r\n" * 10_000
    assert len(writes) <= 3 * 10_000 / TOGETHER + 1
    assert max(map(len, writes)) <= 6 * TOGETHER


def test_a_large_chunk_goes_on_in_pieces() -> None:
    """However much has come, about as much goes on at once as is read at once."""
    size = 10 * PIECE
    data = bytearray(b"%x\r\n" % size + bytes(size) + b"\r\n")
    chunks = Chunks()
    sizes = []
    while part := chunks.feed(data):
        sizes.append(len(part))
    assert sum(sizes) == size + len(b"%x\r\n\r\n" % size)
    assert max(sizes) <= 2 * PIECE


@pytest.mark.parametrize(
    "bad",
    [
        b"g\r\n",
        b"-1\r\n",
        b"0x5\r\n",
        b"5 5\r\n",
        b"5\nhello\n\r\n",
        b"\r\n",
        b"fffffffffffff\r\n",
        b"1\r\nxy\r\n",
        b"1\r\nx\ry",
        b"1;" + b"x" * 1100,
        b"1;" + b"x" * 1100 + b"\r\nx\r\n",
        b"0\r\nX: a\nY: b\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        b"0\r\nX: " + b"y" * 70_000,
    ],
)
def test_malformed_framing_is_refused(bad: bytes) -> None:
    """A size is hexadecimal digits, a line ends in CR LF, and trailers are few and harmless."""
    with pytest.raises(BadRequestError):
        framed(bad, len(bad))
