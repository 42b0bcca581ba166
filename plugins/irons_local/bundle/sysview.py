"""What a sandbox has as `/sys`: a few made-up files with its own limits, on a read-only tmpfs. The host's sysfs is never mounted.

docs/security.md lists the files; a test holds the list to what is there.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Collection
from pathlib import Path

from irons_local.limits import Limits

PERIOD = 100_000
"""Microseconds, the unit of the limits of control groups (cgroups(7))."""

_PROCESSORS = ("online", "possible", "present")
_UNLIMITED = 0x7FFFFFFFFFFFF000
"""What the older hierarchy says where there is no limit: the greatest multiple of a page."""


def limit_files(limits: Limits, enforced: Collection[str]) -> dict[str, str]:
    """Texts of the files below `/sys` with the limits of memory, processors and processes, at the paths of both hierarchies.

    Args:
        limits: the sandbox's.
        enforced: the controllers that hold it to them; of the others nothing is shown.
    """
    files: dict[str, str] = {}
    if limits.memory is not None and "memory" in enforced:
        files |= {
            "fs/cgroup/memory.max": f"{limits.memory}",
            "fs/cgroup/memory.high": "max",
            "fs/cgroup/memory/memory.limit_in_bytes": f"{limits.memory}",
            "fs/cgroup/memory/memory.soft_limit_in_bytes": f"{_UNLIMITED}",
        }
    if limits.cpus is not None and "cpu" in enforced:
        quota = round(limits.cpus * PERIOD)
        files |= {
            "fs/cgroup/cpu.max": f"{quota} {PERIOD}",
            "fs/cgroup/cpu/cpu.cfs_quota_us": f"{quota}",
            "fs/cgroup/cpu/cpu.cfs_period_us": f"{PERIOD}",
        }
    if limits.processes is not None and "pids" in enforced:
        files |= {
            "fs/cgroup/pids.max": f"{limits.processes}",
            "fs/cgroup/pids/pids.max": f"{limits.processes}",
        }
    return files


def processors(limits: Limits, enforced: Collection[str]) -> int | None:
    """How many processors a sandbox sees: its limit, rounded up; None for all of them."""
    return math.ceil(limits.cpus) if limits.cpus is not None and "cpu" in enforced else None


def keep_to(count: int | None, name: str) -> None:
    """Have this process and what it starts run on `count` processors; which, goes by the name, so that sandboxes spread.

    Programs count by that. It limits nothing by itself: a sandbox's root may undo it, and its control group holds.
    """
    usable = sorted(os.sched_getaffinity(0))
    if count is None or count >= len(usable):
        return
    first = zlib.crc32(name.encode()) % len(usable)
    os.sched_setaffinity(0, {usable[(first + step) % len(usable)] for step in range(count)})


def lay(root: Path, files: dict[str, str]) -> None:
    """Write the files into `root`, with those that tell the processors of this process."""
    usable = ranges(os.sched_getaffinity(0))
    told = {f"devices/system/cpu/{name}": usable for name in _PROCESSORS}
    (root / "fs/cgroup").mkdir(parents=True)
    for path, text in {**files, **told}.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text}\n", encoding="ascii")
        place.chmod(0o444)


def ranges(numbers: Collection[int]) -> str:
    """Numbers as the kernel lists them, such as `0-2,4`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
