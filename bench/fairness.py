"""What a neighbour in another sandbox costs: new connections, lookups and fetches, alone and next to others at work.

    python -m bench.fairness [--rounds N] [--turns N] [--seconds N] [--flood NAME]

Two tables. In the first, one sandbox makes connections one after the other, each judged, recorded and answered. Next to
it, in turn: no one; a neighbour that only computes, which takes as much of the machine and nothing of the gateway; one
that is busy and well behaved, 64 connections at once, each answered; and a hostile one, which opens as many connections
as it may and sends each a byte of an endless request head whenever there is room. All share this machine's processors
with the gateway and with the server, so what is shown is the rate next to a neighbour in parts of that next to the
computing one.

In the second, a sandbox looks up a name and fetches a page all the time, next to each flood of bench/lab/floods.py, by
one connection and by 64: in the gateway's worker that also serves the flood, and, where there are several, in another.
None of its steps may fail, and the gateway's processes must stay. Each figure is the median of rounds that take turns.
Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.gateway import AT_ONCE, WARMING
from bench.lab.measure import verdict
from bench.lab.stage import ROOT, Stage, stage
from bench.lab.ways import NAME, QUICK_PORT, Way, far_end, sandbox

DRIBBLED = 400
BAR = 0.4
LATE, LATE_AIM = 100.0, 50.0
"""Milliseconds within which 19 of 20 of a neighbour's steps end next to a flood."""
NEIGHBOURS = {
    "nobody": None,
    "one that only computes": ["spin"],
    "a busy one": ["busy", str(AT_ONCE)],
    "a hostile one": ["dribble", str(DRIBBLED)],
}
FLOODS = (
    "dns",
    "chunks",
    "gets",
    "blanks",
    "heads",
    "trailers",
    "upload",
    "opaque",
    "websocket",
    "pings",
    "frames",
    "blocks",
    "connects",
    "udp",
    "asks",
)
CROWDS = (1, 64)
SINK_PORT, PAGE_PORT = 9080, 9081
LAB = ROOT / "bench/lab"
_WITHIN = 120.0


def inside(way: Way, *words: str) -> list[str]:
    """The words that run a program of the bench's in a sandbox's network."""
    return ["nsenter", "-t", str(way.process), "-n", sys.executable, *words]


@contextmanager
def at_work(argv: Sequence[str], name: str) -> Iterator[None]:
    """Have a neighbour at work, once it says that it is."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as neighbour:
        assert neighbour.stdout is not None
        try:
            if neighbour.stdout.readline() != "at work\n":
                raise SystemExit(f"{name} does not start")
            yield
            if neighbour.poll() is not None:
                raise SystemExit(f"{name} ended: {neighbour.returncode}")
        finally:
            neighbour.kill()


@contextmanager
def beside(way: Way, words: list[str] | None) -> Iterator[None]:
    """Have a neighbour of the first table at work."""
    if words is None:
        yield
        return
    argv = inside(way, str(LAB / "near_end.py"), words[0], way.address, str(QUICK_PORT), NAME, *words[1:])
    with at_work(argv, words[0]):
        yield


@contextmanager
def sink(on: Stage) -> Iterator[None]:
    """Serve floods and pages in the lab's internet."""
    words = [sys.executable, str(LAB / "sink.py"), "0.0.0.0", str(SINK_PORT), str(PAGE_PORT)]
    argv = ["nsenter", "-t", str(on.lab.internet), "-n", *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            server.stdout.readline()
            yield
        finally:
            server.stdin.close()


class Steps(NamedTuple):
    """What a neighbour's life was like for a moment.

    Attributes:
        p95: milliseconds within which 19 of 20 of its lookups and its fetches ended.
        worst: the longest of them.
        failed: why each that failed did.
    """

    p95: float
    worst: float
    failed: tuple[str, ...]


def life(way: Way, seconds: float) -> Steps:
    """Look up and fetch for so long."""
    argv = inside(way, str(LAB / "neighbour.py"), str(PAGE_PORT), NAME, str(seconds))
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=_WITHIN)
    told = json.loads(done.stdout)
    rows = [sorted(told[name]) or [float("inf")] for name in ("lookups", "fetches")]
    late = max(row[int(len(row) * 0.95)] for row in rows)
    return Steps(late * 1e3, max(row[-1] for row in rows) * 1e3, tuple(told["failed"]))


def workers(on: Stage) -> dict[int, str]:
    """The gateway's processes, by their number."""
    return {pid: name for name, pid in on.running() if name.startswith("gateway")}


