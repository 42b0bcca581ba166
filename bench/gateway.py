"""What the gateway costs: downloads and new connections through it, beside a router with NAT in the same run.

    python -m bench.gateway [--rounds N] [--megabytes N] [--turns N] [--crowd N]

Both ways lead to the same servers in the lab's internet. Through the gateway: a real sandbox in mode `deny`, its name
asked of its own name server, allowed by a rule, every connection judged and written down. Beside it: a client behind
two links and a router that masquerades, as containers usually reach the world. The two take turns, so that what else
the machine does meets both. Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from bench.lab.measure import Spread, cpu_seconds, verdict
from bench.lab.stage import ROOT, Stage, stage
from tests.e2e.lab import HOLD

NAME = "files.example.test"
ADDRESS = "203.0.113.20"
BULK_PORT, QUICK_PORT = 9001, 9002
AT_ONCE = 64
WARMING = 200
SETTLED = 10.0
SANDBOX = "bench"


class Way(NamedTuple):
    """One way to the servers.

    Attributes:
        name: as it is printed.
        process: whose network namespace the client runs in.
        address: what the client connects to.
    """

    name: str
    process: int
    address: str

    def run(self, kind: str, port: int, *numbers: int) -> dict[str, Any]:
        """Run the client and return what it says."""
        client = [sys.executable, str(ROOT / "bench/lab/near_end.py")]
        words = [kind, self.address, str(port), NAME, *map(str, numbers)]
        argv = ["nsenter", "-t", str(self.process), "-n", *client, *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            raise SystemExit(f"{self.name}: {kind}: exit {done.returncode}: {done.stderr.strip()}")
        told: dict[str, Any] = json.loads(done.stdout)
        return told


@contextmanager
def far_end(on: Stage, size: int) -> Iterator[None]:
    """Serve in the internet for as long as the benchmark runs."""
    words = [str(ROOT / "bench/lab/far_end.py"), ADDRESS, str(BULK_PORT), str(size), str(QUICK_PORT)]
    argv = ["nsenter", "-t", str(on.lab.internet), "-n", sys.executable, *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            server.stdout.readline()
            yield
        finally:
            server.stdin.close()


@contextmanager
def routed(internet: int) -> Iterator[Way]:
    """A client in a namespace behind a router that masquerades it: 10.77.0.2 - 10.77.0.1 ~ 192.0.2.2 - 192.0.2.1."""
    with ExitStack() as held:
        client, router = (held.enter_context(_namespace()) for _ in range(2))
        _link(("c0", client, "10.77.0.2/24"), ("r0", router, "10.77.0.1/24"))
        _link(("r1", router, "192.0.2.2/30"), ("i1", internet, "192.0.2.1/30"))
        _in(client, "ip route add default via 10.77.0.1")
        _in(router, "ip route add default via 192.0.2.1")
        _in(router, "sysctl -q -w net.ipv4.ip_forward=1")
        rule = "table ip nat { chain out {\ntype nat hook postrouting priority srcnat\noifname r1 masquerade\n}\n}\n"
        subprocess.run(
            ["nsenter", "-t", str(router), "-n", "nft", "-f", "-"], input=rule.encode(), check=True
        )
        yield Way("routed with NAT", client, ADDRESS)


@contextmanager
def _namespace() -> Iterator[int]:
    argv = ["unshare", "--net", sys.executable, "-c", HOLD]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        try:
            yield int(holder.stdout.readline())
        finally:
            holder.stdin.close()


def _link(one: tuple[str, int, str], other: tuple[str, int, str]) -> None:
    _in(one[1], f"ip link add {one[0]} type veth peer name {other[0]} netns {other[1]}")
    for name, process, address in (one, other):
        _in(process, f"ip addr add {address} dev {name}")
        _in(process, f"ip link set {name} up")


def _in(process: int, line: str) -> None:
    subprocess.run(["nsenter", "-t", str(process), "-n", *line.split()], check=True)


@contextmanager
def sandboxed(on: Stage) -> Iterator[Way]:
    """The network of a sandbox whose rules allow the one name."""
    on.person.ok("create", SANDBOX, "--mode", "deny", "--allow", f"{NAME}:*", timeout=120)
    found = on.person.inside(SANDBOX, f"getent ahostsv4 {NAME}").stdout
    yield Way("the gateway", on.init_of(SANDBOX), found.split()[0])


class Cost(NamedTuple):
    """Processor time the daemon used, in seconds."""

    gateway: float
    server: float

    @classmethod
    def so_far(cls, on: Stage) -> Cost:
        """All of it up to now."""
        processes = on.processes()
        return cls(cpu_seconds(processes["gateway"]), cpu_seconds(processes["server"]))

    def since(self, before: Cost) -> Cost:
        """What was used since `before`."""
        return Cost(self.gateway - before.gateway, self.server - before.server)


def downloads(on: Stage, ways: tuple[Way, Way], rounds: int) -> bool:
    """One download at a time."""
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    before, moved = Cost.so_far(on), 0
    for _ in range(rounds):
        for way in ways:
            told = way.run("bulk", BULK_PORT)
            rates[way.name].append(told["bytes"] / told["seconds"] / 1e9)
            moved += told["bytes"] if way is ways[1] else 0
    cost = Cost.so_far(on).since(before)
    print(f"\none download, GB/s{'median':>16}{'best':>8}")
    for name, row in rates.items():
        print(f"  {name:<24}{statistics.median(row):>8.2f}{max(row):>8.2f}")
    print(f"  the gateway's processor time: {cost.gateway / (moved / 1e9):.2f} s per GB")
    pairs = [gateway / nat for nat, gateway in zip(*rates.values(), strict=True)]
    return verdict(
        "download, gateway / routed (median of pairs)", statistics.median(pairs), 0.5, at_most=False
    )


def one_by_one(ways: tuple[Way, Way], rounds: int, count: int) -> bool:
    """New connections, one after the other."""
    taken: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            taken[way.name] += [each * 1000 for each in way.run("turns", QUICK_PORT, count)["seconds"]]
    spreads = {name: Spread.of(row) for name, row in taken.items()}
    print(f"\nnew connection until its first byte, ms{'p50':>12}{'p99':>8}")
    for name, spread in spreads.items():
        print(f"  {name:<40}{spread.median:>8.3f}{spread.p99:>8.3f}")
    nat, gateway = spreads.values()
    return verdict("added per new connection at p50", gateway.median - nat.median, 0.5, unit=" ms")


def many_at_once(on: Stage, ways: tuple[Way, Way], rounds: int, count: int) -> bool:
    """New connections, 64 at a time."""
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    before = Cost.so_far(on)
    for _ in range(rounds):
        for way in ways:
            told = way.run("crowd", QUICK_PORT, count, AT_ONCE)
            if told["failed"]:
                raise SystemExit(f"{way.name}: {told['failed']} of {count} connections failed")
            rates[way.name].append(told["count"] / told["seconds"])
    cost = Cost.so_far(on).since(before)
    print(f"\nnew connections/s, {AT_ONCE} at once{'median':>10}{'best':>8}")
    for name, row in rates.items():
        print(f"  {name:<32}{statistics.median(row):>8.0f}{max(row):>8.0f}")
    made = rounds * count / 1000
    print(
        f"  processor time each: gateway {cost.gateway / made:.3f} ms, control plane {cost.server / made:.3f} ms"
    )
    return verdict(
        "new connections/s through the gateway", statistics.median(rates[ways[1].name]), 2000, at_most=False
    )


def written_down(on: Stage, made: int) -> bool:
    """Every connection has its event, and only one."""
    deadline = time.monotonic() + SETTLED
    while (found := events(on)) < made and time.monotonic() < deadline:
        time.sleep(0.2)
    print(f"\n{made} connections through the gateway, {found} events in the audit log")
    return found == made


def events(on: Stage) -> int:
    """How many there are of the sandbox."""
    total = token = 0
    with on.api() as api:
        while True:
            page = api.get(f"/sandboxes/{SANDBOX}/audit/egress", params={"pageToken": token}).json()
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
    with (
        stage() as on,
        far_end(on, asked.megabytes << 20),
        routed(on.lab.internet) as nat,
        sandboxed(on) as cell,
    ):
        ways = (nat, cell)
        for way in ways:
            way.run("crowd", QUICK_PORT, WARMING, AT_ONCE)
        held = [
            downloads(on, ways, asked.rounds),
            one_by_one(ways, asked.rounds, asked.turns),
            many_at_once(on, ways, asked.rounds, asked.crowd),
            written_down(on, WARMING + asked.rounds * (1 + asked.turns + asked.crowd)),
        ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
