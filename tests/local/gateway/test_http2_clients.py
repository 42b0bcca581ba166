"""HTTP/2 without TLS, by clients as people use them, run in the cell."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.lab import Lab
from tests.local.gateway.stand import Stand
from tests.local.gateway.test_http_clients import curl, inside

WEB, EVIL = "web.example.test", "evil.example.test"
PORT = 50_051
ECHO = Path(__file__).parent / "clients" / "grpc_echo.py"


@pytest.fixture(scope="module", autouse=True)
def server(lab: Lab) -> Iterator[None]:
    """A gRPC server on the internet."""
    words = ["nsenter", "-t", str(lab.internet), "-n", sys.executable, str(ECHO), "serve", str(PORT)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        yield
        process.stdin.close()


def call(stand: Stand, host: str, authority: str, kind: str, port: int = PORT) -> dict[str, Any]:
    """Make gRPC calls inside."""
    literal = host.replace(".", "").isdigit()
    where = f"{host if literal else stand.resolve(host)}:{port}"
    done = inside(stand, sys.executable, str(ECHO), "call", where, f"{authority}:{port}", kind)
    assert done.stdout, done
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    ("kind", "got"),
    [("unary", ["one", "500000", "three"]), ("stream", ["a", "b", "c"]), ("both", ["x", "100000", "z"])],
)
def test_grpc_calls_pass(shared: Stand, kind: str, got: list[str]) -> None:
    """Unary calls, server streams and bidirectional streams to an allowed name."""
    shared.policy("deny", [f"{WEB}:{PORT}"])
    assert call(shared, WEB, WEB, kind) == {"got": got}
    event = shared.event(host=WEB, kind="close", port=PORT)
    assert (event["verdict"], event["protocol"]) == ("allowed", "http")


def test_grpc_to_a_denied_name_is_told_what_to_type(shared: Stand) -> None:
    """It ends in PERMISSION_DENIED with the reason, and nothing outside hears of it."""
    shared.policy("deny", [WEB])
    answer = call(shared, EVIL, EVIL, "unary")
    assert answer["code"] == "PERMISSION_DENIED"
    assert f"irons egress allow {EVIL}:{PORT}" in answer["details"]
    assert shared.event(host=EVIL)["verdict"] == "blocked"
    assert not shared.arrivals()


def test_grpc_under_another_authority_is_refused(shared: Stand) -> None:
    """A call that names another host on a connection to an allowed one."""
    shared.policy("deny", [f"{WEB}:{PORT}"])
    assert call(shared, WEB, EVIL, "unary")["code"] == "PERMISSION_DENIED"
    event = shared.event(host=EVIL, verdict="blocked")
    assert event["cause"] == "second-name"


def test_grpc_under_another_authority_passes_in_warn(shared: Stand) -> None:
    """It is recorded under both names."""
    shared.policy("warn", [f"{WEB}:{PORT}"])
    assert call(shared, WEB, EVIL, "unary")["got"]
    assert shared.event(host=EVIL)["verdict"] == "warn"


def test_grpc_to_a_literal_address_goes_where_its_authority_leads(shared: Stand) -> None:
    """The first request names its host, as in HTTP/1."""
    shared.policy("deny", [f"{WEB}:{PORT}"])
    assert call(shared, "203.0.113.66", WEB, "unary")["got"]
    assert shared.event(host=WEB, kind="close", port=PORT)["address"] == "203.0.113.10"
    assert call(shared, "203.0.113.66", EVIL, "unary")["code"] == "PERMISSION_DENIED"


def test_grpc_to_a_closed_port_is_unavailable(shared: Stand) -> None:
    """What is allowed and not reached differs from a refusal."""
    shared.policy("deny", [f"{WEB}:50052"])
    answer = call(shared, WEB, WEB, "unary", 50_052)
    assert answer["code"] == "UNAVAILABLE"
    assert "allowed but was not reached" in answer["details"]


@pytest.mark.needs("curl")
def test_curl_by_prior_knowledge(shared: Stand) -> None:
    """It gets the server's answer where that is allowed, and the page where it is not."""
    shared.policy("deny", [f"{WEB}:{PORT}"])
    options = ["--http2-prior-knowledge", "-H", "content-type: application/grpc", "-H", "te: trailers"]
    empty = ["--data-binary", "@-"]
    passed = curl(shared, f"http://{WEB}:{PORT}/test.Echo/Unary", *options, *empty)
    assert passed.stdout.startswith("HTTP/2 200"), passed
    refused = curl(shared, f"http://{EVIL}:{PORT}/x", "--http2-prior-knowledge")
    assert refused.stdout.startswith("HTTP/2 403"), refused
    assert f"irons egress allow {EVIL}:{PORT}" in refused.stdout
    other = curl(shared, f"http://{WEB}:{PORT}/x", "--http2-prior-knowledge", "-H", f"Host: {EVIL}")
    assert other.stdout.startswith("HTTP/2 403"), other
    assert shared.event(host=EVIL, verdict="blocked", cause="second-name")


@pytest.mark.needs("curl")
def test_curl_by_prior_knowledge_on_port_80_is_sent_away(shared: Stand) -> None:
    """Port 80 is for HTTP/1, and the refusal is a GOAWAY."""
    shared.policy("deny", [WEB])
    done = curl(shared, f"http://{WEB}/x", "--http2-prior-knowledge", "-v")
    assert not done.stdout
    assert "HTTP_1_1_REQUIRED" in done.stderr or "error code 13" in done.stderr or "GOAWAY" in done.stderr, (
        done
    )
    assert shared.event(host=WEB, port=80, verdict="blocked")["reason"] == "port 80 must speak HTTP/1"
