"""Bytes on their way: whole, in order, both ways, and ended as they ended."""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import threading

import pytest
from tests.e2e.lab import eventually
from tests.local.gateway.stand import BANNER, Program, Stand

WEB, MAIL, ECHO = "web.example.test", "mail.example.test", "files.example.test"
RESET = struct.pack("ii", 1, 0)


def back(program: Program, size: int) -> bytes:
    """The digest of what comes back while it is sent elsewhere."""
    digest = hashlib.sha256()
    left = size
    while left:
        data = program.sock.recv(min(left, 1 << 16))
        assert data, f"{left} bytes are missing"
        digest.update(data)
        left -= len(data)
    return digest.digest()


@pytest.mark.parametrize("first", [b"SSH-2.0-x\r\n", b"hello\n", b"\0binary"], ids=["raw", "text", "binary"])
def test_what_is_sent_comes_back_whole(shared: Stand, first: bytes) -> None:
    """Eight megabytes of chance go through and back unchanged, spliced or looked through."""
    shared.policy("deny", [f"{ECHO}:9999"])
    data = first + random.Random(2).randbytes(8_000_000)
    with shared.connect(ECHO, 9999) as program:
        sender = threading.Thread(target=program.send, args=(data,))
        sender.start()
        assert back(program, len(data)) == hashlib.sha256(data).digest()
        sender.join()
        program.finish()
        assert program.rest() == b""
    event = shared.event(host=ECHO, kind="close")
    assert (event["bytes_out"], event["bytes_in"], event["ended"]) == (len(data), len(data), "closed")


def test_a_large_body_is_passed_exactly(shared: Stand) -> None:
    """Counted bodies go on to their last byte and no further."""
    shared.policy("deny", [WEB])
    with shared.connect(WEB, 80) as program:
        program.send(
            b"POST /up HTTP/1.1\r\nHost: web.example.test\r\nContent-Length: 3000000\r\n\r\n"
            + b"x" * 3_000_000
        )
        assert b'"body": 3000000' in program.until(b"}\n")
        program.send(b"GET /next HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
        assert b"/next" in program.until(b"}\n")


def test_chunks_are_framed_anew(shared: Stand) -> None:
    """Extensions go, sizes lose their zeros, trailers stay; a broken chunk ends the connection."""
    shared.policy("deny", [f"{ECHO}:9999"])
    head = b"POST / HTTP/1.1\r\nHost: files.example.test:9999\r\nTransfer-Encoding: chunked\r\n\r\n"
    with shared.connect(ECHO, 9999) as program:
        program.send(head + b"0005;x=y\r\nhello\r\n0\r\nX-T:  1\r\n\r\n")
        assert program.until(b"X-T: 1\r\n\r\n").endswith(b"\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n")
        program.send(head + b"5\r\nhelloGET /evil HTTP/1.1\r\n")
        assert b"403 Forbidden" in program.rest()
    assert not shared.leaked("evil")


@pytest.mark.parametrize(
    "bad", [b"g\r\n", b"-1\r\n", b"0x5\r\n", b"5 5\r\n", b"5\nhello\n", b"\r\n", b"fffffffffffff\r\n"]
)
def test_bad_chunks_are_refused(shared: Stand, bad: bytes) -> None:
    """A size is hexadecimal digits, and a line ends in CR LF."""
    shared.policy("deny", [f"{ECHO}:9999"])
    with shared.connect(ECHO, 9999) as program:
        program.send(b"POST / HTTP/1.1\r\nHost: files.example.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        program.send(bad + b"evil\r\n\r\n")
        assert b"403 Forbidden" in program.rest()
    assert not shared.leaked("evil")


def test_one_side_may_close_first(shared: Stand) -> None:
    """After the client has closed its side, the server's answer still comes."""
    shared.policy("deny", [f"{ECHO}:9999"])
    with shared.connect(ECHO, 9999) as program:
        assert program.send(b"last words").finish().rest() == b"last words"


@pytest.mark.parametrize("first", [b"", b"hel", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost: web"])
def test_a_client_that_resets_is_recorded(shared: Stand, first: bytes) -> None:
    """A reset before anything was clear is an attempt like any other, and went nowhere."""
    shared.policy("deny", [f"{WEB}:80", f"{WEB}:443"])
    with shared.connect(WEB, 80) as program:
        program.send(first)
        program.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    assert shared.event(host=WEB)["ended"]
    assert not shared.arrivals()


def test_a_reset_goes_through(shared: Stand) -> None:
    """A client's reset ends the connection to the server, and the log says who it was."""
    shared.policy("deny", [f"{MAIL}:25"])
    with shared.connect(MAIL, 25) as program:
        program.read(len(BANNER))
        program.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    event = shared.event(host=MAIL, kind="close")
    assert ("reset" in event["ended"]) or event["ended"].startswith("broken")


def test_a_slow_reader_holds_up_only_itself(shared: Stand) -> None:
    """What a client does not read waits at the server, not in memory; others go on."""
    shared.policy("deny", [WEB])
    before = shared.ask("stats")["memory"]
    with shared.connect(WEB, 80) as slow:
        slow.send(b"GET /big/64 HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
        slow.sock.recv(100)
        with shared.connect(WEB, 80) as other:
            other.send(b"GET /other HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
            assert b"/other" in other.until(b"}\n")
        assert shared.ask("stats")["memory"] < before + 8_000_000
    eventually(lambda: shared.ask("stats")["connections"] == 0)
