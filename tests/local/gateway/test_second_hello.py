"""What follows a ClientHello, or the word SSH, goes on only once the server has spoken the same protocol."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.local.gateway.stand import BANNER, Program, Stand, client_hello, retry_request

WEB, EVIL, MAIL = "web.example.test", "evil.example.test", "mail.example.test"
FIRST = retry_request().replace(bytes.fromhex("cf21ad74"), b"\0\0\0\0")
"""A ServerHello that asks for nothing."""
BEFORE = {
    "at once": b"",
    "STARTTLS": b"EHLO x\r\nSTARTTLS\r\n",
    "Postgres": b"\0\0\0\x08\x04\xd2\x16\x2f",
    "MySQL": b"\x20\0\0\1" + b"\x85\xa6\xff\x09" + b"\0" * 28,
}
"""What goes before TLS."""


@contextmanager
def reached(stand: Stand, first: bytes, mode: str = "deny") -> Iterator[tuple[Program, Program]]:
    """A program that has sent `first`, and the server it reaches."""
    with stand.lab_listener("198.51.100.2") as server:
        port = server.getsockname()[1]
        pinned = {"pattern": f"{WEB}:{port}", "private": ["198.51.100.2/32"]}
        stand.policy(mode, [pinned], hosts={WEB: ["198.51.100.2"]})
        with stand.connect(WEB, port) as program:
            program.send(first)
            sock, _ = server.accept()
            sock.settimeout(60)
            with sock:
                yield program, Program(sock)


def quiet(end: Program) -> bool:
    """Nothing comes for a while."""
    end.sock.settimeout(0.3)
    try:
        return end.sock.recv(1, socket.MSG_PEEK) == b""
    except TimeoutError:
        return True
    finally:
        end.sock.settimeout(60)


@pytest.mark.parametrize("said", [b"", b"220 ready\r\n"], ids=["", "after a line"])
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE.keys())
@pytest.mark.parametrize("mode", ["deny", "warn"])
def test_two_hellos_in_one_segment(shared: Stand, before: bytes, said: bytes, mode: str) -> None:
    """The second waits for the server's answer; where that asks for it, its name is judged and recorded."""
    one, other = client_hello(WEB), client_hello(EVIL)
    with reached(shared, before + one + other, mode) as (program, end):
        assert end.read(len(before + one)) == before + one
        assert quiet(end)
        end.send(said if before else b"").send(retry_request())
        if mode == "warn":
            assert end.read(len(other)) == other
            assert shared.event(host=EVIL)["verdict"] == "warn"
        else:
            assert EVIL.encode() not in end.rest()
            assert program.rest().rstrip(b"RESET").find(b"\x15\x03") >= 0
            assert shared.event(host=EVIL)["verdict"] == "blocked"


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE.keys())
def test_what_follows_a_hello_goes_on_after_the_answer(shared: Stand, before: bytes) -> None:
    """A client's early data reaches a server that goes on without a second ClientHello."""
    one, early = client_hello(WEB), b"\x17\x03\x03\0\x05early"
    with reached(shared, before + one + early) as (program, end):
        assert end.read(len(before + one)) == before + one
        assert quiet(end)
        end.send(FIRST)
        assert program.read(len(FIRST)) == FIRST
        assert end.read(len(early)) == early
        program.send(b"\x17more")
        assert end.read(5) == b"\x17more"


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE.keys())
def test_a_second_hello_in_the_same_record_never_arrives(shared: Stand, before: bytes) -> None:
    """A record with more in it than one ClientHello is refused, and the second one's bytes reach no server."""
    both = client_hello(WEB)[5:] + client_hello(EVIL)[5:]
    record = b"\x16\x03\x01" + len(both).to_bytes(2, "big") + both
    if not before:
        shared.policy("deny", [f"{WEB}:*"])
        with shared.connect(WEB, 8080) as program:
            assert b"\x15\x03" in program.send(record).rest()
        assert not shared.arrivals()
        return
    with reached(shared, before + record) as (program, end):
        assert EVIL.encode() not in end.rest()
        assert b"\x15\x03" in program.rest()


