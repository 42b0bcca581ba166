"""How long `irons exec NAME -- true` takes, next to plain ssh with the same keys to the same sandbox in the same run.

    python -m bench.exec [--rounds N] [--crowd N]

Plain ssh is the line that `irons ssh NAME --command` prints; next to it the same line over a connection that ssh itself keeps. The ways
take turns, and figures are medians. Processor time is that of the client's side. What `exec` leaves behind is adopted by this program,
ended and counted to the first `exec`. It needs what `bench.create` needs, and ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.lab.measure import verdict
from bench.lab.stage import Stage, stage

from irons_local.linux import namespaces

NAME = "box"
IRONS = str(Path(sys.executable).with_name("irons"))
_AGAIN = 0.02
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""

PLAIN, SHARED, FIRST, AGAIN = (
    "plain ssh",
    "ssh over a connection it keeps",
    "irons exec, first",
    "irons exec, again",
)


class Taken(NamedTuple):
    """Wall-clock and processor seconds of one turn."""

    wall: float
    processor: float


class Rows:
    """All turns of each way."""

    def __init__(self) -> None:
        self._turns: dict[str, list[Taken]] = {}

    def add(self, way: str, taken: Taken) -> None:
        """Keep one turn."""
        self._turns.setdefault(way, []).append(taken)

    def median(self, way: str) -> Taken:
        """Medians of both."""
        return Taken(*(statistics.median(column) for column in zip(*self._turns[way], strict=True)))

    def ratio(self, way: str) -> Taken:
        """How many times plain ssh's medians they are."""
        mine, plain = self.median(way), self.median(PLAIN)
        return Taken(mine.wall / plain.wall, mine.processor / plain.processor)

    def report(self, title: str) -> None:
        """Print the table."""
        print(f"\n{title:<40}{'wall ms':>9}{'ratio':>7}{'cpu ms':>9}{'ratio':>7}")
        for way in self._turns:
            median, ratio = self.median(way), self.ratio(way)
            print(
                f"  {way:<38}{median.wall * 1000:>9.1f}{ratio.wall:>7.2f}{median.processor * 1000:>9.1f}{ratio.processor:>7.2f}"
            )


def used() -> float:
    """Processor seconds of the children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Orphans:
    """What commands leave behind: this process adopts it from now on."""

    def __init__(self) -> None:
        self._others = self._children()
        namespaces.prctl(_SUBREAPER, 1)

    def end(self) -> float:
        """End all of it; gives its processor seconds."""
        before = used()
        while left := self._children() - self._others:
            for pid in left:
                os.kill(pid, signal.SIGTERM)
            # One that has just begun to wait may have missed it, and is asked again.
            time.sleep(_AGAIN)
            for pid in left:
                os.waitpid(pid, os.WNOHANG)
        return used() - before

    @staticmethod
    def _children() -> set[int]:
        return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()))


def turn(argv: Sequence[str], env: Mapping[str, str], times: int) -> Taken:
    """Run a command, so many times at once."""
    before, began = used(), time.perf_counter()
    processes = [
        subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(times)
    ]
    codes = {process.wait() for process in processes}
    taken = Taken(time.perf_counter() - began, used() - before)
    if codes != {0}:
        raise SystemExit(f"{shlex.join(argv)} ended with {codes}")
    return taken


def measure(on: Stage, orphans: Orphans, rounds: int, times: int) -> Rows:
    """Run each way in turn, so many times at once."""
    env = on.person.env
    *words, host = shlex.split(on.person.ok("ssh", NAME, "--command"))
    socket = on.lab.directory / "shared"
    sharing = ("ssh", "-o", f"ControlPath={socket}", *words[1:])
    keep = (*sharing, "-fN", "-o", "ControlMaster=yes", "-o", "ControlPersist=yes", host)
    plain, shared = ((*each, "-n", host, "--", "true") for each in (words, sharing))
    ours = (IRONS, "exec", NAME, "--", "true")
    rows = Rows()
    for number in range(rounds + 1):
        now = rows if number else Rows()  # the first round warms the caches
        now.add(PLAIN, turn(plain, env, times))
        subprocess.run(keep, env=env, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        now.add(SHARED, turn(shared, env, times))
        orphans.end()
        first, again = turn(ours, env, times), turn(ours, env, times)
        stays = orphans.end()
        now.add(FIRST, first._replace(processor=first.processor + stays))
        now.add(AGAIN, again)
    return rows


def main() -> int:
    """Measure and print; 1 where a bar is missed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=15, help="turns of each way (default: 15)")
    words.add_argument("--crowd", type=int, default=30, help="commands at once (default: 30)")
    asked = words.parse_args()
    with stage() as on:
        on.person.ok("create", NAME)
        orphans = Orphans()
        network = os.open(f"/proc/{on.lab.host}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        namespaces.setns(network, namespaces.NEWNET)
        one = measure(on, orphans, asked.rounds, 1)
        crowd = measure(on, orphans, max(1, asked.rounds // 3), asked.crowd)
        on.person.ok("destroy", NAME, "--force")
    one.report("one command")
    crowd.report(f"{asked.crowd} at once")
    print()
    held = [
        verdict("exec, first: wall, of plain ssh's", one.ratio(FIRST).wall, 1.3, unit=" x"),
        verdict("exec, first: processor time, of plain ssh's", one.ratio(FIRST).processor, 2, unit=" x"),
        verdict("exec, again: wall, of plain ssh's", one.ratio(AGAIN).wall, 0.7, unit=" x"),
        verdict(f"{asked.crowd} exec at once: wall, of plain ssh's", crowd.ratio(FIRST).wall, 2, unit=" x"),
        verdict("the same again: wall, of plain ssh's", crowd.ratio(AGAIN).wall, 1.2, unit=" x"),
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
