"""Ways to the servers without irons, each through a middle namespace: a NAT router, HAProxy and nginx.

    client 0  172.N.0.2 ── veth ── 172.N.0.1  middle  192.0.2.M+2 ── veth ── 192.0.2.M+1  internet
    client 1  172.N.1.2 ── veth ── 172.N.1.1

HAProxy and nginx read the server name of the ClientHello, allow one name, and dial its address, with two threads or
worker processes. They write no log.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from bench.lab.measure import connect
from bench.lab.ways import ADDRESS, BULK_PORT, NAME, QUICK_PORT, Route, Way
from tests.e2e.lab import HOLD

CLIENTS = 2
WORKERS = 2
_PORTS = (BULK_PORT, QUICK_PORT)
_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_STARTED = 10.0


class Peer(NamedTuple):
    """A proxy that reads the server name.

    Attributes:
        name: printed label.
        program: executable.
        package: Debian packages that contain it.
        configure: text of its configuration, by the directory it may write to.
        words: arguments that run it in the foreground, by the configuration file.
    """

    name: str
    program: str
    package: str
    configure: Callable[[Path], str]
    words: Callable[[Path], list[str]]

    @property
    def installed(self) -> bool:
        """True where the program can be run."""
        return shutil.which(self.program) is not None and (self.program != "nginx" or _STREAM.exists())


def _haproxy(_: Path) -> str:
    frontends = "".join(
        f"""
frontend port{port}
  bind :{port}
  tcp-request inspect-delay 5s
  tcp-request content accept if {{ req.ssl_sni -i {NAME} }}
  tcp-request content reject if {{ req.ssl_hello_type gt 0 }}
  use_backend server{port} if {{ req.ssl_sni -i {NAME} }}
backend server{port}
  server one {ADDRESS}:{port}
"""
        for port in _PORTS
    )
    return f"""global
  nbthread {WORKERS}
  maxconn 4096
  tune.bufsize 262144
defaults
  mode tcp
  option splice-auto
  timeout connect 10s
  timeout client 1m
  timeout server 1m
{frontends}"""


def _nginx(directory: Path) -> str:
    servers = "".join(
        f"  server {{ listen {port} reuseport backlog=4096; ssl_preread on; proxy_pass $allowed:{port}; }}\n"
        for port in _PORTS
    )
    return f"""load_module {_STREAM};
daemon off;
worker_processes {WORKERS};
pid {directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 8192; }}
stream {{
  map $ssl_preread_server_name $allowed {{ {NAME} {ADDRESS}; default 127.0.0.1; }}
{servers}}}
"""


PEERS = (
    Peer("HAProxy", "haproxy", "haproxy", _haproxy, lambda file: ["haproxy", "-db", "-f", str(file)]),
    Peer(
        "nginx",
        "nginx",
        "nginx-light libnginx-mod-stream",
        _nginx,
        lambda file: ["nginx", "-e", "stderr", "-c", str(file)],
    ),
)


@contextmanager
def routed(internet: int) -> Iterator[Route]:
    """Two clients behind a router that masquerades them."""
    with _middle(internet, 0) as (middle, clients):
        _in(middle, "sysctl -q -w net.ipv4.ip_forward=1")
        rule = "table ip nat { chain out {\ntype nat hook postrouting priority srcnat\noifname wan masquerade\n}\n}\n"
        argv = ["nsenter", "-t", str(middle), "-n", "nft", "-f", "-"]
        subprocess.run(argv, input=rule.encode(), check=True)
        name = "routed NAT"
        yield Route(name, tuple(Way(name, client, ADDRESS) for client in clients))


@contextmanager
def proxied(peer: Peer, internet: int, place: int, directory: Path) -> Iterator[Route]:
    """Two clients of a proxy.

    Args:
        peer: the proxy.
        internet: process in the servers' namespace.
        place: number of this way, from 1; no two may have the same.
        directory: where its configuration goes.
    """
    file = directory / f"{peer.program}.conf"
    file.write_text(peer.configure(directory), encoding="ascii")
    with _middle(internet, place) as (middle, clients):
        argv = ["nsenter", "-t", str(middle), "-n", *peer.words(file)]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as proxy:
            try:
                _await(peer, proxy, middle)
                ways = [
                    Way(peer.name, client, f"{_subnet(place, at)}.1") for at, client in enumerate(clients)
                ]
                yield Route(peer.name, tuple(ways))
            finally:
                proxy.terminate()


def _await(peer: Peer, proxy: subprocess.Popen[bytes], middle: int) -> None:
    deadline = time.monotonic() + _STARTED
    while proxy.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            connect(middle, "127.0.0.1", QUICK_PORT).close()
            return
        time.sleep(0.02)
    raise SystemExit(f"{peer.name} does not listen; exit {proxy.poll()}")


@contextmanager
def _middle(internet: int, place: int) -> Iterator[tuple[int, list[int]]]:
    """Make a middle namespace with an uplink, and its clients; give their processes."""
    low = 4 * place
    with ExitStack() as held:
        middle = held.enter_context(_namespace())
        _link(("wan", middle, f"192.0.2.{low + 2}/30"), (f"peer{place}", internet, f"192.0.2.{low + 1}/30"))
        _in(middle, "ip route add default via 192.0.2." + str(low + 1))
        clients = []
        for at in range(CLIENTS):
            client = held.enter_context(_namespace())
            subnet = _subnet(place, at)
            _link(("out", client, f"{subnet}.2/24"), (f"in{at}", middle, f"{subnet}.1/24"))
            _in(client, f"ip route add default via {subnet}.1")
            clients.append(client)
        yield middle, clients


def _subnet(place: int, at: int) -> str:
    return f"172.{20 + place}.{at}"


@contextmanager
def _namespace() -> Iterator[int]:
    argv = ["unshare", "--net", sys.executable, "-c", HOLD]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        try:
            process = int(holder.stdout.readline())
            _in(process, "ip link set lo up")
            yield process
        finally:
            holder.stdin.close()


def _link(one: tuple[str, int, str], other: tuple[str, int, str]) -> None:
    _in(one[1], f"ip link add {one[0]} type veth peer name {other[0]} netns {other[1]}")
    for name, process, address in (one, other):
        _in(process, f"ip addr add {address} dev {name}")
        _in(process, f"ip link set {name} up")


def _in(process: int, line: str) -> None:
    subprocess.run(["nsenter", "-t", str(process), "-n", *line.split()], check=True)
