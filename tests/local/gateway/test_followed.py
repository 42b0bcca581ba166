"""The table of followed protocols in docs/egress.md, and what the gateway does: row by row."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.local.gateway.stand import Program, Stand, client_hello, retry_request
from tests.local.gateway.test_http2 import START, Client
from tests.local.gateway.test_second_hello import reached

from irons_local.gateway.http2.frames import settings

WEB, EVIL = "web.example.test", "evil.example.test"
DOCS = Path(__file__).parents[3] / "docs" / "egress.md"
REQUEST = f"GET / HTTP/1.1\r\nHost: {EVIL}\r\n\r\n".encode()
PROXY_1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
PROXY_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\xc0\0\x02\1" * 2 + b"\0\1\0\2"
MYSQL = b"\x20\0\0\1\x85\xa6\xff\x09" + b"\0" * 28
Talk = Callable[[Program, Program], None]


def say(*parts: bytes) -> Talk:
    """A client that says these, one after the other."""

    def talk(program: Program, _: Program) -> None:
        for part in parts:
            program.send(part)

    return talk


def again(program: Program, end: Program) -> None:
    """A server that asks for a second ClientHello."""
    one = client_hello(WEB)
    program.send(one)
    end.read(len(one))
    end.send(retry_request())
    program.read(len(retry_request()))
    program.send(client_hello(EVIL))


def http2(before: bytes = b"") -> Talk:
    """HTTP/2 with a server that speaks it."""

    def talk(program: Program, end: Program) -> None:
        program.send(before + START + Client().ask(1, EVIL))
        end.send(settings({}))

    return talk


def blank(*parts: bytes) -> Talk:
    """A blank line and a ClientHello, each part once the one before has gone on: held text does, after a while."""

    def talk(program: Program, end: Program) -> None:
        for part in parts:
            program.send(part)
            if part is not parts[-1]:
                assert end.read(len(part)) == part

    return talk


def ssh(program: Program, end: Program) -> None:
    """Both say SSH."""
    program.send(b"SSH-2.0-a\r\n")
    end.send(b"SSH-2.0-b\r\n")
    program.read(11)
    program.send(client_hello(EVIL))


def websocket(program: Program, end: Program) -> None:
    """Both agree to a websocket."""
    program.send(
        f"GET / HTTP/1.1\r\nHost: {WEB}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".encode()
    )
    end.until(b"\r\n\r\n")
    end.send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    program.until(b"\r\n\r\n")
    program.send(REQUEST)


def pieces(hello: bytes) -> bytes:
    """A ClientHello in two messages of TDS."""
    return b"".join(
        b"\x12\x01" + (len(part) + 8).to_bytes(2, "big") + bytes(4) + part
        for part in (hello[:60], hello[60:])
    )


FOLLOWED: dict[str, list[Talk]] = {
    "TLS from the first byte": [say(client_hello(EVIL))],
    "TLS with a second ClientHello": [again],
    "TLS after a line": [
        say(b"STARTTLS\r\n", client_hello(EVIL)),
        say(b"x\n" + client_hello(EVIL)),
        blank(b"\n" + client_hello(EVIL)),
        blank(b"\r\n\x16", client_hello(EVIL)[1:]),
        blank(b"\r\n" + client_hello(EVIL)[:5], client_hello(EVIL)[5:]),
    ],
    "TLS after a Postgres SSLRequest": [say(b"\0\0\0\x08\x04\xd2\x16\x2f" + client_hello(EVIL))],
    "TLS in the middle of a stream": [
        say(MYSQL + client_hello(EVIL)),
        *(say(MYSQL + b"\x16\x03" + minor + client_hello(EVIL)[3:]) for minor in (b"\x05", b"\xff")),
    ],
    "HTTP/1 from the first byte": [
        say(REQUEST),
        say(f"GET http://{EVIL}/ HTTP/1.1\r\nHost: {WEB}\r\n\r\n".encode()),
        say(f"GET ftp://{EVIL}/\r\n\r\n".encode()),
        say(f"CONNECT {EVIL}:443 HTTP/1.1\r\nHost: {EVIL}\r\n\r\n".encode()),
    ],
    "HTTP/2 from the first byte": [http2()],
    "HTTP or TLS after a PROXY header": [
        say(header + what) for header in (PROXY_1, PROXY_2) for what in (REQUEST, client_hello(EVIL))
    ]
    + [http2(header) for header in (PROXY_1, PROXY_2)]
    + [
        say(PROXY_2[:5], PROXY_2[5:14], PROXY_2[14:20], PROXY_2[20:] + REQUEST),
        say(PROXY_1[:9], PROXY_1[9:], REQUEST),
    ],
}
NOT_FOLLOWED: dict[str, list[Talk]] = {
    "HTTP after another line": [say(b"hello\r\n" + REQUEST)],
    "HTTP after binary data": [say(b"\0\1\2\n" + REQUEST)],
    "TLS in pieces of another protocol": [say(pieces(client_hello(EVIL)))],
    "SOCKS and other proxies": [say(b"\5\1\0", b"\5\1\0\3\x11" + EVIL.encode() + b"\1\xbb")],
    "SSH": [ssh],
    "WebSocket": [websocket],
}


def rows(title: str) -> list[str]:
    """The first column of a table."""
    text = DOCS.read_text()
    body = text[text.index(f"| {title} |") :].partition("\n\n")[0].splitlines()[2:]
    return [re.split(r" *\| *", line)[1] for line in body]


def test_the_tables_name_what_is_tested_here() -> None:
    """Each row of both tables has its cases, and nothing else has."""
    assert rows("Followed") == list(FOLLOWED)
    assert rows("Not followed") == list(NOT_FOLLOWED)


def cases(table: dict[str, list[Talk]]) -> list[object]:
    """Each case of each row."""
    return [
        pytest.param(talk, id=f"{row} {at}") for row, talks in table.items() for at, talk in enumerate(talks)
    ]


@pytest.mark.parametrize("talk", cases(FOLLOWED))
def test_what_the_docs_call_followed_is(shared: Stand, talk: Talk) -> None:
    """A second name in it never arrives, and is in the log."""
    with reached(shared, b"") as (program, end):
        talk(program, end)
        assert EVIL.encode() not in end.rest()
    assert shared.event(verdict="blocked")


@pytest.mark.parametrize("talk", cases(NOT_FOLLOWED))
def test_what_the_docs_call_not_followed_is_not(shared: Stand, talk: Talk) -> None:
    """The docs promise nothing for it: the name passes."""
    with reached(shared, b"") as (program, end):
        talk(program, end)
        program.finish()
        assert EVIL.encode()[:4] in end.rest()
