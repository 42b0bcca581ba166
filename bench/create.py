"""How long a sandbox takes from `irons create` to an answer over SSH, and what an idle one costs in memory and on disk.

    python -m bench.create [--runs N] [--idle N]

Next to it, taking turns in the same run: the same image and SSH server as a plain crun container, started by hand, with
neither a cell nor anything that judges or records. Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from bench.lab.measure import Spread, available, banner, descendants, pss, verdict
from bench.lab.plain_crun import Bundle
from bench.lab.stage import Stage, stage

MB = 1_000_000
BOOTED_WITHIN = 60.0


class Speed:
    """Seconds of each run, by what was done."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}

    def note(self, what: str, seconds: float) -> None:
        """Record one run."""
        self.taken.setdefault(what, []).append(seconds)

    def report(self) -> None:
        """Print the table."""
        print(f"{'seconds':<58}{'min':>7}{'median':>8}{'max':>7}")
        for what, row in self.taken.items():
            spread = Spread.of(row)
            print(f"  {what:<56}{spread.least:>7.3f}{spread.median:>8.3f}{spread.most:>7.3f}")

    def median(self, what: str) -> float:
        """The median of one row."""
        return Spread.of(self.taken[what]).median


CREATE, ANSWER, WHOLE = (
    "irons create",
    "irons create → banner through the SSH port",
    "irons ssh NAME -- true, afterwards",
)
API, PLAIN = "POST /sandboxes → banner through the SSH port", "crun run of the same image → banner"


def by_command(on: Stage, speed: Speed, name: str) -> None:
    """Create one as a person does, and enter it."""
    with on.api() as api:
        # The port is asked for before: a client of the API that starts is not part of a create.
        api.get("/version").raise_for_status()
        _by_command(on, api, speed, name)


def _by_command(on: Stage, api: httpx.Client, speed: Speed, name: str) -> None:
    began = time.perf_counter()
    on.person.ok("create", name)
    speed.note(CREATE, time.perf_counter() - began)
    speed.note(ANSWER, banner(on.lab.host, *door(api, name)) - began)
    began = time.perf_counter()
    on.person.ok("ssh", name, "--", "true")
    speed.note(WHOLE, time.perf_counter() - began)
    on.person.ok("destroy", name, "--force")


def by_api(on: Stage, speed: Speed, name: str) -> None:
    """Create one as a program does."""
    key = (on.person.home / ".ssh/id_ed25519.pub").read_text()
    with on.api() as api:
        api.get("/version").raise_for_status()
        began = time.perf_counter()
        api.post("/sandboxes", json={"name": name, "public_key": key}).raise_for_status()
        while (state := api.get(f"/sandboxes/{name}").json()["status"]) in {"creating", "starting"}:
            time.sleep(0.005)
        if state != "ready":
            raise SystemExit(f"a sandbox became {state}")
        speed.note(API, banner(on.lab.host, *door(api, name)) - began)
    on.person.ok("destroy", name, "--force")


def by_hand(on: Stage, speed: Speed, place: Path) -> None:
    """Start a plain container of the image."""
    key = (on.person.home / ".ssh/id_ed25519.pub").read_text()
    bundle = Bundle(place, rootfs(on), key)
    began = time.perf_counter()
    with bundle.running() as holder:
        speed.note(PLAIN, banner(holder, "127.0.0.1", 22) - began)
    shutil.rmtree(place)


def door(api: httpx.Client, name: str) -> tuple[str, int]:
    """Where a sandbox's SSH port is."""
    told = api.get(f"/sandboxes/{name}/ssh").raise_for_status().json()
    return told["host"], int(told["port"])


def rootfs(on: Stage) -> Path:
    """The image's files."""
    return next((on.person.home / ".local/state/irons/local/images").glob("*/rootfs"))


