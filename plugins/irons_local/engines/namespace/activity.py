"""How busy a sandbox is, read from outside: SSH connections and processor time (proc(5), cgroups(7))."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from irons_local.engines.protocol import SSH_PORT, Activity
from irons_local.linux.cgroup import Groups
from irons_local.linux.processes import in_namespace

_ESTABLISHED = "01"
_TIMES = slice(11, 15)
"""utime, stime, cutime and cstime among the fields of /proc/PID/stat after the program's name."""


def activity(groups: Groups, sandbox: str, pid: int) -> Activity:
    """How busy a running sandbox is.

    Args:
        groups: where its control groups are.
        sandbox: its id.
        pid: its process 1.

    Raises:
        OSError: it has ended.
    """
    used = groups.processor(sandbox)
    return Activity(sessions(Path(f"/proc/{pid}/net")), _used_by_processes(pid) if used is None else used)


def sessions(net: Path, own: int | None = None) -> int:
    """SSH connections from outside in a cell, by their client's end, which the keeper made in it.

    A connection that something inside made to its own SSH server is not one: what is inside has other ids than the keeper.

    Args:
        net: a `/proc/PID/net` of the cell.
        own: user id of the keeper; this process's when None.

    Raises:
        OSError: the cell is gone.
    """
    own = os.geteuid() if own is None else own
    count = 0
    for name in ("tcp", "tcp6"):
        try:
            text = (net / name).read_text("ascii")
        except FileNotFoundError:
            if name == "tcp":
                raise
            continue
        for line in text.splitlines()[1:]:
            fields = line.split()
            remote = int(fields[2].rpartition(":")[2], 16)
            count += fields[3] == _ESTABLISHED and remote == SSH_PORT and int(fields[7]) == own
    return count


def _used_by_processes(pid: int) -> int:
    """Microseconds used by the processes of a sandbox, and by those that they have waited for."""
    ticks = 0
    for member in in_namespace("pid", Path(f"/proc/{pid}/ns/pid").stat().st_ino):
        with contextlib.suppress(OSError, ValueError):
            text = Path(f"/proc/{member}/stat").read_text("utf-8", "replace")
            ticks += sum(map(int, text[text.rindex(")") + 2 :].split()[_TIMES]))
    return ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")
