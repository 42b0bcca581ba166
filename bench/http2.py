"""What following HTTP/2 in the clear costs next to an opaque connection through the same gateway: one large transfer each way.

    python -m bench.http2 [--rounds N] [--megabytes N]

Both lead from a cell to the same program in the lab's internet. HTTP/2 moves its bytes in DATA frames of 16 KiB, with
windows that never close. They take turns, and each figure is the median over the rounds. Ends with 1 where HTTP/2 is
slower than half of the other.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import hpack
from tests.e2e.lab import make_lab
from tests.local.gateway.stand import CellNet, Program, Stand, make_stand

from irons_local.gateway.http2 import frames as h2

NAME, OPAQUE, HTTP2 = "web.example.test", 7001, 7002
BAR = 0.5
FRAME = h2.frame(h2.DATA, 0, 1, b"x" * 16_384)
BATCH = FRAME * 16
ASKED = b"\1GO\n"
"""How an opaque client begins: with something that is neither text nor the beginning of anything."""


def serve(port: int, megabytes: int) -> None:
    """Take a whole upload, then send as much, one connection after another."""
    listener = socket.create_server(("0.0.0.0", port))
    print("ready", flush=True)
    size = megabytes << 20
    while True:
        sock, _ = listener.accept()
        with sock:
            if port == HTTP2:
                sock.sendall(h2.settings({}))
            left = size
            while left > 0 and (got := len(sock.recv(1 << 20))):
                left -= got
            sock.sendall(h2.frame(h2.PING, h2.ACK, 0, bytes(8)) if port == HTTP2 else b"\0")
            for _ in range(size // len(BATCH)):
                sock.sendall(BATCH)
            sock.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while sock.recv(65_536):
                    pass


def transfer(stand: Stand, port: int, megabytes: int) -> tuple[float, float]:
    """MB/s up and down."""
    fields = [(":method", "POST"), (":scheme", "http"), (":authority", NAME), (":path", "/")]
    head = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, hpack.Encoder().encode(fields))
    with stand.connect(NAME, port) as program:
        program.send(h2.PREFACE + h2.settings({}) + head if port == HTTP2 else ASKED)
        began = time.perf_counter()
        up = _up(program, megabytes)
        turned = time.perf_counter()
        down = 0
        while got := len(program.sock.recv(1 << 20)):
            down += got
        return up / (turned - began) / 1e6, down / (time.perf_counter() - turned) / 1e6


def _up(program: Program, megabytes: int) -> int:
    count = (megabytes << 20) // len(BATCH) + 1
    for _ in range(count):
        program.sock.sendall(BATCH)
    # The answer begins once all of it is there.
    program.sock.recv(1, socket.MSG_PEEK)
    return count * len(BATCH)


def main() -> int:
    """Run the benchmark."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--megabytes", type=int, default=512)
    options.add_argument("--serve", type=int)
    chosen = options.parse_args()
    if chosen.serve:
        serve(chosen.serve, chosen.megabytes)
    figures: dict[int, list[tuple[float, float]]] = {OPAQUE: [], HTTP2: []}
    with tempfile.TemporaryDirectory() as place, make_lab(Path(place)) as lab:
        net = CellNet()
        home = Path(place) / "gateway"
        home.mkdir()
        words = ["nsenter", "-t", str(lab.internet), "-n", sys.executable, "-m", "bench.http2"]
        words += ["--megabytes", str(chosen.megabytes), "--serve"]
        servers = [subprocess.Popen([*words, str(port)], stdout=subprocess.PIPE) for port in figures]
        try:
            for server in servers:
                assert server.stdout is not None
                server.stdout.readline()
            with make_stand(lab, home, net) as stand:
                stand.policy("deny", [f"{NAME}:*"])
                for _ in range(chosen.rounds):
                    for port, found in figures.items():
                        found.append(transfer(stand, port, chosen.megabytes))
        finally:
            for server in servers:
                server.kill()
                server.wait()
            net.close()
    missed = False
    for at, way in enumerate(("up", "down")):
        plain, spoken = (statistics.median(each[at] for each in figures[port]) for port in (OPAQUE, HTTP2))
        missed = missed or spoken < BAR * plain
        print(
            f"{way:5} opaque {plain:7.0f} MB/s   HTTP/2 {spoken:7.0f} MB/s   {spoken / plain:.2f} x (bar {BAR})"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
