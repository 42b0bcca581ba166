"""The way of a connection, from a program in a cell to what arrives at the internet."""

from __future__ import annotations

import ssl

import pytest
from tests.local.gateway.stand import Stand


def test_an_allowed_request_is_answered_and_recorded(stand: Stand) -> None:
    """An allowed name answers over HTTP, and the log has its opening, verdict and closing record."""
    stand.policy("deny", ["web.example.test"])
    answer = stand.http("web.example.test", "GET /hello HTTP/1.1\nHost: web.example.test\n\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    event = stand.event(host="web.example.test", kind="close")
    assert [each["kind"] for each in stand.records()] == ["open", "verdict", "close"]
    assert (event["verdict"], event["protocol"], event["rule"]) == ("allowed", "http", "web.example.test")
    assert event["address"] == "203.0.113.10"
    assert event["bytes_in"] == len(answer)


def test_a_denied_request_gets_a_403_that_says_what_to_type(stand: Stand) -> None:
    """A denied name is refused by a page that names it and the command, and nothing of it gets out."""
    stand.policy("deny", ["web.example.test"])
    answer = stand.http("evil.example.test", "GET / HTTP/1.1\nHost: evil.example.test\n\n")
    assert answer.startswith(b"HTTP/1.1 403 Forbidden")
    assert b"evil.example.test:80" in answer
    assert b"irons egress allow evil.example.test" in answer
    assert stand.event(host="evil.example.test")["verdict"] == "blocked"
    assert not stand.lab.arrived(name="evil.example.test")


def test_tls_passes_or_gets_an_alert(stand: Stand) -> None:
    """TLS to an allowed name reaches it; to another it ends in an access_denied alert."""
    stand.policy("deny", ["web.example.test"])
    with stand.tls("web.example.test", "web.example.test") as secure:
        secure.sendall(b"GET / HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
        assert secure.recv(100).startswith(b"HTTP/1.1 200")
    with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
        stand.tls("evil.example.test", "evil.example.test")


def test_a_server_that_speaks_first_is_heard(stand: Stand) -> None:
    """On other ports the server may say the first word."""
    stand.policy("deny", ["git.example.test:22"])
    with stand.connect("git.example.test", 22) as program:
        assert program.read(17) == b"SSH-2.0-standin\r\n"
        program.send(b"SSH-2.0-me\r\n")
        assert program.read(12) == b"SSH-2.0-me\r\n"
