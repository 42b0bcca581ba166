"""What goes on to a server is read by h11, llhttp and Go as the request that was judged, or is refused by them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import h11
import httptools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irons_local.gateway.http1.authority import BadRequestError, spell
from irons_local.gateway.http1.chunks import Chunks
from irons_local.gateway.http1.heads import Head, parse_head

PROGRAM = Path(__file__).parent / "clients" / "ReadRequests.go"
NEXT = b"GET /next HTTP/1.1\r\nHost: next.test\r\n\r\n"
"""A request that follows, to show where the one before ends."""


class Read(NamedTuple):
    """One request as a reader read it."""

    method: bytes
    host: bytes
    target: bytes
    body: bytes


AFTER = Read(b"GET", b"next.test", b"/next", b"")


def by_h11(data: bytes) -> list[Read]:
    """What h11 reads."""
    found: list[Read] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    head, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                fields = dict(head.headers)
                found.append(Read(head.method, fields.get(b"host", b""), head.target, body))
                if connection.our_state is h11.SEND_RESPONSE:
                    connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                    connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return found
                connection.start_next_cycle()
            else:
                return found
    except h11.RemoteProtocolError:
        return found


class Collector:
    """What llhttp reports."""

    def __init__(self) -> None:
        self.found: list[Read] = []
        self.parser: httptools.HttpRequestParser | None = None

    def on_message_begin(self) -> None:
        """Begin."""
        self.url = self.body = self.host = b""

    def on_url(self, part: bytes) -> None:
        """More of the target."""
        self.url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field."""
        if name.lower() == b"host":
            self.host = value

    def on_body(self, part: bytes) -> None:
        """More of the body."""
        self.body += part

    def on_message_complete(self) -> None:
        """The end of one."""
        assert self.parser is not None
        self.found.append(Read(self.parser.get_method(), self.host, self.url, self.body))


def by_llhttp(data: bytes) -> list[Read]:
    """What llhttp reads."""
    collector = Collector()
    collector.parser = httptools.HttpRequestParser(collector)
    with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
        collector.parser.feed_data(data)
    return collector.found


class Go:
    """A program that reads as Go does."""

    def __init__(self, process: subprocess.Popen[bytes], into: IO[bytes], out: IO[bytes]) -> None:
        self._process, self._into, self._out = process, into, out

    def __call__(self, data: bytes) -> list[Read]:
        """What Go reads."""
        self._into.write(data.hex().encode() + b"\n")
        self._into.flush()
        return [
            Read(
                each["method"].encode("latin-1"),
                each["host"].encode(),
                each["target"].encode(),
                bytes.fromhex(each["body"]),
            )
            for each in json.loads(self._out.readline())
        ]


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Go]:
    """Go's reader, compiled."""
    made = tmp_path_factory.mktemp("go")
    env = {**os.environ, "GOCACHE": str(made / "cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
    subprocess.run(["go", "build", "-o", str(made / "read"), str(PROGRAM)], env=env, check=True, timeout=110)
    with subprocess.Popen([made / "read"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Go(process, process.stdin, process.stdout)
        process.stdin.close()


TOKEN = st.sampled_from(
    ["GET", "POST", "get", "PUT", "HEAD", "OPTIONS", "FOO", "x!y", "M-SEARCH", "PRI", "CONNECT", "SOURCE"]
)
TARGET = st.sampled_from(
    [
        "/",
        "/a?b",
        "*",
        "http://a.test/",
        "http://a.test?x",
        "http://b.test",
        "//c.test/",
        "/\xff",
        '/"x"',
        "a.test:1",
        "/a;b=%00",
    ]
)
VERSION = st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/1.9"])
FIELD = st.sampled_from(
    ["Host: a.test", "host:a.test:80", "Host:  A.test. ", "Host: b.test", "Host : a.test", "Host: [2001:db8::1]:80", " folded", "\tfolded",
     "Content-Length: 5", "Content-Length: 0", "content-length:5", "Content-Length: 05", "Content-Length: 5, 5", "Content-Length: +5", "Content-Length : 5",
     "Transfer-Encoding: chunked", "Transfer-Encoding: CHUNKED", "Transfer-Encoding: chunked, identity", "Transfer-Encoding:\x0bchunked", "Transfer_Encoding: chunked",
     "Transfer-Encoding: gzip, chunked", "Connection: close", "Connection: keep-alive, Upgrade", "Connection: upgrade, http2-settings", "Connection: host",
     "Connection: content-length", "Upgrade: websocket", "Upgrade: h2c", "Upgrade: foo, websocket", "HTTP2-Settings: AAM", "Expect: 100-continue", "X: \xff", "X:", "X: a\x0bb",
     "X-Y_Z: 1", "TE: trailers", "Trailer: X", "Proxy-Connection: keep-alive", "Content-Type: a/b", "Host: a.test:"]
)  # fmt: skip
BODY = st.sampled_from(
    [b"", b"hello", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"5;x=y\r\nhello\r\n00\r\nHost: b.test\r\nX: y\r\n\r\n", b"5\r\nhello\r\n0\r\n X: y\r\n\r\n",
     b"05\r\nhello\r\n000\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n"]
)  # fmt: skip


def goes_on(head: Head, data: bytes) -> tuple[bytes, bytes] | None:
    """What a server gets after the head, and the body it stands for; None where that is refused."""
    if head.length is not None:
        return (data[: head.length], data[: head.length]) if len(data) >= head.length else None
    chunks, left, wire = Chunks(), bytearray(data), b""
    while not chunks.done:
        part = chunks.feed(left)
        if not part:
            return None
        wire += part
    return wire, b"hello" if b"hello" in wire else b""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["h11", "llhttp", pytest.param("go", marks=pytest.mark.needs("go", optional=True))]
)
def test_servers_read_what_was_judged(request: pytest.FixtureRequest, name: str) -> None:
    """Each reader of what is let through sees the same method, host, target and body, or stops before it."""
    reader = {"h11": by_h11, "llhttp": by_llhttp}.get(name) or request.getfixturevalue("go")
    passed = 0

    @settings(
        max_examples=1500, suppress_health_check=[HealthCheck.too_slow], deadline=None, derandomize=True
    )
    @given(TOKEN, TARGET, VERSION, st.lists(FIELD, max_size=4), BODY)
    def check(method: str, target: str, version: str, fields: list[str], body: bytes) -> None:
        nonlocal passed
        text = "\r\n".join([f"{method} {target} {version}", "Host: a.test", *fields])
        try:
            head = parse_head(text.encode("latin-1") + b"\r\n\r\n")
            on = goes_on(head, body)
        except BadRequestError:
            return
        if on is None or head.websocket:
            return
        wire, meant = on
        judged = Read(head.method, spell(head.named[0]), head.target, meant)
        seen = reader(head.wire() + wire + NEXT)
        passed += bool(seen)
        if head.target.startswith(b"http://") and seen:
            # A reader may take the host from either place: they were judged to be the same or are both in the log.
            assert spell(head.named[0]).startswith(seen[0].host) or seen[0].host in {
                spell(each) for each in head.named
            }
            seen[0] = seen[0]._replace(host=judged.host)
        assert seen[:2] in ([], [judged], [judged, AFTER]), (head.wire() + wire, judged)

    check()
    assert passed > 50
