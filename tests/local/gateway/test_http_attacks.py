"""HTTP requests that try to reach another host over a connection to an allowed one; judged by what arrived."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.local.gateway.stand import Program, Stand


@contextmanager
def reached(stand: Stand) -> Iterator[tuple[Program, Callable[[], Program]]]:
    """A program at an allowed name, and how to get hold of the server that it reaches."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(stand.lab_listener("198.51.100.2"))
        port = server.getsockname()[1]
        pinned = {"pattern": f"{WEB}:{port}", "private": ["198.51.100.2/32"]}
        stand.policy("deny", [pinned], hosts={WEB: ["198.51.100.2"]})

        def accept() -> Program:
            sock = stack.enter_context(server.accept()[0])
            sock.settimeout(60)
            return Program(sock)

        yield stack.enter_context(stand.connect(WEB, port)), accept


WEB, EVIL = "web.example.test", "evil.example.test"

REFUSED = {
    "host": "GET / HTTP/1.1\nHost: evil.example.test\n\n",
    "absolute": "GET http://evil.example.test/ HTTP/1.1\nHost: web.example.test\n\n",
    "absolute, both": "GET http://evil.example.test/ HTTP/1.1\nHost: evil.example.test\n\n",
    "absolute, user": "GET http://web.example.test@evil.example.test/ HTTP/1.1\nHost: web.example.test\n\n",
    "absolute, query": "GET http://evil.example.test?@web.example.test/ HTTP/1.1\nHost: web.example.test\n\n",
    "absolute, other scheme": "GET ftp://web.example.test/evil HTTP/1.1\nHost: web.example.test\n\n",
    "absolute, https": "GET https://web.example.test/evil HTTP/1.1\nHost: web.example.test\n\n",
    "host twice": "GET / HTTP/1.1\nHost: web.example.test\nHost: evil.example.test\n\n",
    "host twice, evil first": "GET / HTTP/1.1\nHost: evil.example.test\nHost: web.example.test\n\n",
    "host with a word for a port": "GET / HTTP/1.1\nHost: web.example.test:evil\n\n",
    "host with a great port": "GET /evil HTTP/1.1\nHost: web.example.test:99999\n\n",
    "host in brackets": "GET /evil HTTP/1.1\nHost: [web.example.test]\n\n",
    "host in double brackets": "GET /evil HTTP/1.1\nHost: [[web.example.test]]\n\n",
    "host with a user": "GET / HTTP/1.1\nHost: web.example.test@evil.example.test\n\n",
    "host with a list": "GET / HTTP/1.1\nHost: web.example.test, evil.example.test\n\n",
    "host empty": "GET /evil HTTP/1.1\nHost:\n\n",
    "no host": "GET /evil HTTP/1.1\nAccept: */*\n\n",
    "host folded": "GET / HTTP/1.1\nHost: web.example.test\n evil.example.test\n\n",
    "field folded": "GET /evil HTTP/1.1\nHost: web.example.test\nX: a\n b\n\n",
    "space before the colon": "GET /evil HTTP/1.1\nHost : web.example.test\n\n",
    "length and chunks": "POST /evil HTTP/1.1\nHost: web.example.test\nContent-Length: 3\nTransfer-Encoding: chunked\n\n0\n\n",
    "two lengths": "POST /evil HTTP/1.1\nHost: web.example.test\nContent-Length: 0\nContent-Length: 3\n\n",
    "length signed": "POST /evil HTTP/1.1\nHost: web.example.test\nContent-Length: +0\n\n",
    "chunked by another name": "POST /evil HTTP/1.1\nHost: web.example.test\nTransfer-Encoding: xchunked\n\n",
    "chunked twice": "POST /evil HTTP/1.1\nHost: web.example.test\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n",
    "chunked in HTTP/1.0": "POST /evil HTTP/1.0\nHost: web.example.test\nTransfer-Encoding: chunked\n\n0\n\n",
    "connect": "CONNECT evil.example.test:443 HTTP/1.1\nHost: evil.example.test\n\n",
    "connect, allowed": "CONNECT web.example.test:443 HTTP/1.1\nHost: web.example.test\n\n",
    "empty line first": "\nGET / HTTP/1.1\nHost: evil.example.test\n\n",
    "many empty lines first": "\n" * 40 + "GET / HTTP/1.1\nHost: evil.example.test\n\n",
    "method unknown": "FOO / HTTP/1.1\nHost: evil.example.test\n\n",
    "method in lower case": "get / HTTP/1.1\nHost: evil.example.test\n\n",
    "version unknown": "GET /evil HTTP/3.7\nHost: evil.example.test\n\n",
    "version in lower case": "GET / http/1.1\nHost: evil.example.test\n\n",
    "tabs for spaces": "GET\t/\tHTTP/1.1\nHost: evil.example.test\n\n",
    "absolute, without a version": "GET http://evil.example.test/\n\n",
    "fragment": "GET /#evil HTTP/1.1\nHost: web.example.test\n\n",
    "control byte in the line": "GET /\x01 HTTP/1.1\nHost: evil.example.test\n\n",
    "host with an underlined port": "GET /evil HTTP/1.1\nHost: web.example.test:8_0\n\n",
    "host by number": "GET / HTTP/1.1\nHost: 203.0.113.66\n\n",
    "host by great number": "GET /evil HTTP/1.1\nHost: 3405803842\n\n",
    "host by hexadecimal": "GET /evil HTTP/1.1\nHost: 0xcb007142\n\n",
}


