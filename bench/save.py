"""How long `irons local image save` of a stopped sandbox takes, and `irons create` from what was saved.

    python -m bench.save [--gigabytes N] [--files N] [--runs N]

Next to them in the same run: `cp -a` of the same changes, and `irons create` from the image that the sandbox was made from. Ends with
1 where a bar is missed: a save takes at most 1 s for 5 GB of changes, and a create at most 1.2 times as long as from the base image.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.lab.measure import Spread, verdict
from bench.lab.stage import Stage, stage

SMALL = 16 << 10
_FILL = """
my ($files, $small, $large) = @ARGV;
my $data = join "", map { chr(rand 256) } 1 .. $small;
mkdir "work" or die $!;
for my $n (0 .. $files - 1) {
  mkdir "work/" . int($n / 100) unless $n % 100;
  open my $f, ">", "work/" . int($n / 100) . "/$n" or die $!; print $f $data; close $f or die $!;
}
for my $n (0 .. 9) {
  open my $f, ">", "work/large$n" or die $!;
  for (my $left = $large / 10; $left > 0; $left -= $small) { print $f $data }
  close $f or die $!;
}
"""


def timed(on: Stage, *words: str) -> float:
    """Run an irons command that succeeds; gives its seconds."""
    began = time.perf_counter()
    on.person.ok(*words, timeout=600)
    return time.perf_counter() - began


def fill(on: Stage, name: str, size: int, files: int) -> None:
    """Have a sandbox write so many small files, and large ones up to the size in all; what is written reaches the disk."""
    large = max(0, size - files * SMALL)
    on.person.ok("exec", name, "--", "perl", "-e", _FILL, str(files), str(SMALL), str(large), timeout=900)
    on.person.ok("exec", name, "--", "sync", timeout=900)


def copied(on: Stage) -> float:
    """Seconds of `cp -a` of what the newest save made a layer of."""
    layers = on.person.home / ".local/state/irons/local/layers"
    kinds = {path.parent: json.loads(path.read_text())["kind"] for path in layers.glob("*/layer.json")}
    (changes,) = (home / "tree" for home, kind in kinds.items() if kind == "changes")
    target = Path(on.person.home / "copied")
    began = time.perf_counter()
    subprocess.run(["cp", "-a", str(changes), str(target)], check=True)
    taken = time.perf_counter() - began
    shutil.rmtree(target)
    return taken


def creates(on: Stage, runs: int) -> tuple[Spread, Spread]:
    """Seconds of creates from the base image and from the saved one, taking turns; the first turn warms the caches."""
    taken: dict[str, list[float]] = {"debian": [], "saved": []}
    for turn in range(runs + 1):
        for image, row in taken.items():
            seconds = timed(on, "create", f"{image}{turn}", "--image", image)
            on.person.ok("destroy", f"{image}{turn}", "--force")
            if turn:
                row.append(seconds)
    return Spread.of(taken["debian"]), Spread.of(taken["saved"])


def main() -> int:
    """Measure and print; 1 where a bar is missed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--gigabytes", type=float, default=5, help="what the sandbox changes (default: 5)")
    words.add_argument("--files", type=int, default=50_000, help="small files among it (default: 50000)")
    words.add_argument("--runs", type=int, default=9, help="sandboxes created from each image (default: 9)")
    asked = words.parse_args()
    with stage() as on:
        on.person.ok("create", "full")
        fill(on, "full", int(asked.gigabytes * 1e9), asked.files)
        on.person.ok("stop", "full")
        saved = timed(on, "local", "image", "save", "full", "--as", "saved")
        again = timed(on, "local", "image", "save", "full", "--as", "again")
        plain = copied(on)
        print(
            f"save of {asked.gigabytes:g} GB of changes in {asked.files} small files and 10 large ones, in s"
        )
        print(f"  irons local image save                {saved:>8.3f}")
        print(f"  the same again, without changes       {again:>8.3f}")
        print(f"  cp -a of the same changes             {plain:>8.3f}")
        base, layered = creates(on, asked.runs)
        print(f"irons create, medians of {asked.runs}, in s")
        print(f"  from the base image                   {base.median:>8.3f}")
        print(f"  from the saved image                  {layered.median:>8.3f}")
        held = [
            verdict("save", saved, 1, unit=" s"),
            verdict("create from the saved image, beside the base image", layered.median / base.median, 1.2),
        ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
