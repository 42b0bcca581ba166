"""What a proxy answers to CONNECT, and what of its answers in absolute form is passed on, within bounds."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.http1.absolute import AnswerError, Forwarding, passed_on, rewritten
from irons_local.gateway.http1.heads import parse_head
from irons_local.gateway.reach import tunnel
from irons_local.gateway.reach.dial import DialError
from irons_local.gateway.reach.tunnel import MOST_ANSWER, ProxyRefusedError, authority, connect, request
from irons_local.gateway.streams.stream import Wire
from irons_policy.hostnames import canonical_host

OK = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"


def ask(*answers: bytes, end: bool = False) -> tuple[bytes, bytes]:
    """Ask a proxy that answers piece by piece; what it was sent, and what is left for the connection."""
    loop = FairLoop()

    async def main() -> tuple[bytes, bytes]:
        near, far = socket.socketpair()
        wire = Wire(loop, near)
        with far, closing(wire):
            asking = asyncio.ensure_future(connect(wire, b"203.0.113.10:443", b"Basic eA=="))
            for answer in answers:
                for _ in range(3):
                    await asyncio.sleep(0)
                with suppress(ConnectionError):
                    far.sendall(answer)
            if end:
                far.shutdown(socket.SHUT_WR)
            await asking
            near.setblocking(False)
            try:
                rest = near.recv(100)
            except BlockingIOError:
                rest = b""
            return far.recv(1000), rest

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main())


def test_the_request_names_the_target_and_nothing_else() -> None:
    """Host and target are the same; credentials are there where they are set."""
    sent, rest = ask(OK)
    assert sent == (
        b"CONNECT 203.0.113.10:443 HTTP/1.1\r\nHost: 203.0.113.10:443\r\nProxy-Authorization: Basic eA==\r\n\r\n"
    )
    assert rest == b""
    assert b"Authorization" not in request(b"a:1", None)
    assert authority(canonical_host("2001:db8::1"), 443) == b"[2001:db8::1]:443"
    assert authority(canonical_host("Web.Test"), 25) == b"web.test:25"


def test_not_a_byte_of_what_follows_is_taken() -> None:
    """However the answer is cut, the server's first words stay for the connection."""
    data = OK + b"220 mail\r\n\r\n"
    assert ask(data)[1] == b"220 mail\r\n\r\n"
    assert ask(*(data[at : at + 1] for at in range(len(data))))[1].startswith(b"2")
    assert ask(b"HTTP/1.1 100 Continue\r\n\r\n" + data)[1] == b"220 mail\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "user and password"),
        (b"HTTP/1.1 403 No\r\n\r\n", "status 403"),
        (b"HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n", "status 302"),
        (b"HTTP/2 200\r\n\r\n", "does not speak HTTP"),
        (b"SSH-2.0-x\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000, "too large"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, "status 100"),
    ],
)
def test_any_other_answer_is_a_server_that_was_not_reached(answer: bytes, why: str) -> None:
    """Refusals, other protocols, endless heads and endless patience end with the reason."""
    with pytest.raises(DialError, match=why):
        ask(answer)


def test_a_proxy_that_closes_or_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an answer and none in time are no answer."""
    with pytest.raises(DialError, match="closed"):
        ask(b"HTTP/1.1 200", end=True)
    monkeypatch.setattr(tunnel, "ANSWER_TIMEOUT", 0.05)
    with pytest.raises(DialError, match="in time"):
        ask(b"HTTP/1.1 200")


@given(st.binary(max_size=300))
def test_any_answer_is_survived(data: bytes) -> None:
    """Hostile bytes are an answer or none."""
    with pytest.raises(DialError):
        ask(b"HTTP/1.1 500 " + data, end=True)
    assert MOST_ANSWER < 1 << 20
    assert issubclass(ProxyRefusedError, DialError)


WAY = Forwarding(b"203.0.113.10", b"Basic eA==")
"""How requests go to a proxy that takes them in absolute form."""


@pytest.mark.parametrize(
    ("first", "goes_on"),
    [
        ("GET /a?b=http://x/y HTTP/1.1", b"GET http://203.0.113.10/a?b=http://x/y HTTP/1.1"),
        ("GET http://web.test/a HTTP/1.1", b"GET http://203.0.113.10/a HTTP/1.1"),
        ("GET http://web.test HTTP/1.1", b"GET http://203.0.113.10/ HTTP/1.1"),
        ("OPTIONS * HTTP/1.1", b"OPTIONS http://203.0.113.10 HTTP/1.1"),
    ],
)
def test_a_request_goes_on_for_the_checked_address(first: str, goes_on: bytes) -> None:
    """The target is the address, the host the name; nothing that the client says to a proxy goes on."""
    raw = (
        f"{first}\r\nHost: web.test\r\nProxy-Authorization: mine\r\nProxy-Connection: keep-alive\r\n"
        "Keep-Alive: 5\r\nConnection: keep-alive\r\nAccept: x\r\n\r\n"
    )
    lines = rewritten(parse_head(raw.encode()), WAY).wire().split(b"\r\n")
    assert lines == [
        goes_on,
        b"Host: web.test",
        b"Accept: x",
        b"Connection: close",
        b"Proxy-Authorization: Basic eA==",
        b"",
        b"",
    ]


def test_an_answer_shows_nothing_of_the_proxy() -> None:
    """Its fields are left out, and the answer is the last on its connection; the proxy's own answers are none."""
    head = (
        b"HTTP/1.1 200 OK\r\nVia: 1.1 corp\r\nProxy-Connection: keep-alive\r\nconnection: keep-alive\r\n"
        b"X-Cache: MISS from corp\r\nX-Cache-Lookup: NONE\r\nContent-Length: 2\r\n\r\n"
    )
    assert passed_on(head) == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    assert passed_on(b"HTTP/1.0 403 No\r\n\r\n") == b"HTTP/1.0 403 No\r\nConnection: close\r\n\r\n"
    for own in (
        b"HTTP/1.1 407 x\r\n\r\n",
        b"HTTP/1.1 504 x\r\n\r\n",
        b"HTTP/1.1 403 x\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\n\r\n",
        b"HTTP/1.1 200 x\r\nproxy-authenticate: Basic\r\n\r\n",
    ):
        with pytest.raises(AnswerError, match="upstream proxy"):
            passed_on(own)
