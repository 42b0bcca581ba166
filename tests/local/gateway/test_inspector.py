"""What is seen in a connection that may carry anything."""

from __future__ import annotations

import random
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_local.gateway.budget.undecided import Budget, TooMuchError
from irons_local.gateway.inspect.inspector import Inspector, Then
from irons_local.gateway.inspect.sniff import POSTGRES_SSL, Kind, Looks, first_line, hello_at, kind
from irons_local.gateway.tls.client_hello import begins, context
from irons_local.gateway.tls.late_hello import LateHelloScanner, TooManyError

CONTEXT = context()
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
REQUEST = b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (HELLO, Kind.TLS),
        (HELLO[:3], Kind.UNDECIDED),
        (b"\x16", Kind.UNDECIDED),
        (REQUEST, Kind.HTTP),
        (b"\r\n" + REQUEST, Kind.HTTP),
        (b"foo bar hTTp/9\r\n", Kind.HTTP),
        (b"GET http://evil.test/\r\n", Kind.HTTP),
        (b"\r\n foo\tHTTPS://evil.test", Kind.HTTP),
        (b"see http://evil.test/\n", Kind.HTTP),
        (b"USER a b http://evil.test/\r\n", Kind.OPAQUE),
        (b"GET /", Kind.UNDECIDED),
        (b"SSH-2.0-x\r\n", Kind.OPAQUE),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Kind.OPAQUE),
        (b"GET /\0 HTTP/1.1\r\n", Kind.HTTP),
        (b"\r\n" * 600, Kind.ENDLESS),
        (b"x" * 9000, Kind.ENDLESS),
        (b"\0" * 9000, Kind.OPAQUE),
    ],
)
def test_kinds(data: bytes, expected: Kind) -> None:
    """First bytes are known for what they are."""
    assert kind(data) is expected


def test_lines() -> None:
    """A line that is not whole is text or binary so far."""
    assert first_line(b"") is Looks.TEXT
    assert first_line(b"EHLO") is Looks.TEXT
    assert first_line(b"\x01EHLO") is Looks.BINARY


def run(*pieces: bytes) -> tuple[bytes, Then, bytes]:
    """Feed pieces; held bytes come again in front, as the relay does it."""
    inspector, out, held = Inspector(), b"", b""
    for piece in pieces:
        step = inspector.feed(held + piece)
        out += step.forward
        held = step.rest
        if step.then not in {Then.MORE, Then.HOLD}:
            return out, step.then, held
    return out, Then.HOLD if held else Then.MORE, held


@pytest.mark.parametrize(
    ("pieces", "before"),
    [
        ((HELLO,), b""),
        ((b"EHLO x\r\n", b"STARTTLS\r\n", HELLO), b"EHLO x\r\nSTARTTLS\r\n"),
        ((b"STARTTLS\r\n" + HELLO,), b"STARTTLS\r\n"),
        ((b"\0\0\0\x08\x04\xd2\x16\x2f", HELLO), b"\0\0\0\x08\x04\xd2\x16\x2f"),
        ((b"\0\0\0\x08\x04\xd2\x16\x2f" + HELLO,), b"\0\0\0\x08\x04\xd2\x16\x2f"),
        ((b"a\n", HELLO[:1], HELLO[1:3], HELLO[3:]), b"a\n"),
        ((b"0\x0c\x02\x01\x01w\x07", HELLO), b"0\x0c\x02\x01\x01w\x07"),
    ],
)
def test_a_late_hello_is_found(pieces: tuple[bytes, ...], before: bytes) -> None:
    """TLS is seen where a turn or a line begins, and nothing of it has gone on."""
    assert run(*pieces) == (before, Then.HELLO, HELLO)


def test_a_hello_that_dawdles_is_found() -> None:
    """A first byte that was let go, as nothing followed, is remembered."""
    inspector = Inspector()
    inspector.feed(b"x\n")
    step = inspector.feed(HELLO[:1])
    assert step.then is Then.HOLD
    assert inspector.release(step.rest) == HELLO[:1]
    assert inspector.feed(HELLO[1:2]).forward == HELLO[1:2]
    step = inspector.feed(HELLO[2:])
    assert (step.then, step.sent, step.rest) == (Then.HELLO, HELLO[:2], HELLO[2:])


def test_a_request_is_found_when_it_is_whole() -> None:
    """The first line is held until it is clear what it is."""
    assert run(b"GET / HT", b"TP/1.1\r\nHost: evil.test\r\n\r\n") == (b"", Then.HTTP, REQUEST)


@pytest.mark.parametrize("first", [b"GET / HT", b"GET /\x01"])
def test_a_request_in_pieces_is_refused(first: bytes) -> None:
    """Where its beginning had to go on, the rest of it does not."""
    inspector = Inspector()
    step = inspector.feed(first)
    inspector.release(step.rest)
    step = inspector.feed(b"HTTP/1.1\r\nHost: evil.test\r\n")
    assert (step.then, step.forward) == (Then.REFUSE, b"")


