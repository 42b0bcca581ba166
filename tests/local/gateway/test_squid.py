"""The upstream proxy is Squid itself, with the access rules that Debian's has, where it is installed.

What stands in for a proxy elsewhere answers as its author thought that proxies do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.lab import Lab, eventually
from tests.local.gateway.stand import Program, Stand, socket_in
from tests.local.gateway.test_proxy import PORT, PUBLIC, no_direct_way, use

pytestmark = pytest.mark.needs("root", "squid", "openssl", optional=True)
WEB, ADDRESS = "web.example.test", "203.0.113.10"
PROXY = shutil.which("squid", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
_CONFIG = """
http_port {address}:{port}
acl SSL_ports port 443
acl Safe_ports port 80 443 1025-65535
http_access deny !Safe_ports
http_access deny CONNECT !SSL_ports
{guard}
http_access allow all
cache deny all
dns_nameservers 203.0.113.53
access_log stdio:{place}/access.log
cache_log {place}/cache.log
pid_filename none
coredump_dir {place}
visible_hostname proxy.corp.test
pinger_enable off
shutdown_lifetime 0 seconds
"""
_GUARD = """
auth_param basic program {helper} {place}/users
acl known proxy_auth REQUIRED
http_access deny !known
"""


@contextmanager
def squid(lab: Lab, *, guarded: bool) -> Iterator[Callable[[], list[str]]]:
    """Run Squid on the lab's internet; what is yielded tells its answers, oldest first: `STATUS METHOD TARGET`."""
    assert PROXY is not None
    # It gives up root's rights, and would not find its files below a directory of root's own.
    with tempfile.TemporaryDirectory(prefix="irons-squid-") as place:
        helper = Path(PROXY).parents[1] / "lib/squid/basic_ncsa_auth"
        guard = _GUARD.format(helper=helper, place=place) if guarded else ""
        config, users = Path(place, "squid.conf"), Path(place, "users")
        config.write_text(_CONFIG.format(address=PUBLIC, port=PORT, guard=guard, place=place))
        words = ["openssl", "passwd", "-apr1", "s3cr3t"]
        users.write_text(f"me:{subprocess.run(words, capture_output=True, text=True, check=True).stdout}")
        for path in (Path(place), users):
            shutil.chown(path, "proxy")
        process = subprocess.Popen(
            ["nsenter", "-t", str(lab.internet), "-n", "--", PROXY, "-N", "-f", str(config)],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

        def answers() -> list[str]:
            lines = [line.split() for line in Path(place, "access.log").read_text().splitlines()]
            # A connection may carry no request.
            return [f"{line[3].rpartition('/')[2]} {' '.join(line[5:7])}" for line in lines if line[5] != "-"]

        def serves() -> bool:
            assert process.poll() is None, Path(place, "cache.log").read_text()
            with socket_in(lab.internet) as sock:
                return sock.connect_ex((PUBLIC, PORT)) == 0

        try:
            eventually(serves)
            yield answers
        finally:
            process.terminate()
            process.wait()


def fetch(stand: Stand, *, body: bytes = b"") -> dict[str, object]:
    """What the web server saw of a request that came by the proxy."""
    with stand.connect(WEB, 80) as program:
        answer = _asked(program, body)
    head, _, seen = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    # Nothing of the proxy shows: no Via, no field of Squid's.
    assert b"squid" not in answer.lower()
    assert b"corp" not in answer
    found: dict[str, object] = json.loads(seen)
    return found


def _asked(program: Program, body: bytes) -> bytes:
    line = b"POST /hello HTTP/1.1\r\nContent-Length: %d" % len(body) if body else b"GET /hello HTTP/1.1"
    return program.send(line + f"\r\nHost: {WEB}\r\n\r\n".encode() + body).rest()


def fetch_by_tls(stand: Stand) -> None:
    """Fetch more than fits into any buffer on the way."""
    with stand.tls(WEB, WEB) as secure:
        secure.sendall(f"GET /big/8 HTTP/1.1\r\nHost: {WEB}\r\n\r\n".encode())
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            got += secure.recv(1)
        left = 8 << 20
        while left:
            left -= len(secure.recv(min(left, 1 << 20)))


@pytest.mark.parametrize("guarded", [False, True], ids=["open", "guarded"])
def test_squid_carries_what_is_allowed(stand: Stand, guarded: bool) -> None:
    """TLS by CONNECT, HTTP in absolute form, by address and by name; what Squid refuses is a server that was not reached."""
    user = "me:s3cr3t@" if guarded else ""
    stand.policy("deny", [WEB, "mail.example.test:25"])
    with squid(stand.lab, guarded=guarded) as answers, no_direct_way(stand.lab):
        if guarded:
            for wrong in ("", "me:wrong@"):
                use(stand, PUBLIC, user=wrong)
                answer = stand.http(WEB, f"GET /hello HTTP/1.1\nHost: {WEB}\n\n")
                assert answer.startswith(b"HTTP/1.1 502")
                assert b"the upstream proxy wants a user and password (status 407)" in answer
                assert b"squid" not in answer.lower()
        before = len(answers()) if guarded else 0
        use(stand, PUBLIC, user=user)
        fetch_by_tls(stand)
        # Squid replaces `Host` by the address that it is asked for (docs/local.md).
        assert fetch(stand)["host"] == ADDRESS
        assert fetch(stand, body=b"x" * 100_000)["body"] == 100_000
        with stand.connect("mail.example.test", 25) as program:
            assert program.rest() == b"RESET"
        event = stand.event(host="mail.example.test", kind="close")
        assert event["ended"] == "unreachable: the upstream proxy refused to connect (status 403)"
        use(stand, PUBLIC, user=user, upstream_resolves=True)
        fetch_by_tls(stand)
        assert fetch(stand)["host"] == WEB
        # A tunnel is logged when it has ended.
        wanted = sorted(
            (
                f"200 CONNECT {ADDRESS}:443",
                f"403 CONNECT {ADDRESS}:80",
                f"200 GET http://{ADDRESS}/hello",
                f"200 POST http://{ADDRESS}/hello",
                "403 CONNECT 203.0.113.50:25",
                f"200 CONNECT {WEB}:443",
                f"403 CONNECT {WEB}:80",
                f"200 GET http://{WEB}/hello",
            )
        )
        eventually(lambda: len(answers()) - before >= len(wanted))
        assert sorted(answers()[before:]) == wanted
    assert not [each for each in stand.records() if "s3cr3t" in json.dumps(each)]
