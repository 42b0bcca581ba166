"""What the kernel counts per user, across every namespace below: a sandbox gets a share, so that its user keeps the rest.

The kernel holds inotify instances, namespaces, queued signals and the like against the user who made the outermost
user namespace, too (namespaces(7), "The /proc/sys/user directory"): without a bound of its own one sandbox could
use up what all others, and the programs of its user on the machine, are allowed together.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

PARTS = 4
"""One sandbox may have one part in so many."""

_COUNTS = Path("/proc/sys/user")
_LIMITS = (resource.RLIMIT_SIGPENDING, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_MEMLOCK)


def counts(directory: Path = _COUNTS) -> dict[str, int]:
    """A sandbox's share of each of this user namespace's counts (namespaces(7), `/proc/sys/user`), by its file's name."""
    found: dict[str, int] = {}
    for path in sorted(directory.iterdir()):
        with contextlib.suppress(OSError, ValueError):
            found[path.name] = int(path.read_text(encoding="ascii")) // PARTS
    return found


def hold(shares: dict[str, int], directory: Path = _COUNTS) -> None:
    """Bound what the user namespace this process is root of, and all below it, may have at once.

    Raises:
        OSError: the kernel refuses.
    """
    for name, most in shares.items():
        (directory / name).write_text(str(most), encoding="ascii")
    for kind in _LIMITS:
        soft, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            most = hard // PARTS
            resource.setrlimit(kind, (min(soft, most), most))