@pytest.mark.parametrize("port", [80, 8080])
@pytest.mark.parametrize("attack", REFUSED.values(), ids=REFUSED.keys())
def test_nothing_of_a_bad_request_gets_out(shared: Stand, attack: str, port: int) -> None:
    """It is answered by a 403 and an event, and the server hears nothing of it."""
    shared.policy("deny", [f"{WEB}:80", f"{WEB}:8080"])
    answer = shared.http(WEB, attack, port)
    assert answer.startswith(b"HTTP/1.1 403 "), answer
    assert not shared.leaked("evil")
    event = shared.event(verdict="blocked", port=port)
    assert (event["protocol"], event["allowed"]) == ("http", False)


@pytest.mark.parametrize(
    "attack",
    [
        "GET / HTTP/1.1\nX: y\r\r\nHost: web.example.test\n\n",
        "GET / HTTP/1.1\nX: a\0b\nHost: web.example.test\n\n",
    ],
    ids=["lone CR", "NUL"],
)
def test_odd_bytes_in_a_head_are_refused(shared: Stand, attack: str) -> None:
    """A head with a lone CR or a NUL is refused."""
    shared.policy("deny", [WEB])
    assert shared.http(WEB, attack).startswith(b"HTTP/1.1 403 ")
    assert not shared.arrivals()


def test_lines_that_end_in_lf_alone_are_refused(shared: Stand) -> None:
    """A head whose lines end in LF alone is refused."""
    shared.policy("deny", [WEB])
    with shared.connect(WEB, 80) as program:
        program.send(b"GET / HTTP/1.1\nHost: web.example.test\n\n\r\n\r\n")
        assert program.rest().startswith(b"HTTP/1.1 403 ")
    assert not shared.arrivals()


@pytest.mark.parametrize("pipelined", [True, False])
def test_a_later_request_for_another_host_is_refused(shared: Stand, *, pipelined: bool) -> None:
    """On a connection kept alive the first request is answered, and one for another host is not passed on."""
    shared.policy("deny", [WEB])
    first = b"GET /one HTTP/1.1\r\nHost: web.example.test\r\n\r\n"
    second = b"GET /two HTTP/1.1\r\nHost: evil.example.test\r\n\r\n"
    with shared.connect(WEB, 80) as program:
        if pipelined:
            program.send(first + second)
        else:
            program.send(first)
            assert b"GET /one" in program.until(b"}\n")
            program.send(second)
        answer = program.rest()
    assert b"403 Forbidden" in answer
    assert not shared.leaked("/two")
    assert shared.leaked("/one")
    shared.event(host=EVIL, verdict="blocked")
    assert shared.event(host=WEB, kind="close")["ended"].startswith("refused: evil.example.test")


