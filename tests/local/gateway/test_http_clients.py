"""HTTP clients as people use them, run in the cell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.local.gateway.stand import Stand

WEB = "web.example.test"
FETCH = Path(__file__).parent / "clients" / "Fetch.java"


def inside(stand: Stand, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the cell's network."""
    return subprocess.run(
        ["nsenter", "-t", str(stand.net.pid), "-n", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def curl(stand: Stand, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run curl, which finds the host at its synthetic address."""
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    resolve = f"{host}:{port or 80}:{stand.resolve(host)}"
    return inside(
        stand, "curl", "-sS", "--noproxy", "*", "-i", "--max-time", "90", "--resolve", resolve, *options, url
    )


@pytest.mark.needs("curl")
def test_curl_asks_for_http_2_and_gets_what_there_is(shared: Stand) -> None:
    """Its offer to change to HTTP/2 is ignored, as a server may do."""
    shared.policy("deny", [WEB])
    done = curl(shared, f"http://{WEB}/u", "--http2")
    assert done.stdout.startswith("HTTP/1.1 200"), done
    assert "GET /u HTTP/1.1" in done.stdout
    refused = curl(shared, "http://evil.example.test/", "--http2")
    assert refused.stdout.startswith("HTTP/1.1 403")


@pytest.mark.needs("java", "javac", optional=True)
def test_the_jdks_client_fetches_by_its_defaults(shared: Stand, tmp_path: Path) -> None:
    """It offers HTTP/2 with each first request, and goes on in HTTP/1."""
    shared.policy("deny", [WEB])
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{shared.resolve(WEB)} {WEB}\n")
    done = inside(shared, "java", f"-Djdk.net.hosts.file={hosts}", str(FETCH), f"http://{WEB}/u")
    assert done.stdout.startswith("200 HTTP_1_1 "), done
    assert "GET /u HTTP/1.1" in done.stdout
