"""What a further worker of the gateway costs, and what the death of one costs others, next to a gateway started on its own.

    python -m bench.workers [--workers N] [--connections N] [--kills N]

Own memory is what the kernel would get back if that worker ended (`Private_Dirty` of proc(5)): at rest, and after so many
connections through it. Next to it: the same of a gateway that was started by itself and not forked from a warm process.
Then one worker is killed again and again: how long its sandbox waits until a connection is answered, and what another
sandbox, which connects all the time, notices of it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.lab.measure import verdict
from bench.lab.stage import Stage, stage
from bench.lab.ways import QUICK_PORT, Way, far_end, sandbox

from irons_local.ipc.link import Link

PLENTY = 16
OWN_MB = 10.0
BACK_S = 1.0
_PAUSE = 61.0
"""Seconds between two deaths, so that no sandbox is put into a worker of its own."""


def own_memory(pid: int) -> float:
    """Private_Dirty of a process, in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no Private_Dirty")


def workers(on: Stage) -> list[dict[str, Any]]:
    """The gateway's workers, as the keeper tells of them, once all are there."""
    while True:
        with on.api() as api:
            told: list[dict[str, Any]] = api.get("/status").json()["keeper"]["gateways"]
        if all(each["pid"] for each in told):
            return told
        time.sleep(0.05)


@contextmanager
def started_alone() -> Iterator[int]:
    """A gateway that was not forked from a warm process; gives its pid."""
    near, far = socket.socketpair()
    with tempfile.TemporaryDirectory() as home, near, far:
        argv = [sys.executable, "-I", "-m", "irons_local.gateway"]
        env = {**os.environ, "IRONS_LINK": str(far.fileno())}
        with subprocess.Popen(argv, cwd=home, env=env, pass_fds=[far.fileno()]) as process:
            Link(near).recv()
            yield process.pid
            process.terminate()


def memory(on: Stage, ways: dict[int, Way], connections: int) -> bool:
    """Own memory of each worker, before and after its sandbox has made connections."""
    with started_alone() as alone:
        whole = own_memory(alone)
    at_rest = {each["worker"]: own_memory(each["pid"]) for each in workers(on)}
    for way in ways.values():
        failed = way.run("crowd", QUICK_PORT, connections, PLENTY)["failed"]
        if failed:
            raise SystemExit(f"{failed} connections failed")
    used = {each["worker"]: own_memory(each["pid"]) for each in workers(on)}
    print(f"\nown memory (Private_Dirty), MB; {connections} connections each\n  worker   at rest   after")
    for number in sorted(ways):
        print(f"  {number:>6}{at_rest[number]:>10.1f}{used[number]:>8.1f}")
    print(f"  a gateway started by itself, at rest: {whole:.1f}\n")
    return verdict(
        "own memory of a worker, the largest", max(used[each] for each in ways), OWN_MB, unit=" MB"
    )


class Neighbour:
    """A sandbox that makes one connection after the other; what it sees fail is counted."""

    def __init__(self, way: Way) -> None:
        self.failed = 0
        self.made = 0
        self.slowest = 0.0
        self._way = way
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while not self._done.is_set():
            try:
                said = self._way.run("turns", QUICK_PORT, 50)
            except SystemExit:
                self.failed += 1
                continue
            self.made += len(said["seconds"])
            self.slowest = max(self.slowest, *said["seconds"])

    def end(self) -> None:
        """Stop."""
        self._done.set()
        self._thread.join()


def deaths(on: Stage, victim: tuple[int, Way], other: Way, kills: int) -> bool:
    """Kill one worker again and again."""
    number, way = victim
    back = []
    neighbour = Neighbour(other)
    try:
        for turn in range(kills):
            if turn:
                time.sleep(_PAUSE)
            pid = next(each["pid"] for each in workers(on) if each["worker"] == number)
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            while True:
                argv = way.argv("turns", QUICK_PORT, 1)
                done = subprocess.run(argv, capture_output=True, text=True, check=False)
                if done.returncode == 0:
                    break
            back.append(time.monotonic() - killed)
    finally:
        neighbour.end()
    print(f"\nback after a kill, s: {json.dumps([round(each, 3) for each in back])}")
    print(f"the neighbour: {neighbour.made} connections, slowest {neighbour.slowest * 1000:.0f} ms")
    return all(
        [
            verdict(
                "a killed worker's sandbox is served again, median",
                statistics.median(back),
                BACK_S,
                unit=" s",
            ),
            verdict("what failed for a sandbox of another worker", neighbour.failed, 0),
        ]
    )


def main() -> int:
    """Measure and print; 1 where a bar is missed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--workers", type=int, default=4, help="workers of the gateway (default: 4)")
    words.add_argument("--connections", type=int, default=1000, help="connections of each (default: 1000)")
    words.add_argument("--kills", type=int, default=3, help="deaths of one worker (default: 3)")
    asked = words.parse_args()
    with stage() as on, far_end(on, 1 << 20):
        config = on.person.home / ".config/irons/config.toml"
        config.write_text(f"[local]\ngateway_workers = {asked.workers}\n")
        on.person.ok("local", "down")
        on.person.ok("local", "up")
        names = [f"w{number}" for number in range(asked.workers)]
        made = {name: sandbox(on, name) for name in names}
        with on.api() as api:
            ids = {api.get(f"/sandboxes/{name}").json()["id"]: name for name in names}
        ways = {each["worker"]: made[ids[each["cells"][0]]] for each in workers(on) if each["cells"]}
        held = [memory(on, ways, asked.connections)]
        first, second = sorted(ways)[:2]
        held.append(deaths(on, (first, ways[first]), ways[second], asked.kills))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
