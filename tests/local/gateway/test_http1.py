"""The grammar of request heads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_local.gateway.http1.authority import BadRequestError, NotSpokenError, parse_authority
from irons_local.gateway.http1.heads import MAX_FIELDS, MAX_HEAD, parse_head, parse_trailer


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
    "raw", ["a", "a.b:1", "203.0.113.7", "[2001:db8::1]", "[2001:db8::1]:443", "a_b.c", "A.B.", "a:"]
)
def test_authorities(raw: str) -> None:
    """A host and perhaps a port."""
    assert parse_authority(raw.encode()).host.text


@pytest.mark.parametrize(
    "raw",
    [
        "",
        ":80",
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
        "Content-Length: 1\nContent-Length: 1\n",
        "Content-Length: 1\nContent-Length: 2\n",
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
    """Requests that two servers might read differently."""
    with pytest.raises(BadRequestError):
        parse_head(head(f"POST / HTTP/1.1\nHost: a\n{fields}\n"))


def test_a_head_is_bounded() -> None:
    """As many bytes and as many fields as fit are read, and not one more."""
    bare = len(head("GET / HTTP/1.1\nHost: a\nX: \n\n"))
    full = head(f"GET / HTTP/1.1\nHost: a\nX: {'y' * (MAX_HEAD - bare)}\n\n")
    assert len(parse_head(full).wire()) == MAX_HEAD == len(full)
    with pytest.raises(BadRequestError, match="too large"):
        parse_head(full.replace(b"X: ", b"X: y"))
    many = "X: y\n" * (MAX_FIELDS - 1)
    assert len(parse_head(head(f"GET / HTTP/1.1\nHost: a\n{many}\n")).fields) == MAX_FIELDS - 1
    with pytest.raises(BadRequestError, match="too many"):
        parse_head(head(f"GET / HTTP/1.1\nHost: a\nX: y\n{many}\n"))


def test_connect_is_refused_by_the_name_it_asks_for() -> None:
    """The refusal of a proxy's CONNECT names it and the host that it would have led to."""
    with pytest.raises(BadRequestError, match="CONNECT") as caught:
        parse_head(head("CONNECT evil.test:443 HTTP/1.1\nHost: web.test\n\n"))
    assert caught.value.host is not None
    assert caught.value.host.text == "evil.test"


def test_only_options_asks_about_a_whole_server() -> None:
    """A target of a star is for OPTIONS alone."""
    assert parse_head(head("OPTIONS * HTTP/1.1\nHost: a\n\n")).target == b"*"
    with pytest.raises(BadRequestError, match="target"):
        parse_head(head("GET * HTTP/1.1\nHost: a\n\n"))


@pytest.mark.parametrize("host", ["203.0.113.7", "[2001:db8::1]"])
def test_addresses_go_on_as_they_are_written(host: str) -> None:
    """In an absolute target and in Host, brackets are around IPv6 addresses and around nothing else."""
    wire = parse_head(head(f"GET http://{host}/ HTTP/1.1\nHost: {host}\n\n")).wire()
    assert wire == head(f"GET http://{host}/ HTTP/1.1\nHost: {host}\n\n")


UPGRADE = "Upgrade: WebSocket\nConnection: keep-alive, Upgrade\n"


@pytest.mark.parametrize("name", ["WebSocket", "foo, websocket", "h2c\nUpgrade: websocket, bar"])
def test_a_websocket_is_asked_for_in_one_way(name: str) -> None:
    """By GET in HTTP/1.1, with both fields and without a body; no other protocol is asked for with it."""
    found = parse_head(head(f"GET / HTTP/1.1\nHost: a\nUpgrade: {name}\nConnection: keep-alive, Upgrade\n\n"))
    assert found.websocket
    wire = found.wire().lower()
    assert wire.count(b"\r\nupgrade: websocket\r\n") == wire.count(b"upgrade:") == 1
    assert b"\r\nconnection: keep-alive, upgrade\r\n" in wire
    assert not parse_head(head("GET / HTTP/1.1\nHost: a\nConnection: upgrade\n\n")).websocket


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("POST / HTTP/1.1", UPGRADE),
        ("get / HTTP/1.1", UPGRADE),
        ("GET / HTTP/1.0", UPGRADE),
        ("GET / HTTP/1.1", "Upgrade: websocket\n"),
        ("GET / HTTP/1.1", "Upgrade: websocket\nConnection: keep-alive\n"),
        ("GET / HTTP/1.1", "Upgrade: websocket\nConnection: upgraded\n"),
        ("GET / HTTP/1.1", "Upgrade: websocket/13\nConnection: upgrade\n"),
        ("GET / HTTP/1.1", "Upgrade: h2c\nConnection: Upgrade, HTTP2-Settings\nHTTP2-Settings: AAMAAABk\n"),
        ("GET / HTTP/1.1", "Upgrade:\nConnection: upgrade\n"),
        ("GET / HTTP/1.1", "UPGRADE: TLS/1.2\nconnection: UPGRADE, upgrade , Upgrade\n"),
        ("GET / HTTP/1.1", "HTTP2-Settings: AAMAAABk\nConnection: http2-settings\n"),
        ("GET / HTTP/1.1", f"{UPGRADE}Content-Length: 3\n"),
        ("GET / HTTP/1.1", f"{UPGRADE}Transfer-Encoding: chunked\n"),
    ],
)
def test_every_other_upgrade_is_dropped(line: str, fields: str) -> None:
    """The request goes on without it, and no server can take it up."""
    found = parse_head(head(f"{line}\nHost: a\nX: y\n{fields}\n"))
    assert not found.websocket
    wire = found.wire().lower()
    assert b"upgrade" not in wire.replace(b"upgraded", b"")
    assert b"http2-settings" not in wire
    assert b"\r\nx: y\r\n" in wire


