"""How long `irons` takes to answer, next to the bare interpreter (`python -I -S -c pass`) in the same run.

Wall-clock medians of interleaved runs, and instruction counts where valgrind is installed. Ends with 1 where a bar is missed.

    python bench/startup.py [--runs N] [--no-valgrind]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

IRONS = Path(sys.executable).with_name("irons")


class Case(NamedTuple):
    """What is run, and how many times the bare interpreter's time it may take (0: shown for comparison alone)."""

    name: str
    argv: tuple[str, ...]
    bar: float = 0.0


class Measured(NamedTuple):
    """A case's median seconds and its instructions (0 without valgrind)."""

    case: Case
    seconds: float
    instructions: int


BARE = Case("python -I -S -c pass", (sys.executable, "-I", "-S", "-c", "pass"))


def cases(url: str) -> list[Case]:
    """Return what is measured; `url` is a loopback server that answers the v0 API."""
    irons = str(IRONS)
    return [
        BARE,
        Case("python -c pass", (sys.executable, "-c", "pass")),
        Case("irons --version", (irons, "--version"), 2.5),
        Case("irons --help", (irons, "--help"), 8.0),
        Case("irons __complete ''", (irons, "__complete", ""), 8.0),
        Case("irons status NAME -o json", (irons, "--api-url", url, "status", "box", "-o", "json"), 22.0),
    ]


def local_case(path: str) -> Case:
    """Return the case of a command on a unix socket, which is how the local backend is reached."""
    argv = (str(IRONS), "--api-url", f"unix://{path}", "status", "box", "-o", "json")
    return Case("the same by a unix socket", argv, 8.0)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(
            {"name": "box", "id": "sb_0", "status": "ready", "created_at": "2026-02-19T16:42:26Z"}
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""


class _UnixServer(ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)

    def get_request(self) -> tuple[socket.socket, Any]:
        return self.socket.accept()[0], ("", 0)


@contextmanager
def unix_server(path: str) -> Iterator[str]:
    """Serve the same on a unix socket."""
    server = _UnixServer(path, _Answer)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def loopback_server() -> Iterator[str]:
    """Serve one status on a loopback port for as long as the benchmark runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def measure(wanted: Sequence[Case], runs: int, env: dict[str, str], *, valgrind: bool) -> list[Measured]:
    """Run every case `runs` times, taking turns, and return the medians in the order of the cases."""
    taken: dict[str, list[float]] = {case.name: [] for case in wanted}
    for turn in range(runs + 1):
        for case in wanted:
            began = time.perf_counter()
            subprocess.run(case.argv, env=env, check=True, stdout=subprocess.DEVNULL)
            if turn:  # the first turn warms the caches
                taken[case.name].append(time.perf_counter() - began)
    return [
        Measured(case, statistics.median(taken[case.name]), instructions(case, env) if valgrind else 0)
        for case in wanted
    ]


def instructions(case: Case, env: dict[str, str]) -> int:
    """Count the instructions of one run with callgrind, which also counts what caches hide."""
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={place}/out", *case.argv],
            env=env,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    found = re.findall(r"Collected : ([0-9]+)", done.stderr)
    return int(found[-1]) if found else 0


def report(measured: Sequence[Measured]) -> bool:
    """Print the table; True where every bar is held."""
    bare = measured[0]
    print(f"{'':<28}{'median':>10}{'ratio':>8}{'bar':>6}{'Minstr':>9}{'ratio':>8}")
    held = True
    for row in measured:
        ratio = row.seconds / bare.seconds
        bar = f"{row.case.bar:g}" if row.case.bar else ""
        counted = ""
        if row.instructions and bare.instructions:
            counted = f"{row.instructions / 1e6:>9.1f}{row.instructions / bare.instructions:>8.1f}"
        missed = bool(row.case.bar) and ratio > row.case.bar
        held = held and not missed
        print(
            f"{row.case.name:<28}{row.seconds * 1000:>7.1f} ms{ratio:>8.1f}{bar:>6}{counted}{'  MISSED' * missed}"
        )
    return held


def main() -> int:
    """Measure and print; 1 where a bar is missed."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--runs", type=int, default=21, help="runs of each case (default: 21)")
    words.add_argument("--no-valgrind", action="store_true", help="do not count instructions")
    asked = words.parse_args()
    valgrind = not asked.no_valgrind and shutil.which("valgrind") is not None
    with loopback_server() as url, tempfile.TemporaryDirectory() as home, unix_server(f"{home}/s") as path:
        kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        env = {**kept, "HOME": home, "IRONS_PLUGINS": ""}
        wanted = [*cases(url), local_case(path)]
        return 0 if report(measure(wanted, asked.runs, env, valgrind=valgrind)) else 1


if __name__ == "__main__":
    sys.exit(main())
