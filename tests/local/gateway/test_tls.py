"""Reading ClientHellos."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.local.gateway.stand import retry_request

from irons_plugins.local.gateway.tls import BadHelloError, Hello, Reader, asks_again, begins, context

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


def test_what_asks_for_a_second_hello() -> None:
    """Only a ServerHello with the random that says so does, and that is known as soon as its random is there."""
    retry = retry_request()
    assert [asks_again(retry[:count]) for count in range(43)] == [None] * 43
    assert asks_again(retry[:43]) is True
    assert asks_again(retry) is True
    for at in (0, 1, 5, 11, 42):
        assert asks_again(retry[:at] + b"\x77" + retry[at + 1 :]) is False
    assert asks_again(b"220 mail") is False


def test_what_begins_a_hello() -> None:
    """Record type, major version and message type decide; too few bytes leave it open."""
    assert begins(hello()) is True
    assert [begins(hello()[:count]) for count in range(6)] == [None] * 6
    assert begins(b"\x16\x02\x01\0\0\x01") is False
    assert begins(b"\x16\x03\x01\0\0\x02") is False
    assert begins(b"GET / ") is False