def test_options_of_a_connection_that_mean_something_else_stay() -> None:
    """Only what belongs to an upgrade is taken out of Connection."""
    fields = "Connection: close, TE\nTE: trailers\nConnection: x, upgrade, y\nX-Upgrade: 1\n"
    wire = parse_head(head(f"GET / HTTP/1.1\nHost: a\n{fields}\n")).wire()
    assert wire == head(
        "GET / HTTP/1.1\nHost: a\nConnection: close, TE\nTE: trailers\nConnection: x, y\nX-Upgrade: 1\n\n"
    )


@pytest.mark.parametrize("name", ["Host", "content-length", "close, TRANSFER-ENCODING"])
def test_a_connection_that_names_what_frames_a_request_is_refused(name: str) -> None:
    """A server that obeyed it would read another request."""
    with pytest.raises(BadRequestError, match="Connection names"):
        parse_head(head(f"POST / HTTP/1.1\nHost: a\nContent-Length: 0\nConnection: {name}\n\n"))


@pytest.mark.parametrize(
    "method", ["get", "FOO", "PROPFIND", "M-SEARCH", "x!#$%&'*+.^_`|~1", "SOURCE", "A" * 100]
)
def test_any_method_passes(method: str) -> None:
    """A method is a token, whichever."""
    found = parse_head(head(f"{method} /x HTTP/1.1\nHost: a\nContent-Length: 1\n\n"))
    assert (found.method.decode(), found.length) == (method, 1)
    assert found.wire().startswith(f"{method} /x HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    "line",
    ["CONNECT a:1 HTTP/1.1", "connect a:1 HTTP/1.1", "PRI * HTTP/1.1", "PRI * HTTP/2.0", "GET / HTTP/2.0"],
)
def test_what_is_not_spoken_is_told_apart(line: str) -> None:
    """CONNECT, PRI and other major versions are well formed, and not let through."""
    with pytest.raises(NotSpokenError):
        parse_head(head(f"{line}\nHost: a\n\n"))


@pytest.mark.parametrize(
    "line",
    [
        "GE(T / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET\t/ HTTP/1.1",
        " / HTTP/1.1",
        "GET / HTTP/1.10",
    ],
)
def test_a_malformed_request_line_is_refused(line: str) -> None:
    """What is not exactly a token, a target and a version has more than one reading."""
    with pytest.raises(BadRequestError):
        parse_head(head(f"{line}\nHost: a\n\n"))


def test_a_later_minor_version_is_the_latest_that_is_known() -> None:
    """HTTP/1.2 would be HTTP/1.1 to a server (RFC 9110, section 2.5)."""
    assert parse_head(head("GET / HTTP/1.2\nHost: a\n\n")).wire().startswith(b"GET / HTTP/1.1\r\n")


def test_lengths_have_fifteen_digits_at_most() -> None:
    """Longer than any body, and short of what a server's integers can't hold."""
    assert parse_head(head(f"POST / HTTP/1.1\nHost: a\nContent-Length: {'9' * 15}\n\n")).length == 10**15 - 1
    with pytest.raises(BadRequestError, match="ambiguous"):
        parse_head(head(f"POST / HTTP/1.1\nHost: a\nContent-Length: {'9' * 16}\n\n"))


def test_trailers() -> None:
    """Ordinary fields pass, those that change how a request is read are dropped."""
    assert parse_trailer(b"X:  y \r\nHost: b\r\ncontent-length: 1\r\nZ: 1") == ((b"X", b"y"), (b"Z", b"1"))
    for raw in (b"a b: c", b"nothing", b"X: a\nb", b"X: \x01"):
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
    """What is let through and serialised again is a head with one meaning: the same one."""
    raw = (end.join([line, *fields]) + end * 2).encode("latin-1")
    try:
        found = parse_head(raw)
    except BadRequestError:
        return
    again = parse_head(found.wire())
    assert again.wire() == found.wire()
    assert (again.method, again.length, again.websocket) == (found.method, found.length, found.websocket)
    assert set(again.hosts) == set(found.hosts)
