"""Measure the gateway beside plain routing: one download, new connections one after another, and many at once.

`python bench/gateway.py` (root) makes four network namespaces of its own: a cell, a client that is routed and
masqueraded as a container's would be, the host with the gateway, and the internet. The same programs run over both
ways, in turn, so that what else the machine does meets both; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.e2e.lab import HOLD, make_lab
from tests.local.gateway.stand import CellNet, Stand, make_stand

NAME, ADDRESS = "web.example.test", "203.0.113.10"
SMALL, LARGE = 7001, 7002
HELLO = b"\0hello\n"
SERVER = f"""
import socket, sys, threading
big = b"x" * (1 << 20)
def small(client):
    if client.recv(64):
        client.sendall(b"ok")
    client.close()
def large(client):
    def send():
        try:
            for _ in range(int(client.recv(64).strip(b"\\0\\n"))):
                client.sendall(big)
        except OSError:
            pass
        client.close()
    threading.Thread(target=send).start()
def serve(port, answer):
    with socket.create_server(("", port), backlog=4096) as listener:
        while True:
            answer(listener.accept()[0])
for port, answer in (({SMALL}, small), ({LARGE}, large)):
    threading.Thread(target=serve, args=(port, answer), daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""
_NEWNET = 0x40000000


class Way(NamedTuple):
    """A way to the internet: a namespace, and the address to connect to there."""

    name: str
    pid: int
    address: str


def inside(way: Way, work: Callable[[str], dict[str, float]]) -> dict[str, float]:
    """Run a measurement in a process of its own in the way's namespace."""
    near, far = get_context("fork").Pipe()
    pid = os.fork()
    if pid == 0:
        with Path(f"/proc/{way.pid}/ns/net").open("rb") as file:
            ctypes.CDLL(None).setns(file.fileno(), _NEWNET)
        far.send(work(way.address))
        os._exit(0)
    found: dict[str, float] = near.recv()
    os.waitpid(pid, 0)
    return found


def download(megabytes: int) -> Callable[[str], dict[str, float]]:
    """One download; bytes per second."""

    def work(address: str) -> dict[str, float]:
        space, total = bytearray(1 << 20), 0
        with socket.create_connection((address, LARGE)) as sock:
            began = time.perf_counter()
            sock.sendall(b"\0%d\n" % megabytes)
            while size := sock.recv_into(space):
                total += size
            return {"GB/s": total / (time.perf_counter() - began) / 1e9}

    return work


def one_by_one(count: int) -> Callable[[str], dict[str, float]]:
    """Connections one after another, each with a question and an answer."""

    def work(address: str) -> dict[str, float]:
        times = []
        for _ in range(count):
            began = time.perf_counter()
            with socket.create_connection((address, SMALL)) as sock:
                sock.sendall(HELLO)
                assert sock.recv(8) == b"ok"
                times.append((time.perf_counter() - began) * 1e3)
        times.sort()
        return {
            "p50 ms": statistics.median(times),
            "p99 ms": times[int(count * 0.99)],
            "conn/s": count / (sum(times) / 1e3),
        }

    return work


def at_once(count: int, together: int) -> Callable[[str], dict[str, float]]:
    """Connections of which `together` are under way at any time."""

    def work(address: str) -> dict[str, float]:
        selector = selectors.EpollSelector()
        left, done = count, 0

        def begin() -> None:
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex((address, SMALL))
            selector.register(sock, selectors.EVENT_WRITE)

        began = time.perf_counter()
        while done < count:
            while left and len(selector.get_map()) < together:
                begin()
                left -= 1
            for key, events in selector.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if events & selectors.EVENT_WRITE:
                    sock.send(HELLO)
                    selector.modify(sock, selectors.EVENT_READ)
                else:
                    assert sock.recv(8) == b"ok"
                    selector.unregister(sock)
                    sock.close()
                    done += 1
        return {f"conn/s at {together}": count / (time.perf_counter() - began)}

    return work


def hold(stack: ExitStack) -> int:
    """A namespace; the process that holds it."""
    process = stack.enter_context(
        subprocess.Popen(
            ["unshare", "--net", sys.executable, "-c", HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    stack.callback(process.kill)
    assert process.stdout is not None
    return int(process.stdout.readline())


def route(host: int, client: int) -> None:
    """Route a namespace through the host, masqueraded."""
    on_host, on_client = (["nsenter", "-t", str(pid), "-n"] for pid in (host, client))
    rules = (
        "table ip bench { chain out { type nat hook postrouting priority 100; oifname up0 masquerade ; } ; }"
    )
    for words in (
        [*on_host, "ip", "link", "add", "to0", "type", "veth", "peer", "name", "eth0", "netns", str(client)],
        [*on_host, "ip", "addr", "add", "172.30.0.1/30", "dev", "to0"],
        [*on_host, "ip", "link", "set", "to0", "up"],
        [*on_client, "ip", "addr", "add", "172.30.0.2/30", "dev", "eth0"],
        [*on_client, "ip", "link", "set", "eth0", "up"],
        [*on_client, "ip", "route", "add", "default", "via", "172.30.0.1"],
        [*on_host, "sysctl", "-qw", "net.ipv4.ip_forward=1"],
        [*on_host, "nft", rules],
    ):
        subprocess.run(words, check=True)


def processor_seconds(pid: int) -> float:
    """What a process has used of the processors."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(options: argparse.Namespace, stand: Stand, ways: list[Way]) -> dict[str, dict[str, list[float]]]:
    """Every round of every measurement, over each way in turn."""
    works = (
        ("download", download(options.megabytes), options.megabytes * 1.048576e6 / 1e9, "processor s/GB"),
        ("one by one", one_by_one(options.connections), options.connections / 1e3, "processor ms/conn"),
        ("at once", at_once(options.connections, 64), options.connections / 1e3, "processor ms/conn at 64"),
    )
    found: dict[str, dict[str, list[float]]] = {way.name: {} for way in ways}
    assert stand.process is not None
    for _ in range(options.rounds):
        for _, work, units, unit in works:
            for way in ways:
                before = processor_seconds(stand.process.pid)
                figures = inside(way, work)
                if way.name == "gateway":
                    figures[unit] = (processor_seconds(stand.process.pid) - before) / units
                for name, figure in figures.items():
                    found[way.name].setdefault(name, []).append(figure)
    return found


def report(found: dict[str, dict[str, list[float]]], stats: dict[str, object]) -> None:
    """Best and median of each figure, and how the gateway compares."""
    routed = found["routed"]
    print(f"{'':24}{'gateway best (median)':>26}{'routed best (median)':>26}{'gateway/routed':>18}")
    for name, figures in found["gateway"].items():
        best = max if "/s" in name and "s/GB" not in name else min
        line = f"{name:24}{best(figures):>16.3f} ({statistics.median(figures):.3f})"
        if name in routed:
            other = routed[name]
            line += f"{best(other):>18.3f} ({statistics.median(other):.3f})"
            line += f"{statistics.median(figures) / statistics.median(other):>13.2f}x"
        print(line)
    added = statistics.median(found["gateway"]["p50 ms"]) - statistics.median(routed["p50 ms"])
    print(f"added per new connection, p50: {added:.3f} ms")
    print(f"gateway memory: {int(str(stats['memory'])) / 1e6:.0f} MB; load: {os.getloadavg()[0]:.1f}")


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=2000, help="size of a download")
    parser.add_argument("--connections", type=int, default=1500, help="connections of a round")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lab = stack.enter_context(make_lab(directory))
        enter = ["nsenter", "-t", str(lab.internet), "-n", sys.executable, "-c", SERVER]
        server = stack.enter_context(
            subprocess.Popen(enter, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(server.kill)
        assert server.stdout is not None
        server.stdout.readline()
        client = hold(stack)
        route(lab.host, client)
        net = CellNet()
        stack.callback(net.close)
        home = directory / "gateway"
        home.mkdir()
        stand = stack.enter_context(make_stand(lab, home, net))
        stand.policy("deny", [f"{NAME}:*"], hosts={NAME: [ADDRESS]})
        ways = [Way("gateway", net.pid, stand.resolve(NAME)), Way("routed", client, ADDRESS)]
        found = measure(options, stand, ways)
        if options.json:
            print(json.dumps(found))
        else:
            report(found, stand.ask("stats"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
