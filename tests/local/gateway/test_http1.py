"""The grammar of request heads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_plugins.local.gateway.http1 import (
    BadRequestError,
    parse_authority,
    parse_head,
    parse_trailer,
)


def head(text: str) -> bytes:
    """A head with CR LF for each line's end."""
    return text.replace("\n", "\r\n").encode("latin-1")


def test_a_head_is_written_anew() -> None:
    """What goes on is what was understood: one spelling of the host, one space after each colon."""
    found = parse_head(head("GET /a?b=c HTTP/1.1\nACCEPT:*/*  \nhost:WEB.Example.Test.:80\nX-Y:  1\n\n"))
    assert found.wire() == head("GET /a?b=c HTTP/1.1\nHost: web.example.test:80\nACCEPT: */*\nX-Y: 1\n\n")
    assert (found.length, found.websocket) == (0, False)


def test_an_absolute_target_is_spelled_anew() -> None:
    """Its authority is canonical, and an empty path becomes a slash."""
    found = parse_head(head("GET http://WEB.test?x HTTP/1.1\nHost: web.test\n\n"))
    assert found.wire().startswith(b"GET http://web.test/?x HTTP/1.1\r\n")
    assert [each.text for each in found.hosts] == ["web.test", "web.test"]


def test_http_1_0_may_do_without_a_host() -> None:
    """Only HTTP/1.1 must say one."""
    found = parse_head(head("GET / HTTP/1.0\n\n"))
    assert (found.host, found.minor) == (None, 0)
    with pytest.raises(BadRequestError, match="no Host"):
        parse_head(head("GET / HTTP/1.1\n\n"))


@pytest.mark.parametrize(
    "raw", ["a", "a.b:1", "203.0.113.7", "[2001:db8::1]", "[2001:db8::1]:443", "a_b.c", "A.B."]
)
def test_authorities(raw: str) -> None:
    """A host and perhaps a port."""
    assert parse_authority(raw.encode()).host.text


@pytest.mark.parametrize(
    "raw",
    [
        "",
        ":80",
        "a:",
        "a:b",
        "a:0",
        "a:65536",
        "a b",
        "a@b",
        "a/b",
        "[a]",
        "[[a]]",
        "a..b",
        "[::1",
        "::1",
        "a:1:2",
        "a%62",
    ],
)
def test_what_is_no_authority(raw: str) -> None:
    """Everything else is refused."""
    with pytest.raises(BadRequestError):
        parse_authority(raw.encode())


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ("", 0),
        ("Content-Length: 0\n", 0),
        ("Content-Length: 12\n", 12),
        ("Transfer-Encoding: Chunked\n", None),
    ],
)
def test_lengths_of_bodies(fields: str, length: int | None) -> None:
    """One way of saying it, exactly."""
    assert parse_head(head(f"POST / HTTP/1.1\nHost: a\n{fields}\n")).length == length


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 1, 1\n",
        "Content-Length: 0x1\n",
        "Content-Length: 1 1\n",
        "Content-Length:\n",
        "Content-Length: 9999999999999999999\n",
        "Transfer-Encoding: gzip, chunked\n",
        "Transfer-Encoding: identity\n",
        "Transfer-Encoding: chunked\nContent-Length: 1\n",
    ],
)
def test_ambiguous_lengths_are_refused(fields: str) -> None:
    """Whatever two servers might read differently."""
    with pytest.raises(BadRequestError):
        parse_head(head(f"POST / HTTP/1.1\nHost: a\n{fields}\n"))


def test_trailers() -> None:
    """Ordinary fields pass, those that change how a request is read do not."""
    assert parse_trailer(b"X:  y \r\nZ: 1") == ((b"X", b"y"), (b"Z", b"1"))
    for raw in (b"Host: b", b"content-length: 1", b"a b: c", b"nothing", b"X: a\nb", b"X: \x01"):
        with pytest.raises(BadRequestError):
            parse_trailer(raw)


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(data: bytes) -> None:
    """Hostile bytes are a request or they are refused."""
    try:
        found = parse_head(data)
    except BadRequestError:
        return
    assert parse_head(found.wire()) == found


FIELD = st.sampled_from(
    ["Host: a.test", "Host:b.test", "host : a.test", " folded", "Content-Length: 3", "Transfer-Encoding: chunked",
     "Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c", "X: \x01", "X: \xff", "X", ": y", "X: y"]
)  # fmt: skip
LINE = st.sampled_from(
    ["GET / HTTP/1.1", "GET http://a.test/ HTTP/1.1", "GET http://b.test HTTP/1.0", "POST * HTTP/1.1", "OPTIONS * HTTP/1.1",
     "get / HTTP/1.1", "GET  / HTTP/1.1", "GET / HTTP/1.1 ", "GET /\t HTTP/1.1", "CONNECT a.test:1 HTTP/1.1", "PRI * HTTP/2.0"]
)  # fmt: skip


@given(LINE, st.lists(FIELD, max_size=5), st.sampled_from(["\r\n", "\n", "\r", "\r\r\n"]))
def test_what_passes_reads_the_same_again(line: str, fields: list[str], end: str) -> None:
    """Whatever is let through is, written anew, a head with one meaning: the same one."""
    raw = (end.join([line, *fields]) + end * 2).encode("latin-1")
    try:
        found = parse_head(raw)
    except BadRequestError:
        return
    again = parse_head(found.wire())
    assert again.wire() == found.wire()
    assert (again.method, again.length, again.websocket) == (found.method, found.length, found.websocket)
    assert set(again.hosts) == set(found.hosts)
