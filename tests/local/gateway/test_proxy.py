"""The upstream proxy: what goes through it, what does not, and who may not reach it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.lab import Lab
from tests.local.gateway.forward_proxy import PAGE
from tests.local.gateway.stand import BANNER, Stand

from irons_local.config.upstream import read_upstream

WEB, OTHER = "web.example.test", "other.example.test"
GET = "GET /hello HTTP/1.1\nHost: {}\nConnection: close\n\n"
PORT = 3128
PUBLIC, PRIVATE, LOOPBACK = "203.0.113.90", "10.0.0.90", "127.0.0.1"
ROOT = Path(__file__).parents[3]


class Company:
    """A running proxy and what it was asked for."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def asked(self) -> list[dict[str, Any]]:
        """Every request, oldest first."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def targets(self) -> list[str]:
        """What each was for."""
        return [f"{each['method']} {each['target']}" for each in self.asked()]


@contextmanager
def company(lab: Lab, log: Path, address: str, *options: str) -> Iterator[Company]:
    """A proxy on the lab's host for loopback, and on its internet for every other address."""
    log.touch()
    where = lab.host if address == LOOPBACK else lab.internet
    words = [
        sys.executable,
        "-m",
        "tests.local.gateway.forward_proxy",
        str(log),
        address,
        str(PORT),
        *options,
    ]
    process = subprocess.Popen(
        ["nsenter", "-t", str(where), "-n", "--", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield Company(log)
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def no_direct_way(lab: Lab) -> Iterator[None]:
    """Have the lab's host reach the servers of the internet by the proxy alone."""

    def route(what: str) -> None:
        words = ["nsenter", "-t", str(lab.host), "-n", "ip", "route", what, "unreachable", "203.0.113.0/27"]
        subprocess.run(words, check=True)

    route("add")
    try:
        yield
    finally:
        route("del")


def use(stand: Stand, address: str, *, user: str = "", **more: Any) -> None:
    """Tell the gateway of the proxy."""
    found = read_upstream({"upstream_proxy": f"http://{user}{address}:{PORT}", **more})
    assert found is not None
    stand.ask("listeners", listeners=[], upstream=found.to_json())


@pytest.fixture
def start(stand: Stand, tmp_path: Path) -> Iterator[Callable[..., Company]]:
    """Start proxies, which end with the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(address: str = PUBLIC, *options: str) -> Company:
            return stack.enter_context(company(stand.lab, tmp_path / "proxy.log", address, *options))

        yield start


def test_everything_goes_by_the_proxy_to_the_checked_address(
    stand: Stand, start: Callable[..., Company]
) -> None:
    """TLS, HTTP and a server that speaks first are reached where nothing is reached directly, and recorded as ever."""
    proxy = start()
    stand.policy("deny", [f"{WEB}:*", "mail.example.test:25", "203.0.113.0/27"])
    with no_direct_way(stand.lab):
        refused = stand.http(WEB, GET.format(WEB))
        assert refused.startswith(b"HTTP/1.1 502")
        assert b"no route to host" in refused
        assert b"upstream_proxy" in refused
        assert "upstream_proxy" in stand.event(host=WEB, kind="close")["ended"]
        use(stand, PUBLIC)
        assert stand.http(WEB, GET.format(WEB)).startswith(b"HTTP/1.1 200")
        assert stand.event(host=WEB, kind="close", outcome="reached")["address"] == "203.0.113.10"
        with stand.tls(WEB, WEB) as secure:
            secure.sendall(b"GET / HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
            assert secure.recv(100).startswith(b"HTTP/1.1 200")
        with stand.connect("203.0.113.20", 443) as program:
            program.send(b"x")
    with stand.connect("mail.example.test", 25) as program:
        assert program.read(len(BANNER)) == BANNER
    assert proxy.targets() == [
        "CONNECT 203.0.113.10:80",
        "CONNECT 203.0.113.10:443",
        "CONNECT 203.0.113.50:25",
    ]
    assert {each["host"] for each in proxy.asked()} == {
        "203.0.113.10:80",
        "203.0.113.10:443",
        "203.0.113.50:25",
    }


def test_rules_and_floor_come_before_the_proxy(stand: Stand, start: Callable[..., Company]) -> None:
    """What is refused is refused before the proxy hears of it, names that lead inwards too."""
    proxy = start()
    use(stand, PUBLIC)
    stand.policy("warn", [], deny=["evil.example.test"])
    for name in (
        "rebind-private.example.test",
        "rebind-loopback.example.test",
        "rebind-metadata.example.test",
    ):
        assert stand.http(name, GET.format(name)).startswith(b"HTTP/1.1 403")
    assert stand.http("10.9.8.7", GET.format("10.9.8.7")).startswith(b"HTTP/1.1 403")
    stand.policy("deny", [WEB])
    assert stand.http("evil.example.test", GET.format("evil.example.test")).startswith(b"HTTP/1.1 403")
    assert not proxy.asked()


@pytest.mark.parametrize("address", [PUBLIC, PRIVATE, LOOPBACK])
def test_no_sandbox_reaches_the_proxy_itself(
    stand: Stand, start: Callable[..., Company], address: str
) -> None:
    """In any mode, by a rule or a pin, by its address or a name: nothing arrives there but the gateway's CONNECTs."""
    proxy = start(address)
    hosts = {"proxy.corp.test": [address], "own.corp.test": ["198.51.100.2"]}
    use(stand, address)
    machine = "198.51.100.2"
    own = [
        {"pattern": f"{name}:{PORT}", "private": [machine]}
        for name in (("own.corp.test", machine) if address == LOOPBACK else ())
    ]
    rules: list[Any] = [
        {"pattern": f"proxy.corp.test:{PORT}", "private": [address]},
        {"pattern": f"{address}:{PORT}", "private": [address]},
        *own,
    ]
    # Inside, loopback is the sandbox's own; the machine's is reached by name alone.
    asked = ["proxy.corp.test", "own.corp.test", machine] if own else ["proxy.corp.test", address]
    for mode, allow in (("warn", []), ("deny", rules), ("warn", rules), ("deny", ["*:*"])):
        stand.policy(mode, allow, hosts=hosts)
        for host in asked:
            with stand.connect(host, PORT) as program:
                assert program.send(b"\5\1\0").rest() == b"RESET"
            assert stand.event(host=host, allowed=False)["cause"] == "never"
    assert not proxy.asked()
    stand.policy("deny", [WEB])
    assert stand.http(WEB, GET.format(WEB)).startswith(b"HTTP/1.1 200")
    assert proxy.targets() == ["CONNECT 203.0.113.10:80"]


def test_a_proxy_with_a_name_is_closed_by_name_and_address(
    stand: Stand, start: Callable[..., Company]
) -> None:
    """Its name is resolved by the host, and every address it has had is closed."""
    hosts = stand.lab.directory / "hosts"
    before = hosts.read_text()
    try:
        hosts.write_text(f"{before}{PUBLIC} proxy.corp.test\n")
        proxy = start()
        use(stand, "proxy.corp.test")
        stand.policy("warn")
        for host in ("proxy.corp.test", PUBLIC):
            with stand.connect(host, PORT) as program:
                assert program.send(b"SSH-2.0-x\r\n").rest() == b"RESET"
            assert "the upstream proxy" in stand.event(host=host)["reason"]
        assert stand.http(WEB, GET.format(WEB)).startswith(b"HTTP/1.1 200")
        assert proxy.targets() == ["CONNECT 203.0.113.10:80"]
        hosts.write_text(before)
        use(stand, "gone.corp.test")
        answer = stand.http(WEB, GET.format(WEB))
        assert b"the upstream proxy's name was not resolved" in answer
    finally:
        hosts.write_text(before)


def test_what_a_pin_or_no_proxy_names_is_dialled_directly(
    stand: Stand, start: Callable[..., Company]
) -> None:
    """A pin speaks of this machine's network, so the proxy is not asked for what it opens."""
    proxy = start()
    use(stand, PUBLIC, no_proxy=[OTHER, "203.0.113.20"])
    pinned = {"pattern": "rebind-private.example.test", "private": ["10.9.8.7"]}
    stand.policy("deny", [OTHER, "files.example.test", pinned])
    for name in (OTHER, "files.example.test", "rebind-private.example.test"):
        assert stand.http(name, GET.format(name)).startswith(b"HTTP/1.1 200")
    assert not proxy.asked()


def test_user_and_password_go_to_the_proxy_and_nowhere_else(
    stand: Stand, start: Callable[..., Company]
) -> None:
    """They are in no record and no file but one that only the gateway may read, which serves a start without a control plane."""
    proxy = start(PUBLIC, "auth=bWU6czNjcjN0")
    stand.policy("deny", [WEB])
    use(stand, PUBLIC, user="me:wrong@")
    answer = stand.http(WEB, GET.format(WEB))
    assert answer.startswith(b"HTTP/1.1 502")
    assert b"wants a user and password (status 407)" in answer
    assert PAGE.encode() not in answer
    use(stand, PUBLIC, user="me:s3cr3t@")
    assert stand.http(WEB, GET.format(WEB)).startswith(b"HTTP/1.1 200")
    assert proxy.asked()[-1]["fields"]["proxy-authorization"] == "Basic bWU6czNjcjN0"
    holding = [
        path
        for path in stand.home.rglob("*")
        if path.is_file()
        and path.name != "proxy.log"
        and (b"s3cr3t" in path.read_bytes() or b"czNjcjN0" in path.read_bytes())
    ]
    assert [path.name for path in holding] == ["upstream"]
    assert holding[0].stat().st_mode & 0o777 == 0o600
    stand.kill()
    stand.start()
    assert stand.http(WEB, GET.format(WEB)).startswith(b"HTTP/1.1 200")
    assert len(proxy.asked()) == 3
    stand.ask("listeners", listeners=[], upstream=None)
    assert not holding[0].exists()
    assert stand.http(WEB, GET.format(WEB)).startswith(b"HTTP/1.1 200")
    assert len(proxy.asked()) == 3


def test_port_80_falls_back_to_absolute_form(stand: Stand, start: Callable[..., Company]) -> None:
    """Where CONNECT to port 80 is refused, requests go in absolute form; nothing of the proxy shows in the answer."""
    proxy = start(PUBLIC, "refuse=80", "auth=bWU6czNjcjN0")
    use(stand, PUBLIC, user="me:s3cr3t@")
    stand.policy("deny", [WEB])
    head = "POST /hello HTTP/1.1\nHost: {}\nContent-Length: 3\nProxy-Authorization: mine\nExpect: 100-continue\n\n"
    with stand.connect(WEB, 80) as program:
        program.send(head.format(WEB).replace("\n", "\r\n").encode())
        assert program.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        answer = program.send(b"abc").finish().rest()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"body": 3' in answer
    assert f'"host": "{WEB}"'.encode() in answer
    assert b"Connection: close" in answer
    assert b"corp" not in answer
    stand.http(WEB, GET.format(WEB))
    assert proxy.targets() == [
        "CONNECT 203.0.113.10:80",
        "POST http://203.0.113.10/hello",
        # What is known of the proxy is not tried again at once.
        "GET http://203.0.113.10/hello",
    ]
    assert proxy.asked()[1]["fields"]["proxy-authorization"] == "Basic bWU6czNjcjN0"
    assert "expect" not in proxy.asked()[1]["fields"]
    event = stand.event(host=WEB, kind="close")
    assert (event["verdict"], event["address"], event["outcome"]) == ("allowed", "203.0.113.10", "reached")


@pytest.mark.parametrize("own", ["403 Forbidden", "407 Proxy Authentication Required", "504 Gateway Timeout"])
def test_the_proxy_s_own_page_stays_outside(stand: Stand, start: Callable[..., Company], own: str) -> None:
    """Where the proxy answers in the server's place, the sandbox gets a page of irons, and the log the status."""
    start(PUBLIC, "refuse=80", f"own={own}")
    use(stand, PUBLIC)
    stand.policy("deny", [WEB])
    answer = stand.http(WEB, GET.format(WEB))
    assert answer.startswith(b"HTTP/1.1 502")
    assert PAGE.encode() not in answer
    event = stand.event(host=WEB, kind="close")
    assert own[:3] in event["ended"]
    assert event["outcome"] == "unreached"


def test_other_ports_do_not_fall_back(stand: Stand, start: Callable[..., Company]) -> None:
    """A refusal to CONNECT to another port is a server that was not reached."""
    proxy = start(PUBLIC, "refuse=443")
    use(stand, PUBLIC)
    stand.policy("deny", [WEB])
    with pytest.raises(OSError, match=r"(?i)reset|eof"):
        stand.tls(WEB, WEB)
    event = stand.event(host=WEB, kind="close")
    assert event["ended"] == "unreachable: the upstream proxy refused to connect (status 403)"
    assert proxy.targets() == ["CONNECT 203.0.113.10:443"]


def test_a_name_goes_to_the_proxy_where_it_resolves_names(
    stand: Stand, start: Callable[..., Company]
) -> None:
    """With `upstream_resolves` the name is sent, the record says who resolved it, and what leads inwards here stays shut."""
    # What this machine cannot resolve within three seconds is left to the proxy.
    stand.kill()
    stand.start(patient=True)
    proxy = start()
    use(stand, PUBLIC, upstream_resolves=True)
    stand.policy("warn", ["hidden.outside.test", WEB])
    for name in ("hidden.outside.test", WEB):
        assert stand.http(name, GET.format(name)).startswith(b"HTTP/1.1 200")
        event = stand.event(host=name, kind="close")
        assert event["reason"].endswith("the upstream proxy resolves the name")
        assert "address" not in event
    assert proxy.targets() == ["CONNECT hidden.outside.test:80", f"CONNECT {WEB}:80"]
    hosts = {"intranet": ["203.0.113.11"], "mapped.example.test": ["203.0.113.11"]}
    stand.policy("warn", ["single", "intranet", "mapped.example.test"], hosts=hosts)
    refused = {
        "rebind-private.example.test": b"403",
        "both.example.test": b"403",
        "10.9.8.7": b"403",
        "single": b"502",
        "metadata.google.internal": b"502",
        "nas.local": b"502",
    }
    for name, status in refused.items():
        assert stand.http(name, GET.format(name)).startswith(b"HTTP/1.1 " + status), name
    assert len(proxy.asked()) == 2
    # What has its address here is asked for by it.
    for name in ("intranet", "mapped.example.test", "203.0.113.10"):
        assert stand.http(name, GET.format(name)).startswith(b"HTTP/1.1 200"), name
    assert proxy.targets()[2:] == [
        "CONNECT 203.0.113.11:80",
        "CONNECT 203.0.113.11:80",
        "CONNECT 203.0.113.10:80",
    ]


def test_a_proxy_that_is_gone_is_told_of(stand: Stand) -> None:
    """Nothing listens at its address: the server was not reached, and the reason names the proxy."""
    use(stand, "203.0.113.91")
    stand.policy("deny", [WEB])
    assert b"the upstream proxy was not reached: connection refused" in stand.http(WEB, GET.format(WEB))
    assert stand.event(host=WEB, kind="close")["outcome"] == "unreached"
