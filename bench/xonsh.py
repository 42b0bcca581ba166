"""What the xontrib adds to the start of xonsh: `xonsh -c pass` with it and without, in the same run.

Without it xonsh looks for xontribs all the same and finds irons left out. Medians of interleaved runs, the quietest of several
rounds counting, and instruction counts where valgrind is installed. Ends with 1 where loading costs more than a tenth.

    python -m bench.xonsh [--runs N] [--no-valgrind]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from bench.startup import Case, instructions

START = """
import sys
from xonsh import xontribs
found, left_out = xontribs._get_xontrib_entrypoints, sys.argv[1]
xontribs._get_xontrib_entrypoints = lambda: [entry for entry in found() if entry.name != left_out]
sys.argv = ["xonsh", "-c", "pass"]
from xonsh.main import main
main()
"""
ROUNDS = 3
BAR = 0.10
WITH = Case("xonsh -c pass, irons loaded", (sys.executable, "-c", START, "nothing"))
WITHOUT = Case("xonsh -c pass", (sys.executable, "-c", START, "irons"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether the bar is held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=15, help="how often each is run in a round")
    parser.add_argument("--no-valgrind", action="store_true", help="count no instructions")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        env = {"PATH": os.environ["PATH"], "HOME": home, "TERM": "dumb", "LANG": "C.UTF-8"}
        rounds = [measured(env, asked.runs) for _ in range(ROUNDS)]
        loaded, bare = min(rounds, key=lambda each: each[0] / each[1])
        part = loaded / bare - 1
        print(f"{WITHOUT.name:<30}{bare * 1000:>8.1f} ms")
        print(
            f"{WITH.name:<30}{loaded * 1000:>8.1f} ms  {part:+.1%} (bar {BAR:+.0%}){'  MISSED' * (part > BAR)}"
        )
        if not asked.no_valgrind and shutil.which("valgrind"):
            counts = [instructions(case, env) for case in (WITHOUT, WITH)]
            print(
                f"instructions: {counts[0] / 1e6:.0f} M, {counts[1] / 1e6:.0f} M  {counts[1] / counts[0] - 1:+.1%}"
            )
    return 0 if part <= BAR else 1


def measured(env: dict[str, str], runs: int) -> tuple[float, float]:
    """Return the medians with and without, of runs that take turns."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(runs + 1):
        for at, case in enumerate((WITH, WITHOUT)):
            began = time.perf_counter()
            subprocess.run(case.argv, env=env, check=True)
            if turn:
                taken[at].append(time.perf_counter() - began)
    return statistics.median(taken[0]), statistics.median(taken[1])


if __name__ == "__main__":
    sys.exit(main())
