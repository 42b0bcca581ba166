"""What the gateway costs next to a NAT router, HAProxy and nginx: downloads and new connections, in the same run.

    python -m bench.gateway [--rounds N] [--megabytes N] [--turns N] [--crowd N]

All ways lead to the same servers in the lab's internet and begin with the same ClientHello. Through the gateway: two
real sandboxes in mode `deny`, the name asked of their own name servers, allowed by a rule, every connection judged and
recorded. Next to them, two clients each behind a router that masquerades, as containers usually reach the world; behind
HAProxy; and behind nginx with `ssl_preread`, both of which allow the same name (bench/lab/peers.py). A proxy that is
not installed is left out, with its bars. The ways take turns, and each figure is the median over the rounds, so what
else the machine does meets all of them. Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.lab.measure import Spread, cpu_seconds, verdict
from bench.lab.peers import PEERS, proxied, routed
from bench.lab.stage import Stage, stage
from bench.lab.ways import BULK_PORT, NAME, QUICK_PORT, Route, Way, far_end, sandbox

__all__ = ["AT_ONCE", "NAME", "QUICK_PORT", "WARMING", "Way", "far_end"]

AT_ONCE = 64
WARMING = 200
SETTLED = 10.0
SANDBOXES = ("bench-one", "bench-two")
GATEWAY, NAT, HAPROXY = "irons", "routed NAT", "HAProxy"

Rounds = dict[str, list[float]]


class Cost(NamedTuple):
    """Processor time the daemon used, in seconds."""

    gateway: float
    server: float

    @classmethod
    def so_far(cls, on: Stage) -> Cost:
        """All of it up to now."""
        used = {"gateway": 0.0, "server": 0.0}
        for name, pid in on.running():
            for part in used:
                used[part] += cpu_seconds(pid) if name.startswith(part) else 0.0
        return cls(**used)

    def since(self, before: Cost) -> Cost:
        """What was used since `before`."""
        return Cost(self.gateway - before.gateway, self.server - before.server)


@contextmanager
def routes(on: Stage) -> Iterator[tuple[Route, ...]]:
    """All ways to the servers, irons last; a proxy that is not installed is named and left out."""
    with ExitStack() as held:
        directory = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="irons-bench-")))
        found = [held.enter_context(routed(on.lab.internet))]
        for place, peer in enumerate(PEERS, 1):
            if peer.installed:
                found.append(held.enter_context(proxied(peer, on.lab.internet, place, directory)))
            else:
                print(f"{peer.name} is not installed (Debian: {peer.package}); its rows are left out")
        found.append(Route(GATEWAY, tuple(sandbox(on, name) for name in SANDBOXES)))
        yield tuple(found)


def table(title: str, columns: str, rows: Mapping[str, tuple[float, ...]], digits: int) -> None:
    """Print figures of each way."""
    print(f"\n{title:<44}{columns}")
    for name, row in rows.items():
        print(f"  {name:<40}" + "".join(f"{value:>10.{digits}f}" for value in row))


def ratio(of: Rounds, to: str) -> float:
    """The median, over the rounds, of what irons reached in parts of another in the same round."""
    return statistics.median(mine / other for mine, other in zip(of[GATEWAY], of[to], strict=True))


def added(of: Rounds, name: str) -> float:
    """The median, over the rounds, of what a way takes more than routed NAT in the same round."""
    return statistics.median(mine - nat for mine, nat in zip(of[name], of[NAT], strict=True))


def downloads(on: Stage, ways: tuple[Route, ...], rounds: int) -> bool:
    """One download at a time."""
    rates: Rounds = {way.name: [] for way in ways}
    before, moved = Cost.so_far(on), 0
    for _ in range(rounds):
        for way in ways:
            told = way.ways[0].run("bulk", BULK_PORT)
            rates[way.name].append(told["bytes"] / told["seconds"] / 1e9)
            moved += told["bytes"] if way.name == GATEWAY else 0
    cost = Cost.so_far(on).since(before)
    rows = {name: (statistics.median(row), max(row)) for name, row in rates.items()}
    table("one download, GB/s", "    median      best", rows, 2)
    print(f"  the gateway's processor time: {cost.gateway / (moved / 1e9):.2f} s per GB")
    held = [verdict("download, irons / routed NAT", ratio(rates, NAT), 0.5, at_most=False, unit="x", aim=0.8)]
    if HAPROXY in rates:
        held.append(verdict("download, irons / HAProxy", ratio(rates, HAPROXY), 1.2, at_most=False, unit="x"))
    return all(held)


def one_by_one(ways: tuple[Route, ...], rounds: int, count: int) -> bool:
    """New connections, one after the other."""
    middle: Rounds = {way.name: [] for way in ways}
    late: Rounds = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            spread = Spread.of(
                [each * 1000 for each in way.ways[0].run("turns", QUICK_PORT, count)["seconds"]]
            )
            middle[way.name].append(spread.median)
            late[way.name].append(spread.p99)
    rows = {
        name: (
            statistics.median(middle[name]),
            statistics.median(late[name]),
            added(middle, name),
            added(late, name),
        )
        for name in middle
    }
    table("new connection until its first byte, ms", "       p50       p99    + p50     + p99", rows, 3)
    return all(
        [
            verdict("added per new connection at p50", rows[GATEWAY][2], 0.3, unit=" ms", aim=0.2),
            verdict("added per new connection at p99", rows[GATEWAY][3], 1.0, unit=" ms", aim=0.5),
        ]
    )


def many_at_once(on: Stage, ways: tuple[Route, ...], rounds: int, count: int) -> bool:
    """New connections, 64 at a time, from two clients."""
    rates: Rounds = {way.name: [] for way in ways}
    before = Cost.so_far(on)
    for _ in range(rounds):
        for way in ways:
            rates[way.name].append(way.crowd(QUICK_PORT, count, AT_ONCE))
    cost = Cost.so_far(on).since(before)
    rows = {name: (statistics.median(row), max(row)) for name, row in rates.items()}
    table(f"new connections/s, {AT_ONCE} at once from two clients", "    median      best", rows, 0)
    made = rounds * count / 1000
    print(
        f"  processor time each: gateway {cost.gateway / made:.3f} ms, control plane {cost.server / made:.3f} ms"
    )
    held = [verdict("new connections/s, irons", rows[GATEWAY][0], 2000, at_most=False, unit="/s")]
    if HAPROXY in rates:
        met = verdict(
            "new connections/s, irons / HAProxy",
            ratio(rates, HAPROXY),
            0.25,
            at_most=False,
            unit="x",
            aim=0.4,
        )
        held.append(met)
    return all(held)


def recorded(on: Stage, made: int) -> bool:
    """Check that every connection has one event."""
    deadline = time.monotonic() + SETTLED
    while (found := sum(events(on, name) for name in SANDBOXES)) < made and time.monotonic() < deadline:
        time.sleep(0.2)
    print(f"\n{made} connections through the gateway, {found} events in the audit log")
    return found == made


def events(on: Stage, name: str) -> int:
    """How many events there are of a sandbox."""
    total = token = 0
    with on.api() as api:
        while True:
            page = api.get(
                f"/sandboxes/{name}/audit/egress", params={"pageToken": token, "page_size": 1000}
            ).json()
            if not page["events"]:
                return total
            total, token = total + len(page["events"]), page["page_token"]


def main() -> int:
    """Measure and print; 1 where a bar is missed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=7, help="rounds of each (default: 7)")
    words.add_argument("--megabytes", type=int, default=1024, help="size of a download (default: 1024)")
    words.add_argument(
        "--turns", type=int, default=300, help="connections in turn, each round (default: 300)"
    )
    words.add_argument(
        "--crowd", type=int, default=4000, help="connections at once, each round (default: 4000)"
    )
    asked = words.parse_args()
    with stage() as on, far_end(on, asked.megabytes << 20), routes(on) as ways:
        for way in ways:
            way.crowd(QUICK_PORT, WARMING, AT_ONCE)
        held = [
            downloads(on, ways, asked.rounds),
            one_by_one(ways, asked.rounds, asked.turns),
            many_at_once(on, ways, asked.rounds, asked.crowd),
            recorded(on, WARMING + asked.rounds * (1 + asked.turns + asked.crowd)),
        ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
