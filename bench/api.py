"""How long a call on a kept connection takes: over TCP and TLS, next to the unix socket in the same run.

Ends with 1 where a bar is missed. It starts a local backend with a home of its own and ends it.

    python -m bench.api [--calls N] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

IRONS = (sys.executable, "-m", "irons")
P50_MS = 1.0


class Spread(NamedTuple):
    """Milliseconds of one round: its median and its 99th percentile."""

    p50: float
    p99: float


class Backend:
    """A local backend with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "XDG_RUNTIME_DIR": str(home / "run"),
            "IRONS_CONFIG": str(home / "config.toml"),
        }
        (home / "run").mkdir(mode=0o700)

    def irons(self, *words: str) -> str:
        """Run `irons WORDS…` and return its stdout."""
        done = subprocess.run([*IRONS, *words], env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"irons {' '.join(words)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    @property
    def unix(self) -> str:
        """The path of the API's socket."""
        return str(self.home / "run/irons/api.sock")


@contextmanager
def backend() -> Iterator[Backend]:
    """Start a backend; it is ended, and its files removed, at the end."""
    with tempfile.TemporaryDirectory(prefix="irons-bench-") as place:
        made = Backend(Path(place))
        try:
            yield made
        finally:
            subprocess.run(
                [*IRONS, "local", "uninstall", "--purge", "--yes"],
                env=made.env,
                capture_output=True,
                check=False,
            )


def certificate(home: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 and its key."""
    cert, key = home / "cert.pem", home / "key.pem"
    words = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=bench"
    )
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*words.split(), *names], check=True, capture_output=True)
    return cert, key


class Line:
    """One kept connection, on which one call after another is made."""

    def __init__(self, sock: socket.socket, key: str) -> None:
        self._sock = sock
        self._request = (
            f"GET /version HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\nAccept: application/json\r\n\r\n"
        ).encode()

    def call(self) -> float:
        """Make one call; gives its seconds."""
        began = time.perf_counter()
        self._sock.sendall(self._request)
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._more()
        head, _, body = got.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        while len(body) < length:
            body += self._more()
        took = time.perf_counter() - began
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the API answered {head.splitlines()[0].decode()}: {body.decode()}")
        return took

    def round(self, calls: int) -> Spread:
        """Make some calls, one after another."""
        took = sorted(1000 * self.call() for _ in range(calls))
        return Spread(statistics.median(took), took[min(len(took) - 1, int(len(took) * 0.99))])

    def _more(self) -> bytes:
        data = self._sock.recv(65536)
        if not data:
            raise SystemExit("the API closed the connection")
        return data


def unix_line(made: Backend) -> socket.socket:
    """Connect to the unix socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(made.unix)
    return sock


def measure(lines: Mapping[str, Line], calls: int, rounds: int) -> dict[str, Spread]:
    """The median round of each connection; rounds take turns."""
    taken: dict[str, list[Spread]] = {name: [] for name in lines}
    for name, line in lines.items():
        taken[name] = []
        line.round(20)
    for _ in range(rounds):
        for name, line in lines.items():
            taken[name].append(line.round(calls))
    return {
        name: Spread(statistics.median(each.p50 for each in ran), statistics.median(each.p99 for each in ran))
        for name, ran in taken.items()
    }


def measured(calls: int, rounds: int) -> dict[str, tuple[Spread, Spread]]:
    """For TCP and TLS: what a call took there, and on the unix socket in the same rounds."""
    found: dict[str, tuple[Spread, Spread]] = {}
    with backend() as made, ExitStack() as closing:
        made.irons("local", "up", "--listen", _free())
        key = json.loads(made.irons("local", "key", "create", "bench", "-o", "json"))["key"]
        cert, private = certificate(made.home)
        for name in ("TCP", "TLS"):
            listen = _free()
            tls = ["--tls-cert", str(cert), "--tls-key", str(private)] if name == "TLS" else []
            made.irons("local", "up", "--listen", listen, *tls)
            host, _, port = listen.partition(":")
            sock = socket.create_connection((host, int(port)), timeout=20)
            # A client that delays its own small writes would measure itself.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                sock = ssl.create_default_context(cafile=str(cert)).wrap_socket(sock, server_hostname=host)
            near = unix_line(made)
            closing.callback(sock.close)
            closing.callback(near.close)
            ran = measure({name: Line(sock, key), "unix": Line(near, key)}, calls, rounds)
            found[name] = (ran[name], ran["unix"])
    return found


def _free() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def main() -> int:
    """Measure, print a table, and return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    found = measured(asked.calls, asked.rounds)
    print(
        f"GET /version on one kept connection, {asked.calls} calls a round, median of {asked.rounds} rounds"
    )
    held = True
    for name, (over, unix) in found.items():
        good = over.p50 <= P50_MS
        held = held and good
        print(
            f"{name:<5} p50 {over.p50:6.2f} ms  p99 {over.p99:6.2f} ms   unix socket p50 {unix.p50:6.2f} ms  p99 {unix.p99:6.2f} ms"
            f"   {over.p50 / unix.p50:5.2f} x   {'' if good else 'MISSED'}"
        )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