def test_a_server_without_tls_gets_nothing_after_a_hello(shared: Stand) -> None:
    """Where the server answers a ClientHello in plain text, its words arrive and no further word of the client's does."""
    with reached(shared, client_hello(WEB)) as (program, end):
        end.read(len(client_hello(WEB)))
        end.send(b"500 what?\r\n")
        assert program.read(11) == b"500 what?\r\n"
        program.send(b"GET / HTTP/1.1\r\nHost: evil.example.test\r\n\r\n")
        assert end.rest() == b"RESET"
        assert program.rest() == b"RESET"
    assert shared.event(host=WEB, kind="close")["ended"] == "refused: the server did not answer in TLS"


@pytest.mark.parametrize("server_first", [True, False])
def test_a_server_that_refuses_a_hello_in_plain_text_ends_in_good_order(
    shared: Stand, *, server_first: bool
) -> None:
    """Its words arrive, and both sides close as they like."""
    with reached(shared, client_hello(WEB)) as (program, end):
        end.read(len(client_hello(WEB)))
        end.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        for one, other in (
            ((end, program), (program, end)) if server_first else ((program, end), (end, program))
        ):
            one.finish()
            assert other.rest().endswith(b"" if other is end else b"\r\n" if server_first else b"")
    assert shared.event(host=WEB, kind="close")["ended"] == "closed"


def test_a_server_that_closes_without_a_word_gets_nothing_more(shared: Stand) -> None:
    """What the client sent along with its ClientHello stays here."""
    one = client_hello(WEB)
    with reached(shared, one + client_hello(EVIL)) as (program, end):
        assert end.read(len(one)) == one
        end.finish()
        assert program.rest() == b""
        program.finish()
        assert end.rest() == b""


def test_a_hello_does_not_switch_inspection_off(shared: Stand) -> None:
    """STARTTLS after a ClientHello that the server took for nonsense gets nowhere."""
    shared.policy("deny", [f"{MAIL}:25"])
    with shared.connect(MAIL, 25) as program:
        assert program.read(len(BANNER)) == BANNER
        hello = client_hello(MAIL)
        program.send(hello + b"\r\nSTARTTLS\r\n" + client_hello(EVIL))
        assert program.read(len(hello)) == hello
        assert quiet(program)
    assert not shared.leaked("evil")
    assert not shared.leaked("STARTTLS")


@pytest.mark.parametrize("more", [b"", b"STARTTLS\r\n"])
@pytest.mark.parametrize("greeting", [b"", b"220 mail\r\n", b"S"])
def test_the_word_ssh_does_not_switch_inspection_off(shared: Stand, greeting: bytes, more: bytes) -> None:
    """Where the server does not speak SSH, TLS after that line is judged as ever."""
    with reached(shared, b"SSH-2.0-x\r\n") as (program, end):
        assert end.read(11) == b"SSH-2.0-x\r\n"
        end.send(greeting)
        assert program.read(len(greeting)) == greeting
        program.send(more)
        assert end.read(len(more)) == more
        program.send(client_hello(EVIL))
        assert EVIL.encode() not in end.rest()
        assert b"\x15\x03" in program.rest()
    assert shared.event(host=EVIL)["verdict"] == "blocked"


@pytest.mark.parametrize("server_first", [True, False])
def test_ssh_on_both_sides_is_left_alone(shared: Stand, *, server_first: bool) -> None:
    """Once both have sent SSH's banner nothing is looked for: what looks like TLS in it passes."""
    with reached(shared, b"" if server_first else b"SSH-2.0-me\r\n") as (program, end):
        end.send(b"SSH-2.0-you\r\n")
        assert program.read(13) == b"SSH-2.0-you\r\n"
        if server_first:
            program.send(b"SSH-2.0-me\r\n")
        assert end.read(12) == b"SSH-2.0-me\r\n"
        program.send(b"\0\0key")
        assert end.read(5) == b"\0\0key"
        hello = client_hello(EVIL)
        program.send(hello)
        assert end.read(len(hello)) == hello
