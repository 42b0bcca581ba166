"""What the benchmarks measure with: memory and processor time of processes, SSH banners, spreads and bars."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from irons_local.linux import namespaces

TICKS = os.sysconf("SC_CLK_TCK")


def connect(process: int, address: str, port: int, within: float = 5.0) -> socket.socket:
    """A TCP connection made in the network namespace of a process.

    Args:
        process: whose network it is.
        address: numeric.
        port: 1 to 65535.
        within: seconds for connecting, and for each later word of the other side.

    Raises:
        OSError: no one listens there.
    """
    with ThreadPoolExecutor(1) as thread:
        # A thread has a network namespace of its own; this one ends with the connection made.
        return thread.submit(_connect_in, process, (address, port), within).result()


def _connect_in(process: int, where: tuple[str, int], within: float) -> socket.socket:
    namespace = os.open(f"/proc/{process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(namespace, namespaces.NEWNET)
    finally:
        os.close(namespace)
    return socket.create_connection(where, timeout=within)


def banner(process: int, address: str, port: int, within: float = 30.0) -> float:
    """Ask an SSH server until it says who it is; gives the time of its first byte (`time.perf_counter`).

    Raises:
        TimeoutError: it printed nothing in time.
    """
    deadline = time.perf_counter() + within
    while time.perf_counter() < deadline:
        with suppress(OSError), connect(process, address, port) as server:
            if server.recv(4) == b"SSH-":
                return time.perf_counter()
        time.sleep(0.002)
    raise TimeoutError(f"no SSH server at {address}:{port}")


def pss(pids: Iterable[int]) -> float:
    """Memory of processes in bytes, where what several share is counted in parts (proc_pid_smaps(5), Pss)."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    found, fresh = [pid], [pid]
    while fresh:
        fresh = [int(child) for parent in fresh for child in _children(parent)]
        found += fresh
    return found


def _children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:
        return []


def available() -> int:
    """Memory in bytes that the whole machine still has (proc_meminfo(5), MemAvailable)."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


class Spread(NamedTuple):
    """How a figure was spread over the runs."""

    least: float
    median: float
    p99: float
    most: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up at least one value."""
        row = sorted(values)
        at = min(len(row) - 1, int(len(row) * 0.99))
        return cls(row[0], statistics.median(row), row[at], row[-1], len(row))


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, in user and in kernel mode (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def verdict(
    what: str, value: float, bar: float, *, unit: str = "", at_most: bool = True, aim: float | None = None
) -> bool:
    """Print a figure next to its bar and its aim; True where the bar is met."""
    sign = "≤" if at_most else "≥"
    met, reached = (
        (value <= bar, aim is not None and value <= aim)
        if at_most
        else (value >= bar, aim is not None and value >= aim)
    )
    goal = "" if aim is None else f", aim {aim:g}{unit}{' (reached)' if reached else ''}"
    print(f"{what:<58}{value:>10.4g}{unit:<5} bar {sign} {bar:g}{unit}{goal}{'' if met else '  MISSED'}")
    return met
