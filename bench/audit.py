"""How fast, and in how much memory, `irons audit egress` prints a long log to a pipe; ends with 1 where a bar is missed.

Once from the local backend, which is started with a home of its own and a log laid into its database, and once from a loopback server that
answers out of memory. Next to it, in the same run: a program that only fetches the same pages by http.client and reads their JSON.

    python -m bench.audit [--events N] [--page N] [--runs N]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from bench.api import backend

IRONS = Path(sys.executable).with_name("irons")
LOCAL_EVENTS_PER_SECOND = 100_000
EVENTS_PER_SECOND = 50_000
PEAK_MB = 80.0

FETCH = """
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
token = 0
while True:
    connection.request("GET", f"/sandboxes/one/audit/egress?pageToken={token}")
    page = json.loads(connection.getresponse().read())
    for event in page["events"]:
        sys.stdout.write(event["host"] + "\\n")
    if not page["events"]:
        break
    token = page["page_token"]
"""


LAY = """
INSERT INTO events (subject, at, host, port, protocol, allowed, verdict, mode, rule, reason, address, count, bytes_in, bytes_out,
  duration_ms, ended, cause, outcome, domain, connection)
VALUES (?, ?, ?, 443, 'tls', ?, ?, 'deny', '*.example.com', 'rule *.example.com (account) allows it', '192.0.2.7', 1, 5321, 812,
  153, 'the server closed it', 'rule', ?, 'example.com', ?)
"""


class Ran(NamedTuple):
    """One run: seconds from start to end, seconds of processor time, and the peak of its memory."""

    seconds: float
    processor: float
    peak_mb: float


def answers(events: int, page: int) -> dict[int, bytes]:
    """Return whole HTTP answers by the token they are asked with."""
    began = datetime(2026, 2, 19, 23, 42, 25, tzinfo=UTC)
    found: dict[int, bytes] = {}
    for first in range(0, events + 1, page):
        numbers = range(first + 1, min(first + page, events) + 1)
        body = {"events": [_event(number, began) for number in numbers], "page_token": first + len(numbers)}
        found[first] = _http(json.dumps(body).encode())
    found.setdefault(events, _http(json.dumps({"events": [], "page_token": events}).encode()))
    return found


def _event(number: int, began: datetime) -> dict[str, object]:
    allowed = number % 3 != 0
    return {
        "type": "egress",
        "id": number,
        "timestamp": (began + timedelta(milliseconds=37 * number)).isoformat().replace("+00:00", "Z"),
        "sandbox_name": "one",
        "sandbox_id": "sb_0123456789abcdef",
        "host": f"host-{number % 997}.example.com",
        "port": 443,
        "protocol": "tls",
        "allowed": allowed,
        "verdict": "allowed" if allowed else "blocked",
        "mode": "deny",
        "reason": "rule *.example.com (account) allows it",
        "count": 1,
        "bytes_in": 5321,
        "bytes_out": 812,
        "duration_ms": 153.2,
    }


def _http(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def serve(listening: socket.socket, events: int, page: int) -> None:
    """Answer one connection after another, from memory: this process's, for a child starts with its parent's peak."""
    told = answers(events, page)
    missing = _http(b"404 page not found", "404 Not Found")
    while True:
        connection, _ = listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as requests:
            while line := requests.readline():
                while requests.readline() not in (b"\r\n", b""):
                    pass
                asked = urlsplit(line.split()[1].decode())
                token = int(dict(parse_qsl(asked.query)).get("pageToken", "0"))
                connection.sendall(told[token] if asked.path.endswith("/audit/egress") else missing)


def lay(database: Path, events: int) -> None:
    """Lay a log of one sandbox into the database of a local backend."""
    began = int(time.time() * 1e6) - 37_000 * events
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        laid = connection.execute(
            "INSERT INTO subjects (sandbox, name, events) VALUES ('sb_0123456789abcdef', 'one', ?)", (events,)
        )
        connection.executemany(LAY, (_row(laid.lastrowid, number, began) for number in range(events)))


def _row(subject: int | None, number: int, began: int) -> tuple[object, ...]:
    allowed = number % 3 != 0
    verdict, outcome = ("allowed", "reached") if allowed else ("blocked", "refused")
    host, connection = f"host-{number % 997}.example.com", f"c0-{number:08x}"
    return subject, began + 37_000 * number, host, allowed, verdict, outcome, connection


def run(argv: Sequence[str], env: dict[str, str], lines: int) -> Ran:
    """Run a program, read its stdout through a pipe, and measure it."""
    began = time.perf_counter()
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        count = 0
        while chunk := process.stdout.read(1 << 16):
            count += chunk.count(b"\n")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode or count != lines:
        raise SystemExit(f"{argv[0]}: exit {process.returncode}, {count} lines instead of {lines}")
    return Ran(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> int:
    """Measure, print a table, and return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--page", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = multiprocessing.get_context("fork").Process(
        target=serve, args=(listening, asked.events, asked.page), daemon=True
    )
    server.start()
    with tempfile.TemporaryDirectory() as home:
        env = {"HOME": home, "PATH": os.environ["PATH"], "IRONS_API_URL": f"http://127.0.0.1:{port}"}
        audit = (str(IRONS), "audit", "egress", "one")
        cases = {
            "irons audit egress": audit,
            "irons audit egress -o jsonl": (*audit, "-o", "jsonl"),
            "fetch and read JSON alone": (sys.executable, "-c", FETCH, str(port)),
        }
        ran = {
            name: [run(argv, env, asked.events) for _ in range(asked.runs)] for name, argv in cases.items()
        }
    server.terminate()
    server.join()
    with backend() as local:
        local.irons("local", "up")
        lay(local.home / ".local/state/irons/local/irons.db", asked.events)
        env = {**local.env, "IRONS_API_URL": "local"}
        for name, words in (("local backend", ()), ("local backend, -o jsonl", ("-o", "jsonl"))):
            ran[name] = [run((*audit, *words), env, asked.events) for _ in range(asked.runs)]
    print(f"{asked.events} events in pages of {asked.page}, median of {asked.runs} runs")
    held = True
    for name, runs in ran.items():
        seconds = statistics.median(each.seconds for each in runs)
        processor = statistics.median(each.processor for each in runs)
        peak = max(each.peak_mb for each in runs)
        rate = asked.events / seconds
        bar = {"irons audit egress": EVENTS_PER_SECOND, "local backend": LOCAL_EVENTS_PER_SECOND}.get(name)
        good = bar is None or (rate >= bar and peak <= PEAK_MB)
        held = held and good
        print(
            f"{name:<30} {seconds:6.2f} s  {processor:6.2f} s CPU  {rate:9,.0f} events/s  {peak:5.1f} MB  {'' if good else 'MISSED'}"
        )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
