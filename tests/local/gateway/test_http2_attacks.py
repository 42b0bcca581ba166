"""HTTP/2 in the clear that tries to reach another host or to cost too much; judged by what arrived."""

from __future__ import annotations

import pytest
from tests.local.gateway.stand import Program, Stand
from tests.local.gateway.test_http2 import START, Client, cut, rapid
from tests.local.gateway.test_second_hello import reached
from tests.local.gateway.test_tls import hello

from irons_local.gateway.http2 import frames as h2
from irons_local.gateway.http2.frames import frame, settings

WEB, EVIL = "web.example.test", "evil.example.test"


def frames_until(program: Program, kind: int) -> list[tuple[int, int, bytes]]:
    """Frames up to the first of a type."""
    found: list[tuple[int, int, bytes]] = []
    while not found or found[-1][0] != kind:
        head = program.read(h2.HEAD)
        assert len(head) == h2.HEAD, found
        size = int.from_bytes(head[:3], "big")
        found.append((head[3], int.from_bytes(head[5:], "big"), program.read(size)))
    return found


@pytest.mark.parametrize("bytewise", [True, False])
def test_what_a_refused_request_inserted_never_reaches_the_server(shared: Stand, *, bytewise: bool) -> None:
    """Not by index either: after it no header block goes on, and an earlier request is still answered."""
    client = Client()
    first = START + client.ask(1, WEB, end=False)
    more = client.ask(3, EVIL, ("x-secret", "inserted")) + client.ask(5, WEB, ("x-secret", "inserted"))
    more += frame(h2.DATA, h2.END_STREAM, 1, b"body")
    parts = [first, more]
    with reached(shared, b"") as (program, end):
        end.send(settings({}))
        for part in parts:
            for at in range(0, len(part), 1 if bytewise else len(part)):
                program.send(part[at : at + (1 if bytewise else len(part))])
        got = end.read(len(h2.PREFACE) + 30 + len(first) - len(START) + 13)
        assert got.endswith(frame(h2.DATA, h2.END_STREAM, 1, b"body"))
        assert [piece.stream for piece in cut(got) if piece.kind == h2.HEADERS] == [1]
        answered = frames_until(program, h2.RST_STREAM)
        assert (h2.HEADERS, 3) in {each[:2] for each in answered}
        end.send(frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, b"\x88"))
        assert frames_until(program, h2.HEADERS)[-1][1:] == (1, b"\x88")
        assert program.finish().rest() == b""
        assert end.rest() == b""
    assert shared.event(host=EVIL, verdict="blocked")["cause"] == "second-name"
    assert shared.event(host=WEB, kind="close")["ended"] == "closed"


def test_in_warn_each_other_authority_has_its_event(shared: Stand) -> None:
    """All of them pass."""
    client = Client()
    said = START + client.ask(1, WEB) + client.ask(3, EVIL) + client.ask(5, "other.example.test")
    with reached(shared, said, "warn") as (_, end):
        end.send(settings({}))
        got = end.read(len(said) + 21)
        assert [piece.stream for piece in cut(got) if piece.kind == h2.HEADERS] == [1, 3, 5]
    for host in (EVIL, "other.example.test"):
        assert shared.event(host=host)["verdict"] == "warn"


@pytest.mark.parametrize("port", [80, 443])
def test_the_ports_of_http_and_tls_send_it_away(shared: Stand, port: int) -> None:
    """By a GOAWAY, and nothing arrives."""
    shared.policy("warn")
    with shared.connect(WEB, port) as program:
        program.send(START + Client().ask(1, WEB))
        _, _, payload = frames_until(program, h2.GOAWAY)[-1]
        assert int.from_bytes(payload[4:8], "big") == h2.HTTP_1_1_REQUIRED
    assert not shared.arrivals()
    assert shared.event(host=WEB, port=port, verdict="blocked")["cause"] == "protocol"


FLOODS = {
    "CONTINUATION": (frame(h2.HEADERS, 0, 1, b"") + frame(h2.CONTINUATION, 0, 1, b"") * 40, "cap"),
    "malformed block": (frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff" * 9), "malformed"),
}


@pytest.mark.parametrize(("flood", "cause"), FLOODS.values(), ids=FLOODS.keys())
def test_what_breaks_the_protocol_ends_the_connection(shared: Stand, flood: bytes, cause: str) -> None:
    """With a GOAWAY and an event, before a server is dialled."""
    shared.policy("deny", [f"{WEB}:8080"])
    with shared.connect(WEB, 8080) as program:
        program.send(START + flood)
        program.rest()
    event = shared.event(host=WEB, port=8080, verdict="blocked", cause=cause)
    assert event["reason"].startswith("malformed HTTP/2: ")


def test_a_flood_of_resets_ends_the_connection(shared: Stand) -> None:
    """In the same way, with a server there."""
    with reached(shared, START + rapid(2_000, WEB)) as (program, end):
        end.send(settings({}))
        program.rest()
    event = shared.event(host=WEB, verdict="blocked", cause="cap")
    assert event["reason"].startswith("malformed HTTP/2: ")


@pytest.mark.parametrize("greeting", [b"", b"220 mail ESMTP\r\n"], ids=["silent", "a greeting"])
@pytest.mark.parametrize("late", [False, True])
def test_nothing_is_said_to_a_server_before_it_has_shown_that_it_speaks_http_2(
    shared: Stand, greeting: bytes, *, late: bool
) -> None:
    """On the client's word alone a line that begins TLS, and a ClientHello, would pass unseen in a body."""
    begun = (
        START + Client().ask(1, WEB, end=False) + frame(h2.DATA, 0, 1, b"\nSTARTTLS\r\n" + bytes(3000))[:21]
    )
    with reached(shared, b"" if late else begun) as (program, end):
        if late:
            program.send(begun)
        assert end.read(len(h2.PREFACE)) == h2.PREFACE
        end.send(greeting)
        if not greeting:
            end.send(b"220 go on\r\n")
        program.send(hello(EVIL))
        got = end.rest()
        assert b"STARTTLS" not in got
        assert b"evil" not in got
        assert frames_until(program, h2.GOAWAY)
    event = shared.event(host=WEB, verdict="blocked", cause="protocol")
    assert event["reason"] == "the server does not speak HTTP/2"


def test_a_server_that_speaks_otherwise_gets_no_http_2(shared: Stand) -> None:
    """Where it has greeted in another protocol, the preface goes nowhere."""
    with reached(shared, b"") as (program, end):
        end.send(b"220 hello\r\n")
        assert program.read(11) == b"220 hello\r\n"
        program.send(START + Client().ask(1, WEB))
        assert end.rest() in {b"", b"RESET"}


def test_what_begins_like_it_and_is_not_is_refused(shared: Stand) -> None:
    """The preface is exact, or it is a request of HTTP/1 that is not let through."""
    shared.policy("deny", [f"{WEB}:8080"])
    answer = shared.http(WEB, "PRI * HTTP/2.0\n\nXX\n\n", 8080)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert not shared.arrivals()
