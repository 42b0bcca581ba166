"""What a neighbour in another sandbox costs: new connections through the gateway, alone and beside others at work.

    python -m bench.fairness [--rounds N] [--turns N]

One sandbox makes connections one after the other, each judged, written down and answered. Beside it, in turn: nobody;
a neighbour that only computes, which takes as much of the machine and nothing of the gateway; one that is busy and
well behaved, 64 connections at once, each answered; and a hostile one, which opens as many connections as it may and
sends each a byte of an endless request head whenever there is room. All share this machine's processors with the
gateway and with the server, so what is shown is the rate beside a neighbour in parts of that beside the computing one.
Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.gateway import AT_ONCE, NAME, QUICK_PORT, WARMING, Way, far_end
from bench.lab.measure import verdict
from bench.lab.stage import ROOT, Stage, stage

DRIBBLED = 400
BAR = 0.4
NEIGHBOURS = {
    "nobody": None,
    "one that only computes": ["spin"],
    "a busy one": ["busy", str(AT_ONCE)],
    "a hostile one": ["dribble", str(DRIBBLED)],
}


def sandbox(on: Stage, name: str) -> Way:
    """The network of a sandbox whose rules allow the one name."""
    on.person.ok("create", name, "--mode", "deny", "--allow", f"{NAME}:*", timeout=120)
    found = on.person.inside(name, f"getent ahostsv4 {NAME}").stdout
    return Way(name, on.init_of(name), found.split()[0])


@contextmanager
def beside(way: Way, words: list[str] | None) -> Iterator[None]:
    """Have a neighbour at work."""
    if words is None:
        yield
        return
    client = [
        sys.executable,
        str(ROOT / "bench/lab/near_end.py"),
        words[0],
        way.address,
        str(QUICK_PORT),
        NAME,
    ]
    argv = ["nsenter", "-t", str(way.process), "-n", *client, *words[1:]]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as neighbour:
        assert neighbour.stdout is not None
        try:
            if neighbour.stdout.readline() != "at work\n":
                raise SystemExit(f"the neighbour that should {words[0]} does not")
            yield
            if neighbour.poll() is not None:
                raise SystemExit(f"the neighbour that should {words[0]} ended: {neighbour.returncode}")
        finally:
            neighbour.kill()


def main() -> int:
    """Measure and print; 1 where a bar is missed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=5, help="rounds of each (default: 5)")
    words.add_argument(
        "--turns", type=int, default=300, help="connections in turn, each round (default: 300)"
    )
    asked = words.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in NEIGHBOURS}
    with stage() as on, far_end(on, 1):
        one, other = sandbox(on, "one"), sandbox(on, "other")
        for way in (one, other):
            way.run("crowd", QUICK_PORT, WARMING, AT_ONCE)
        for _ in range(asked.rounds):
            for name, neighbour in NEIGHBOURS.items():
                with beside(other, neighbour):
                    taken = one.run("turns", QUICK_PORT, asked.turns)["seconds"]
                rates[name].append(len(taken) / sum(taken))
    print(f"\nnew connections/s, one after the other, beside{'median':>12}{'worst':>8}")
    for name, row in rates.items():
        print(f"  {name:<44}{statistics.median(row):>10.0f}{min(row):>8.0f}")
    computing = statistics.median(rates["one that only computes"])
    held = [
        verdict(f"beside {name}", statistics.median(rates[name]) / computing, BAR, at_most=False)
        for name in ("a busy one", "a hostile one")
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
