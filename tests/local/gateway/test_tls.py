"""Reading ClientHellos."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_local.gateway.tls.client_hello import (
    BadHelloError,
    Hello,
    OddHelloError,
    Reader,
    Records,
    begins,
    context,
)

CONTEXT = context()


def hello(name: str | None = "web.example.test", version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """What a client begins with."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.minimum_version = client.maximum_version = version
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def in_records(data: bytes, size: int) -> bytes:
    """The same handshake message in records of `size` bytes."""
    message = data[5:]
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(data[:3] + len(part).to_bytes(2, "big") + part for part in parts)


def read(data: bytes, step: int) -> Hello | None:
    """Feed bytes in steps."""
    reader, found = Reader(CONTEXT), None
    for at in range(0, len(data), step):
        found = reader.feed(data[at : at + step])
    return found


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_the_name_is_read_however_it_comes(version: ssl.TLSVersion, step: int) -> None:
    """The name is found in any fragmentation, with an alert to refuse it."""
    found = read(hello(version=version), step)
    assert found is not None
    assert found.name == "web.example.test"
    assert found.alert[:1] == b"\x15"
    assert found.alert[-1] == 49


@pytest.mark.parametrize("size", [1, 7, 100])
def test_the_name_is_read_across_records(size: int) -> None:
    """Small records hide nothing."""
    found = read(in_records(hello(), size), 10_000)
    assert found is not None
    assert found.name == "web.example.test"


def test_without_a_name_there_is_none() -> None:
    """A ClientHello without a server name is whole all the same."""
    found = read(hello(None), 10_000)
    assert found is not None
    assert found.name is None


def test_a_name_with_a_nul_is_malformed() -> None:
    """OpenSSL refuses it, and so do we."""
    with pytest.raises(BadHelloError):
        read(hello("web.example.test").replace(b"web.ex", b"web\0ex"), 10_000)


def test_an_endless_hello_is_cut_off() -> None:
    """A handshake message that is too large is refused before it is whole."""
    record = b"\x16\x03\x01\x40\x00" + b"\x01\x02\x00\x00" + b"\0" * (0x4000 - 4)
    reader = Reader(CONTEXT)
    assert [reader.feed(record) for _ in range(4)] == [None] * 4
    with pytest.raises(BadHelloError, match="too large"):
        reader.feed(record)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@given(st.binary(max_size=400))
def test_any_bytes_are_survived(data: bytes) -> None:
    """Hostile bytes are incomplete, or malformed, or a ClientHello."""
    reader = Reader(CONTEXT)
    try:
        reader.feed(b"\x16\x03\x01" + data)
    except BadHelloError:
        return
    finally:
        reader.close()


# `ssl` reports a name that is not ASCII in this way, and then fails the handshake.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@given(st.integers(0, 300), st.binary(min_size=1, max_size=4))
def test_mangled_hellos_are_survived(at: int, data: bytes) -> None:
    """One changed place in a real one is survived too."""
    whole = hello()
    reader = Reader(CONTEXT)
    try:
        reader.feed(whole[:at] + data + whole[at + len(data) :])
    except BadHelloError:
        return
    finally:
        reader.close()


def test_what_begins_a_hello() -> None:
    """Record type, major version and message type decide; too few bytes leave it open."""
    assert begins(hello()) is True
    assert [begins(hello()[:count]) for count in range(6)] == [None] * 6
    assert begins(b"\x16\x02\x01\0\0\x01") is False
    assert begins(b"\x16\x03\x01\0\0\x02") is False
    assert begins(b"GET / ") is False


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_the_end_of_a_hello_is_found(size: int, step: int) -> None:
    """However it is cut, what follows its last record is not taken for a part of it."""
    whole = in_records(hello(), size)
    data = whole + hello("evil.example.test")
    reader = Reader(CONTEXT)
    for at in range(0, len(data), step):
        found = reader.feed(data[at : at + step])
        if found is not None:
            assert at + step - len(found.rest) == len(whole) or at + step >= len(data)
            assert data[at : at + step].endswith(found.rest)
            assert len(data[: at + step]) - len(found.rest) == len(whole)
            return
    pytest.fail("it was never whole")


def test_a_second_hello_in_the_same_record_is_refused() -> None:
    """A record that holds more than the ClientHello is odd, whether the record is whole or not."""
    one, other = hello()[5:], hello("evil.example.test")[5:]
    both = one + other
    data = b"\x16\x03\x01" + len(both).to_bytes(2, "big") + both
    for step in (1, 10_000):
        with pytest.raises(OddHelloError):
            read(data, step)


@pytest.mark.parametrize(
    "between", [b"\x14\x03\x03\0\x01\x01", b"\x15\x03\x03\0\x02\x01\x70", b"\x16\x03\x03\0\0"]
)
def test_nothing_may_come_between_the_records(between: bytes) -> None:
    """Another record, or an empty one, in the middle of a ClientHello makes it malformed."""
    parts = in_records(hello(), 100)
    with pytest.raises(BadHelloError):
        read(parts[:105] + between + parts[105:], 10_000)


@pytest.mark.parametrize("step", [1, 10_000])
def test_what_is_not_a_record_is_refused_at_once(step: int) -> None:
    """Bytes in the middle of a ClientHello that begin no record are not waited upon."""
    begun = in_records(hello(), 100)[:105]
    with pytest.raises(BadHelloError, match="wrong version number") as caught:
        read(begun + b"GET / HTTP/1.1", step)
    assert caught.value.alert[:1] == b"\x15"


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_records_in_any_pieces_end_at_the_same_place(pieces: list[bytes]) -> None:
    """Where bytes are cut makes no difference to where a ClientHello ends, and none is ever longer than its bytes."""
    data = b"\x16\x03\x01" + b"".join(pieces)
    message, end = Records().feed(data)
    cut, at, said, found = Records(), 0, b"", None
    for piece in (b"\x16\x03\x01", *pieces):
        part, found = cut.feed(piece)
        said += part
        if found is not None:
            found += at
            break
        at += len(piece)
    assert (said, found) == (message, end)
    assert end is None or end <= len(data)
