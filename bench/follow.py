"""How soon an attempt inside a sandbox is a line on the screen of `irons audit egress NAME --follow`.

    python -m bench.follow [--attempts N] [--bursts N]

The screen is a pseudo-terminal, the attempts are connections made in the sandbox's network, each to a name of its own,
and both are timed by one clock. Next to it in the same run: `tail -F` of the gateway's logs, which is the same
attempt before it is taken into the store, served, fetched and formatted. Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import selectors
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from bench.lab.measure import Spread, verdict
from bench.lab.stage import ROOT, Stage, stage

SANDBOX = "bench"
PORT = 8443
BURST = 20
SETTLED = 3.0


class Screen:
    """What a program writes, and when the name of each attempt first showed up in it."""

    def __init__(self, name: str, fd: int) -> None:
        self.name, self.fd = name, fd
        self.seen: dict[str, float] = {}
        self._rest = b""

    def read(self) -> None:
        """Take what there is."""
        with suppress(OSError):
            data = os.read(self.fd, 1 << 16)
            now = time.monotonic()
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                for found in re.findall(rb"a\d+\.example\.test", line):
                    self.seen.setdefault(found.decode(), now)


@contextmanager
def following(on: Stage) -> Iterator[Screen]:
    """`irons audit egress NAME --follow` on a terminal."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (50, 200))
    try:
        with on.person.start("audit", "egress", SANDBOX, "--follow", stdout=slave, stderr=slave):
            os.close(slave)
            yield Screen("irons audit egress NAME --follow", master)
    finally:
        os.close(master)


@contextmanager
def tailing(on: Stage) -> Iterator[Screen]:
    """`tail -F` of the logs of all workers: the sandbox is one worker's, and which one is not known here."""
    logs = on.person.home / ".local/state/irons/local/gateway/audit"
    argv = ["tail", "-q", "-n", "0", "-F", *map(str, logs.glob("*.jsonl"))]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield Screen("tail -F of the gateway's logs", process.stdout.fileno())
        finally:
            process.kill()


def attempts(
    on: Stage, addresses: Mapping[str, str], screens: Sequence[Screen], burst: int
) -> dict[str, float]:
    """Make an attempt to every name, `burst` at a time, and return when each began."""
    with selectors.DefaultSelector() as waiting:
        for screen in screens:
            waiting.register(screen.fd, selectors.EVENT_READ, screen)

        def watch(over: Callable[[], bool]) -> None:
            while not over():
                for key, _ in waiting.select(0.1):
                    key.data.read()

        watch(_after(SETTLED))
        client = [sys.executable, str(ROOT / "bench/lab/near_end.py"), "tries", str(PORT), str(burst)]
        argv = ["nsenter", "-t", str(on.init_of(SANDBOX)), "-n", *client]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            json.dump(list(addresses.items()), process.stdin)
            process.stdin.close()
            watch(lambda: process.poll() is not None)
            began: dict[str, float] = json.load(process.stdout)
        watch(_after(SETTLED))
    return began


def _after(seconds: float) -> Callable[[], bool]:
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline


def resolved(on: Stage, names: list[str]) -> dict[str, str]:
    """The addresses that the sandbox's name server gives names."""
    told = on.person.inside(SANDBOX, f"getent ahostsv4 {' '.join(names)} | grep STREAM").stdout
    return {line.split()[2]: line.split()[0] for line in told.splitlines()}


def main() -> int:
    """Measure and print; 1 where a bar is missed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--attempts", type=int, default=400, help="attempts one by one (default: 400)")
    words.add_argument("--bursts", type=int, default=10, help=f"bursts of {BURST} attempts (default: 10)")
    asked = words.parse_args()
    held = []
    with stage() as on:
        on.person.ok("create", SANDBOX, "--mode", "deny", "--allow", "a0.example.test", timeout=120)
        first = 0
        for what, count, burst in (
            ("one by one", asked.attempts, 1),
            (f"in bursts of {BURST}", asked.bursts * BURST, BURST),
        ):
            names = [f"a{number}.example.test" for number in range(first, first + count)]
            first += count
            addresses = resolved(on, names)
            with following(on) as follow, tailing(on) as tail:
                began = attempts(on, addresses, [follow, tail], burst)
            held.append(report(what, began, follow, tail))
    return 0 if all(held) else 1


def report(what: str, began: Mapping[str, float], follow: Screen, tail: Screen) -> bool:
    """Print one table."""
    print(f"\nfrom an attempt to its line, ms; {len(began)} attempts {what}{'p50':>10}{'p99':>8}{'max':>8}")
    held = True
    for screen in (tail, follow):
        missing = began.keys() - screen.seen.keys()
        if missing:
            print(f"  {screen.name}: {len(missing)} attempts never showed up")
            held = False
            continue
        spread = Spread.of([(screen.seen[name] - at) * 1000 for name, at in began.items()])
        print(f"  {screen.name:<60}{spread.median:>8.1f}{spread.p99:>8.1f}{spread.most:>8.1f}")
        if screen is follow:
            met = verdict(f"attempt to line on screen at p99, {what}", spread.p99, 100, unit=" ms")
            held = held and met
    return held


if __name__ == "__main__":
    sys.exit(main())