def test_ssh_is_left_alone_once_both_sides_speak_it() -> None:
    """After their version lines SSH has nothing in the clear; the client's word alone is not enough."""
    inspector = Inspector()
    assert inspector.feed(b"SSH-2.0-OpenSSH\r\n").then is Then.MORE
    inspector.greeting = b"220 "
    assert inspector.feed(HELLO).then is Then.HELLO
    inspector.greeting = b"SSH-"
    assert inspector.feed(b"\0\0" + HELLO) == (b"\0\0" + HELLO, Then.RAW, b"", b"", "")


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
def test_bytes_come_out_as_they_went_in(pieces: list[bytes]) -> None:
    """What is not refused comes out in order, nothing lost and nothing twice."""
    out, then, held = run(*pieces)
    if then in {Then.MORE, Then.HOLD}:
        assert out + held == b"".join(pieces)
    else:
        assert b"".join(pieces).startswith(out + held)


@given(st.lists(st.integers(1, 10), max_size=20), st.sampled_from([b"", b"EHLO\r\n", b"\r\n"]))
def test_a_request_never_slips_through_in_any_pieces(cuts: list[int], before: bytes) -> None:
    """However it is cut, no byte of a first line with HTTP in it goes on."""
    data, pieces = REQUEST, []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    out, then, _ = run(*(piece for piece in [before if before == b"\r\n" else b"", *pieces, data] if piece))
    assert (out, then) == (b"", Then.HTTP)


@given(st.lists(st.binary(max_size=60), max_size=6), st.lists(st.integers(1, 200), max_size=6))
def test_a_hello_in_the_middle_is_read_in_any_pieces(noise: list[bytes], cuts: list[int]) -> None:
    """After any bytes, and however it is cut, the name is known before its last byte has gone on."""
    data, pieces = b"".join(noise) + real_hello() + b"after", []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    shadows = LateHelloScanner(CONTEXT, Budget())
    try:
        found = [hello for hello in map(shadows.feed, [*pieces, data]) if hello is not None]
    except TooManyError:
        return
    finally:
        shadows.close()
    assert found[0].name == "web.example.test"


def test_ordinary_bytes_cast_no_shadow() -> None:
    """Even ten megabytes of chance do not become a ClientHello."""
    shadows = LateHelloScanner(CONTEXT, Budget())
    data = random.Random(1).randbytes(10_000_000)
    assert all(shadows.feed(data[at : at + 65_536]) is None for at in range(0, len(data), 65_536))


def test_sown_candidates_are_refused() -> None:
    """Many beginnings at once are no chance."""
    shadows = LateHelloScanner(CONTEXT, Budget())
    with pytest.raises(TooManyError):
        shadows.feed(b"x" + (b"\x16\x03\x01\x40\x00\x01\x00\x01" + b"\0" * 40) * 20)
    shadows.close()


def test_what_may_be_hellos_is_counted_for_as_long_as_it_is_kept() -> None:
    """Half a ClientHello in the middle of a stream is held within the budget of its cell, and given back."""
    budget = Budget(30_000)
    one, other = LateHelloScanner(CONTEXT, budget), LateHelloScanner(CONTEXT, budget)
    half = b"x" + (b"\x16\x03\x01\x40\x00\x01\x00\xff" + b"\0" * 40) * 2
    assert one.feed(half) is None
    assert budget.held > 2 * len(half) - 100
    assert other.feed(half) is None
    other.close()
    assert one.feed(bytes(8_000)) is None
    with pytest.raises(TooMuchError):
        one.feed(bytes(8_000))
    one.close()
    assert budget.held == 0
    # One that ends, as a ClientHello or as none, gives back what it held.
    assert one.feed(b"x" + b"\x16\x03\x01\0\x08\x01\0\0\x04\0\0\0\0") is None
    assert budget.held == 0
    assert one.feed(b"x" + real_hello()) is not None
    assert budget.held == 0


def test_candidates_that_fail_at_once_are_sown_too() -> None:
    """What is found out to be no ClientHello costs as much as one: more than a few in one piece are refused."""
    shadows = LateHelloScanner(CONTEXT, Budget())
    with pytest.raises(TooManyError):
        shadows.feed(b"\x16\x03\x01\0\x01\x01" * 20)
    shadows.close()


@given(
    st.lists(st.sampled_from([b"\n", b"\x16", b"\x03", b"\x01", b"\0", b"a", POSTGRES_SSL[0]]), max_size=30)
)
def test_where_a_hello_may_begin(pieces: list[bytes]) -> None:
    """At the start, after a request for TLS or after a line: the first place of these that `begins` does not deny."""
    data = b"".join(pieces)
    starts = [0, *([8] if data.startswith(POSTGRES_SSL) else [])]
    starts += [at + 1 for at in range(len(data)) if data[at] == 10]
    found = [at for at in starts if data[at : at + 1] == b"\x16" and begins(data[at : at + 6]) is not False]
    assert hello_at(data) == (found[0] if found else None)


def real_hello() -> bytes:
    """The first bytes of a TLS client."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="web.example.test").do_handshake()
    return outgoing.read()
