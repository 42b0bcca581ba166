"""How long a fork of a sandbox with 1 GB of changes takes, stopped and running, and 50 forks of one stopped sandbox.

    python -m bench.fork [--gigabytes N] [--files N] [--forks N] [--without-btrfs]

Next to the copy of a running sandbox in the same run: `cp -a` of the same files. The same is done on a btrfs in a loop file, where this
kernel and mkfs.btrfs can. Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.lab.measure import verdict
from bench.lab.stage import Stage, stage
from bench.save import fill, timed

_LOOP_SIZE = 12 << 30
_WITHIN = 600.0


class Fork(NamedTuple):
    """What one fork took, in seconds: until its files were laid out, until it was ready, and the pause of the original."""

    laid: float
    ready: float
    pause: float


def fork(on: Stage, name: str, copy: str) -> Fork:
    """Fork a sandbox over the API, and destroy the copy."""
    with on.api() as client:
        began = time.perf_counter()
        answer = client.post(f"/sandboxes/{name}/fork", json={"names": [copy]}, timeout=_WITHIN)
        if answer.is_error:
            raise SystemExit(f"the fork failed: {answer.text}")
        laid = 0.0
        while True:
            found: dict[str, Any] = client.get(f"/sandboxes/{copy}").json()
            now = time.perf_counter() - began
            if not laid and found["status"] != "creating":
                laid = now
            if found["status"] in ("ready", "error"):
                break
            time.sleep(0.002)
        if found["status"] == "error":
            raise SystemExit(f"the copy could not be started: {found['metadata'].get('reason')}")
    on.person.ok("destroy", copy, "--force")
    return Fork(laid, now, answer.json()["pause"] or 0.0)


def plain(on: Stage, name: str) -> float:
    """Seconds of `cp -a` of a sandbox's changes."""
    upper = on.person.home / ".local/state/irons/local/sandboxes" / on.status(name)["id"] / "upper"
    target = on.person.home / "copied"
    began = time.perf_counter()
    subprocess.run(["cp", "-a", str(upper), str(target)], check=True)
    taken = time.perf_counter() - began
    shutil.rmtree(target)
    return taken


def many(on: Stage, name: str, count: int) -> tuple[float, float]:
    """Fork a stopped sandbox many times; gives the seconds until all are ready, and the most bytes of disk that one takes."""
    names = [f"copy{number}" for number in range(count)]
    taken = timed(on, "fork", name, *names)
    used = [_used(on, each) for each in names]
    on.person.ok("destroy", *names, "--force", timeout=_WITHIN)
    return taken, max(used)


def _used(on: Stage, name: str) -> float:
    home = on.person.home / ".local/state/irons/local/sandboxes" / on.status(name)["id"]
    told = subprocess.run(["du", "-s", "-B1", str(home)], capture_output=True, text=True, check=True)
    return float(told.stdout.split()[0])


@contextmanager
def btrfs() -> Iterator[Path | None]:
    """A btrfs in a loop file, as a directory for temporary files; None where there can be none."""
    if "\tbtrfs\n" not in Path("/proc/filesystems").read_text("ascii") or shutil.which("mkfs.btrfs") is None:
        yield None
        return
    place = Path(tempfile.mkdtemp(prefix="irons-btrfs-"))
    file, mount = place / "disk", place / "m"
    try:
        with file.open("wb") as disk:
            disk.truncate(_LOOP_SIZE)
        mount.mkdir()
        subprocess.run(["mkfs.btrfs", "-q", str(file)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(file), str(mount)], check=True)
        mount.chmod(0o755)
        try:
            yield mount
        finally:
            subprocess.run(["umount", "-l", str(mount)], check=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main() -> int:
    """Measure and print; 1 where a bar is missed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--gigabytes", type=float, default=1, help="what the sandbox changes (default: 1)")
    words.add_argument("--files", type=int, default=5_000, help="small files among it (default: 5000)")
    words.add_argument("--forks", type=int, default=50, help="copies of one stopped sandbox (default: 50)")
    words.add_argument("--without-btrfs", action="store_true", help="leave the loop file out")
    asked = words.parse_args()
    size = int(asked.gigabytes * 1e9)
    held: list[bool] = []
    with stage() as on:
        on.person.ok("create", "full")
        fill(on, "full", size, asked.files)
        running = fork(on, "full", "running")
        copied = plain(on, "full")
        on.person.ok("stop", "full")
        stopped = fork(on, "full", "stopped")
        print(
            f"fork of {asked.gigabytes:g} GB of changes in {asked.files} small files and 10 large ones, in s"
        )
        print(f"  stopped: laid out {stopped.laid:.3f}, ready {stopped.ready:.3f}")
        print(
            f"  running: laid out {running.laid:.3f}, ready {running.ready:.3f}, paused {running.pause:.3f}"
        )
        print(f"  cp -a of the same changes {copied:.3f}")
        taken, used = many(on, "full", asked.forks)
        print(
            f"{asked.forks} forks of the stopped one: ready {taken:.2f}; {used / 1e6:.2f} MB of disk at most"
        )
        held += [
            verdict("a stopped one, laid out", stopped.laid, 0.3, unit=" s"),
            verdict("a running one, beside cp -a", running.laid / copied, 1.2),
            verdict(f"{asked.forks} forks, ready", taken, 20, unit=" s"),
            verdict("disk of each", used / 1e6, 5, unit=" MB"),
        ]
    if not asked.without_btrfs:
        held += on_btrfs(size, asked.files)
    return 0 if all(held) else 1


def on_btrfs(size: int, files: int) -> list[bool]:
    """Measure a running sandbox where files share blocks; nothing where there is no btrfs."""
    with btrfs() as mount:
        if mount is None:
            print("no btrfs here: this kernel or mkfs.btrfs lacks it")
            return []
        before, tempfile.tempdir = tempfile.tempdir, str(mount)
        try:
            with stage() as on:
                on.person.ok("create", "full")
                fill(on, "full", size, files)
                taken = fork(on, "full", "running")
        finally:
            tempfile.tempdir = before
    print(f"  on btrfs, running: ready {taken.ready:.3f}, paused {taken.pause:.3f}")
    return [
        verdict("pause on btrfs", taken.pause, 0.1, unit=" s"),
        verdict("ready on btrfs", taken.ready, 0.6, unit=" s"),
    ]


if __name__ == "__main__":
    sys.exit(main())