def worker_of(way: Way, pids: Sequence[int]) -> int:
    """The process that holds the sockets of a sandbox's cell."""
    rows = [line.split() for line in Path(f"/proc/{way.process}/net/tcp").read_text("ascii").splitlines()[1:]]
    listening = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    for pid in pids:
        held = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
        if listening & held:
            return pid
    raise SystemExit(f"no process of the gateway serves {way.name}")


def new_connections(on: Stage, rounds: int, turns: int) -> bool:
    """The first table."""
    rates: dict[str, list[float]] = {name: [] for name in NEIGHBOURS}
    with far_end(on, 1):
        one, other = sandbox(on, "one"), sandbox(on, "other")
        for way in (one, other):
            way.run("crowd", QUICK_PORT, WARMING, AT_ONCE)
        for _ in range(rounds):
            for name, neighbour in NEIGHBOURS.items():
                with beside(other, neighbour):
                    taken = one.run("turns", QUICK_PORT, turns)["seconds"]
                rates[name].append(len(taken) / sum(taken))
    print(f"\nnew connections/s, one after the other, beside{'median':>12}{'worst':>8}")
    for name, row in rates.items():
        print(f"  {name:<44}{statistics.median(row):>10.0f}{min(row):>8.0f}")
    computing = statistics.median(rates["one that only computes"])
    held = [
        verdict(f"beside {name}", statistics.median(rates[name]) / computing, BAR, at_most=False)
        for name in ("a busy one", "a hostile one")
    ]
    return all(held)


def neighbours_of(on: Stage, flooding: Way, pids: Sequence[int]) -> dict[str, Way]:
    """One sandbox in the worker that serves the flood, and one in another where there are several."""
    found: dict[str, Way] = {}
    same = worker_of(flooding, pids)
    for number in range(2 * len(pids)):
        way = sandbox(on, f"neighbour-{number}")
        found.setdefault("same worker" if worker_of(way, pids) == same else "another worker", way)
        if len(found) == min(2, len(pids)):
            break
    return found


def floods(on: Stage, names: Sequence[str], rounds: int, seconds: float) -> bool:
    """The second table."""
    before = workers(on)
    flooding = sandbox(on, "flooding")
    rows: dict[tuple[str, str], list[Steps]] = {}
    with sink(on):
        ways = neighbours_of(on, flooding, list(before))
        spin = inside(flooding, str(LAB / "near_end.py"), "spin", flooding.address, "1", NAME)
        for _ in range(rounds):
            for where, way in ways.items():
                with at_work(spin, "the computing one"):
                    rows.setdefault(("computing", where), []).append(life(way, seconds))
                for name in names:
                    for count in CROWDS:
                        words = [name, flooding.address, str(SINK_PORT), NAME, str(count)]
                        with at_work(inside(flooding, str(LAB / "floods.py"), *words), name):
                            told = life(way, seconds)
                        rows.setdefault((f"{name}, {count}", where), []).append(told)
    after = workers(on)
    print(f"\na neighbour's steps, ms, beside{'p95':>34}{'worst':>8}{'failed':>8}")
    for (name, where), row in rows.items():
        late = statistics.median(each.p95 for each in row)
        failed = sum(len(each.failed) for each in row)
        print(f"  {name:<20}{where:<34}{late:>10.1f}{max(each.worst for each in row):>8.0f}{failed:>8}")
    flooded = {key: row for key, row in rows.items() if key[0] != "computing"}
    held = [
        verdict(
            f"{where}: p95 beside the worst flood",
            max(statistics.median(e.p95 for e in row) for (_, at), row in flooded.items() if at == where),
            LATE,
            unit=" ms",
            aim=LATE_AIM,
        )
        for where in ways
    ]
    lost = [why for row in flooded.values() for each in row for why in each.failed]
    held.append(verdict("steps that failed", len(lost), 0))
    held.append(verdict("processes of the gateway that were replaced", len(before.keys() - after.keys()), 0))
    return all(held)


def main() -> int:
    """Measure and print; 1 where a bar is missed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=7, help="rounds of each (default: 7)")
    words.add_argument(
        "--turns", type=int, default=300, help="connections in turn, each round (default: 300)"
    )
    words.add_argument("--seconds", type=float, default=1.5, help="of life beside a flood (default: 1.5)")
    words.add_argument("--flood", action="append", choices=FLOODS, help="this flood alone; may be repeated")
    asked = words.parse_args()
    with stage() as on:
        held = [] if asked.flood else [new_connections(on, asked.rounds, asked.turns)]
        held.append(floods(on, asked.flood or FLOODS, asked.rounds, asked.seconds))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