def idle(on: Stage, count: int) -> list[bool]:
    """What idle sandboxes cost, a head; one is there before the first look, for what is loaded once and shared by all."""
    names = [f"idle{number}" for number in range(count)]
    on.person.ok("create", "warm")
    booted(on, ["warm"])
    state = on.person.home / ".local/state/irons/local"
    daemon = [pid for _, pid in on.running()]
    # What all sandboxes share (the pages of programs and libraries) is there with the first: it counts in both sums.
    first = pss(descendants(on.init_of("warm")))
    before = pss(daemon), available(), blocks(state)
    for name in names:
        on.person.ok("create", name)
    booted(on, names)
    inside = [pid for name in names for pid in descendants(on.init_of(name))]
    after = pss(daemon), available(), blocks(state)
    own = (pss([*descendants(on.init_of("warm")), *inside]) - first) / count / MB
    kernel = sum(map(kernel_memory, (on.init_of(name) for name in names))) / count / MB
    daemons = (after[0] - before[0]) / count / MB
    machine = (before[1] - after[1]) / count / MB
    disk = (after[2] - before[2]) / count / MB
    print(f"\nper idle sandbox, of {count}, in MB")
    print(f"  its own processes ({len(inside) / count:.0f} of them; growth of Pss)      {own:>8.2f}")
    print(f"  what the kernel holds in its control group   {kernel:>8.2f}")
    print(f"  what the daemon's processes grew by (Pss)    {daemons:>8.2f}")
    print(f"  what the whole machine has less, others' doings included (MemAvailable) {machine:>8.2f}")
    held = [
        verdict("memory per idle sandbox, the first three", own + kernel + daemons, 5, unit=" MB"),
        verdict("disk per idle sandbox", disk, 1, unit=" MB"),
    ]
    for name in ("warm", *names):
        on.person.ok("destroy", name, "--force")
    return held


def booted(on: Stage, names: Sequence[str]) -> None:
    """Wait until what sandboxes do at their start is over: until then they are not idle."""
    with on.api() as api:
        for name in names:
            deadline = time.monotonic() + BOOTED_WITHIN
            while api.get(f"/sandboxes/{name}").json()["metadata"].get("boot") == "running":
                if time.monotonic() > deadline:
                    raise SystemExit(f"the boot steps of {name} do not end")
                time.sleep(0.05)


def kernel_memory(pid: int) -> int:
    """Bytes of kernel memory charged to a process's control group (cgroups(7)); 0 where there is none."""
    for line in Path(f"/proc/{pid}/cgroup").read_text("ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return int(Path(f"/sys/fs/cgroup/memory{path}/memory.kmem.usage_in_bytes").read_text("ascii"))
        if not controllers and (told := Path(f"/sys/fs/cgroup{path}/memory.stat")).is_file():
            fields = dict(each.split() for each in told.read_text("ascii").splitlines())
            return int(fields.get("kernel", 0))
    return 0


def blocks(path: Path) -> int:
    """Bytes that a directory's files take on disk, each once."""
    told = subprocess.run(["du", "-sxk", str(path)], capture_output=True, text=True, check=True).stdout
    return int(told.split()[0]) * 1024


def main() -> int:
    """Measure and print; 1 where a bar is missed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--runs", type=int, default=21, help="sandboxes created each way (default: 21)")
    words.add_argument("--idle", type=int, default=20, help="idle sandboxes that are weighed (default: 20)")
    asked = words.parse_args()
    speed = Speed()
    with stage() as on:
        for turn in range(asked.runs + 1):
            now = speed if turn else Speed()  # the first turn warms the caches
            by_hand(on, now, on.lab.directory / "plain")
            by_command(on, now, f"command{turn}")
            by_api(on, now, f"api{turn}")
        speed.report()
        held = [verdict(f"{ANSWER}, median", speed.median(ANSWER), 0.5, unit=" s")]
        beside = speed.median(ANSWER) / speed.median(PLAIN)
        held.append(verdict("the same beside plain crun", beside, 9, unit=" times", aim=6))
        held += idle(on, asked.idle)
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