def test_requests_that_agree_pass_one_after_another(shared: Stand) -> None:
    """Bodies of every framing pass, and the head goes on in one spelling."""
    shared.policy("deny", [WEB])
    with shared.connect(WEB, 80) as program:
        program.send(
            b"\r\nPOST /length HTTP/1.1\r\nhost:  WEB.example.test.:80 \r\nContent-Length: 5\r\n\r\nhello"
        )
        assert b'"body": 5' in program.until(b"}\n")
        program.send(b"GET /r?u=http://evil.example.test/ HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
        assert b"/r?u=http" in program.until(b"}\n")
        program.send(b"GET http://web.example.test/absolute HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
        assert b"http://web.example.test/absolute" in program.until(b"}\n")
    assert [each["host"] for each in shared.arrivals() if each["kind"] == "http"] == [f"{WEB}:80", WEB, WEB]


@pytest.mark.parametrize("framing", ["Content-Length: 2", "Transfer-Encoding: chunked"])
def test_a_head_does_not_wait_for_its_body(shared: Stand, framing: str) -> None:
    """The server hears of a request whose client waits to be asked for the body."""
    with shared.lab_listener("198.51.100.2") as server:
        port = server.getsockname()[1]
        pinned = {"pattern": f"{WEB}:{port}", "private": ["198.51.100.2/32"]}
        shared.policy("deny", [pinned], hosts={WEB: ["198.51.100.2"]})
        with shared.connect(WEB, port) as program:
            program.send(
                f"PUT / HTTP/1.1\r\nHost: {WEB}\r\nExpect: 100-continue\r\n{framing}\r\n\r\n".encode()
            )
            reached, _ = server.accept()
            with reached:
                reached.settimeout(60)
                assert b"100-continue" in Program(reached).until(b"\r\n\r\n")
                reached.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                assert program.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")


def test_a_head_may_come_byte_by_byte(shared: Stand) -> None:
    """A slow head is put together before it is judged."""
    shared.policy("deny", [WEB])
    with shared.connect(WEB, 80) as program:
        for byte in b"GET /slow HTTP/1.1\r\nHost: web.example.test\r\n\r\n":
            program.send(bytes([byte]))
        assert program.until(b"\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_websocket_becomes_raw_only_when_the_server_agrees(shared: Stand) -> None:
    """After a 101 both sides may say anything; bytes sent along with the request wait for it."""
    shared.policy("deny", [WEB])
    with shared.connect(WEB, 80) as program:
        program.send(
            b"GET /ws HTTP/1.1\r\nHost: web.example.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
            b"\x81\x05early"
        )
        assert program.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        assert program.read(7) == b"\x81\x05early"
        program.send(b"\x81\x04late")
        assert program.read(6) == b"\x81\x04late"


def test_a_websocket_the_server_declines_ends(shared: Stand) -> None:
    """Without a 101 nothing after the request goes on: a smuggled second request never arrives."""
    shared.policy("deny", ["web.example.test:9999"])
    with shared.connect(WEB, 9999) as program:
        program.send(
            b"GET /ws HTTP/1.1\r\nHost: web.example.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            b"GET / HTTP/1.1\r\nHost: evil.example.test\r\n\r\n"
        )
        # The server gives back what it gets: a head, but no 101.
        assert b"GET /ws HTTP/1.1" in program.rest()
    assert not shared.leaked("evil")
    assert "upgrade" in shared.event(host=WEB, port=9999, kind="close")["ended"]


UPGRADES = {
    # What the HTTP client of JDK 17 sends by default.
    "JDK": "Connection: Upgrade, HTTP2-Settings\nContent-Length: 0\nHTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\nUpgrade: h2c\nUser-Agent: Java-http-client/17.0.15\n",
    "h2c": "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\n",
    "anything": "Connection: upgrade\nUpgrade: foo\n",
    "TLS": "Connection: upgrade\nUpgrade: TLS/1.2\n",
    "websocket, not asked of this connection": "Upgrade: websocket\n",
    "websocket with a body": "Connection: upgrade\nUpgrade: websocket\nContent-Length: 3\n",
}


@pytest.mark.parametrize("fields", UPGRADES.values(), ids=UPGRADES.keys())
def test_an_upgrade_that_may_be_ignored_never_arrives(shared: Stand, fields: str) -> None:
    """The request passes without it, and what follows is judged as a request."""
    with reached(shared) as (program, end):
        body = "abc" if "Length: 3" in fields else ""
        program.send(
            f"GET /one HTTP/1.1\nHost: {WEB}\n{fields}\n{body}GET /two HTTP/1.1\nHost: {EVIL}\n\n".replace(
                "\n", "\r\n"
            ).encode()
        )
        got = end().rest()
        assert got.startswith(b"GET /one HTTP/1.1\r\nHost: web.example.test\r\n")
        assert b"upgrade" not in got.lower()
        assert b"http2-settings" not in got.lower()
        assert b"evil" not in got
        assert b"403 Forbidden" in program.rest()


def test_an_upgrade_on_a_used_connection_is_not_asked_for(shared: Stand) -> None:
    """Only the first request of a connection may become a websocket; a later one passes as the request that it is."""
    shared.policy("deny", [WEB])
    with shared.connect(WEB, 80) as program:
        program.send(b"GET /one HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
        program.until(b"}\n")
        program.send(
            b"GET /ws HTTP/1.1\r\nHost: web.example.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        assert b"HTTP/1.1 200 OK" in program.until(b"}\n")


def test_fields_that_frame_a_request_are_no_trailers(shared: Stand) -> None:
    """A Host or a length after a chunked body is dropped, and the next request is read where it begins."""
    with reached(shared) as (program, end):
        program.send(
            b"POST / HTTP/1.1\r\nHost: web.example.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
            b"Host: evil.example.test\r\nContent-Length: 100\r\nX: y\r\n\r\n" + SMUGGLED
        )
        got = end().rest()
        assert got.removesuffix(b"RESET").endswith(b"\r\n\r\n0\r\nX: y\r\n\r\n")
        assert b"403 Forbidden" in program.rest()


SMUGGLED = b"GET /two HTTP/1.1\r\nHost: evil.example.test\r\n\r\n"
CHUNKED = {
    "hexadecimal prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "space after": b"5 \r\nhello\r\n0\r\n\r\n",
    "no number": b"\r\nhello\r\n0\r\n\r\n",
    "underline": b"0_5\r\nhello\r\n0\r\n\r\n",
    "thirteen digits": b"0000000000005\r\nhello\r\n0\r\n\r\n",
    "LF alone": b"5\nhello\n0\n\n",
    "lone CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "longer than it says": b"5\r\nhelloworld\r\n0\r\n\r\n",
    "shorter than it says": b"8\r\nhello\r\n0\r\n\r\n",
    "an endless extension": b"5;" + b"a" * 70_000 + b"\r\nhello\r\n0\r\n\r\n",
    "trailer folded": b"0\r\nX: a\r\n b\r\n\r\n",
    "trailer with LF alone": b"0\r\nX: a\nY: b\r\n\r\n",
    "endless trailer": b"0\r\n" + b"X: a\r\n" * 300 + b"\r\n",
}


@pytest.mark.parametrize("body", CHUNKED.values(), ids=CHUNKED.keys())
def test_a_body_with_two_readings_hides_no_request(shared: Stand, body: bytes) -> None:
    """Where the end of a chunked body is not beyond doubt the connection ends there: what may be a second request never arrives."""
    shared.policy("deny", [WEB])
    with shared.connect(WEB, 80) as program:
        program.send(
            b"POST /one HTTP/1.1\r\nHost: web.example.test\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        )
        program.send(SMUGGLED)
        assert b"403 Forbidden" in program.rest()
    assert not shared.leaked("evil")
    assert not shared.leaked("/two")
    event = shared.event(verdict="blocked")
    assert (event["host"], event["protocol"]) == (WEB, "http")


def test_chunks_that_are_beyond_doubt_pass(shared: Stand) -> None:
    """A chunked body with an extension and a trailer, and a request right after it, are two requests to the same host."""
    shared.policy("deny", [WEB])
    with shared.lab_listener("198.51.100.2") as server:
        port = server.getsockname()[1]
        pinned = {"pattern": f"{WEB}:{port}", "private": ["198.51.100.2/32"]}
        shared.policy("deny", [pinned], hosts={WEB: ["198.51.100.2"]})
        with shared.connect(WEB, port) as program:
            program.send(
                b"POST /one HTTP/1.1\r\nHost: web.example.test\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"5;a=b\r\nhello\r\n0\r\nX:  c \r\n\r\nGET /two HTTP/1.1\r\nHost: web.example.test\r\n\r\n"
            )
            reached, _ = server.accept()
            with reached:
                heard = Program(reached).until(b"/two HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
    assert heard.partition(b"\r\n\r\n")[2].startswith(b"5\r\nhello\r\n0\r\nX: c\r\n\r\nGET /two")


@pytest.mark.parametrize("port", [9999, 8080])
def test_a_request_whose_first_line_comes_in_pieces_is_refused(shared: Stand, port: int) -> None:
    """Where the beginning of a line had to go on because it did not end in time, no request comes out of it behind that."""
    shared.policy("deny", [f"{WEB}:*"])
    with shared.connect(WEB, port) as program:
        program.send(b"GE")
        assert program.read(2) == b"GE"
        program.send(b"T / HTTP/1.1\r\nHost: evil.example.test\r\n\r\n")
        assert b"evil" not in program.rest()
    assert not shared.leaked("evil")
    assert "refused" in shared.event(host=WEB, kind="close", port=port)["ended"]


@pytest.mark.parametrize(
    ("attack", "host", "cause"),
    [
        ("CONNECT evil.example.test:443 HTTP/1.1\nHost: evil.example.test\n\n", EVIL, "protocol"),
        ("GET http://evil.example.test/ HTTP/1.1\nHost: evil.example.test\n\n", EVIL, "second-name"),
        ("GET ftp://evil.example.test/ HTTP/1.1\nHost: evil.example.test\n\n", EVIL, "protocol"),
    ],
)
def test_a_request_to_a_proxy_is_refused_with_a_reason_of_its_own(
    shared: Stand, attack: str, host: str, cause: str
) -> None:
    """It is well formed, and an allowed proxy would hide which host it asks."""
    shared.policy("deny", [f"{WEB}:8080"])
    answer = shared.http(WEB, attack, 8080)
    assert b"a proxy would hide which host it asks" in answer
    assert b"malformed" not in answer
    event = shared.event(host=host, verdict="blocked")
    assert event["cause"] == cause
    assert event["reason"].endswith("a proxy would hide which host it asks")
    assert not shared.leaked("evil")
