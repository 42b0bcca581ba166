"""Remembered ClientHellos: what is found is what OpenSSL says, for every ClientHello."""

from __future__ import annotations

import random
import ssl

import pytest

from irons_local.gateway.tls import client_hello
from irons_local.gateway.tls.remembered import MOST, Hellos, KnownHello
from irons_policy.hostnames import Host

NAME = "files.example.test"
KEY_SHARE = bytes.fromhex("003300260024001d0020")
ROUNDS = 4000
CONTEXT = client_hello.context()


def hello(name: str | None = NAME, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """A fresh ClientHello of OpenSSL's own client whose only key share is X25519."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    # Newer versions of OpenSSL send a share of a post-quantum group first, which is no lone X25519 key.
    context.set_ecdh_curve("X25519")
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def read(data: bytes) -> KnownHello | None:
    """What OpenSSL says of it; None where it is not taken, or not whole."""
    reader = client_hello.Reader(CONTEXT)
    try:
        found = reader.feed(data)
    except client_hello.BadHelloError:
        return None
    finally:
        reader.close()
    return None if found is None else KnownHello(Host(found.name) if found.name else None, found.alert)


def learned(data: bytes) -> Hellos:
    """A memory that has met one ClientHello."""
    known = read(data)
    assert known is not None
    hellos = Hellos()
    hellos.remember(data, known)
    return hellos


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
@pytest.mark.parametrize("name", [NAME, None])
def test_the_next_hello_of_the_same_client_is_known(name: str | None, version: ssl.TLSVersion) -> None:
    """Random, session id and X25519 key differ in every connection; the rest repeats."""
    first, second = hello(name, version), hello(name, version)
    assert first != second
    known = learned(first).find(second)
    assert known is not None
    assert known == read(second)
    assert known.name == (Host(name) if name else None)


def test_what_is_found_is_what_openssl_says() -> None:
    """Any bytes of a remembered ClientHello may change: what is found in the result is what OpenSSL finds."""
    chance = random.Random(7)
    # A name that looks like a key share: the 32 bytes behind it are no key.
    first = hello("a" * 30 + "." + "b" * 40 + ".test")
    hellos = learned(first)
    found = 0
    for _ in range(ROUNDS):
        changed = bytearray(first)
        start = chance.randrange(len(changed))
        for at in range(start, min(len(changed), start + chance.choice((1, 1, 2, 8, 32)))):
            changed[at] = chance.randrange(256)
        known = hellos.find(bytes(changed))
        if known is not None:
            found += 1
            assert known == read(bytes(changed))
    assert found


def test_only_the_three_fields_may_differ() -> None:
    """Every byte outside of random, session id and key makes a ClientHello unknown."""
    first = hello()
    hellos = learned(first)
    session = range(44, 44 + first[43])
    key = first.find(KEY_SHARE) + len(KEY_SHARE) if KEY_SHARE in first else len(first)
    free = {*range(11, 43), *session, *range(key, key + 32)}
    for at in range(len(first)):
        changed = bytearray(first)
        changed[at] ^= 0x55
        assert (hellos.find(bytes(changed)) is not None) is (at in free), at


def test_a_name_that_holds_the_bytes_of_a_key_share_is_not_taken_for_one() -> None:
    """The key is found by the structure of the extensions, not by what it looks like."""
    hidden = b"x" * 20 + KEY_SHARE + b"k" * 32
    first = with_name(hidden, b"k")
    other = with_name(hidden, b"l")
    hellos = Hellos()
    hellos.remember(first, KnownHello(None, b""))
    assert hellos.find(first) is not None
    assert hellos.find(other) is None


def with_name(name: bytes, last: bytes) -> bytes:
    """A ClientHello whose server name ends in 32 times one byte."""
    name = name[:-32] + last * 32
    entry = b"\x00" + len(name).to_bytes(2, "big") + name
    listed = len(entry).to_bytes(2, "big") + entry
    extensions = b"\x00\x00" + len(listed).to_bytes(2, "big") + listed
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


@pytest.mark.parametrize("cut", [1, 4, 40, 200])
def test_what_is_not_one_whole_record_is_not_remembered(cut: int) -> None:
    """What came in two records, or with more behind it, is read by OpenSSL every time."""
    first = hello()
    hellos = Hellos()
    for data in (first[:-cut], first + b"\x00" * cut):
        hellos.remember(data, KnownHello(None, b""))
        assert hellos.find(data) is None


def test_memory_is_bounded() -> None:
    """Many different ClientHellos leave no more than a fixed number behind."""
    hellos = Hellos()
    for count in range(4 * MOST):
        hellos.remember(with_name(b"n" * (count + 40), b"k"), KnownHello(None, b""))
    kept = [count for count in range(4 * MOST) if hellos.find(with_name(b"n" * (count + 40), b"k"))]
    assert 0 < len(kept) <= MOST
