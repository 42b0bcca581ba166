"""Processes of a sandbox seen from outside: named so that a number used again is never mistaken, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from irons_local.linux.namespaces import birth, started


class Process(NamedTuple):
    """A process id with the time it started, in clock ticks since boot: together never used again."""

    pid: int
    started: int


def open_process(process: Process) -> int | None:
    """A pidfd (pidfd_open(2)) of a process, for the caller to close; None when it is gone."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return None
    # Only now is the number pinned to one process: check that it is the one that was meant.
    if started(process.pid) == process.started:
        return descriptor
    os.close(descriptor)
    return None


def is_alive(process: Process) -> bool:
    """True while the process has not ended."""
    descriptor = open_process(process)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


async def ended(descriptor: int, within: float | None = None) -> bool:
    """Wait until the process of a pidfd has ended, `within` so many seconds; True if it has."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(descriptor, done.set)
    try:
        async with asyncio.timeout(within):
            await done.wait()
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)


async def ends(process: Process, within: float) -> bool:
    """Wait until a process has ended, `within` so many seconds; True if it has, or had before."""
    descriptor = open_process(process)
    if descriptor is None:
        return True
    try:
        return await ended(descriptor, within)
    finally:
        os.close(descriptor)


def send(descriptor: int, number: signal.Signals) -> None:
    """Signal the process of a pidfd; one that is gone is not an error."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)


def in_namespace(kind: str, inode: int) -> Iterator[int]:
    """Ids of the processes whose namespace of a kind, such as `pid` or `net`, is the one with this inode."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if (entry / "ns" / kind).stat().st_ino == inode:
                yield int(entry.name)


def _space_of(pid: int, kind: str) -> int:
    return Path(f"/proc/{pid}/ns/{kind}").stat().st_ino


async def end_tree(init: Process, grace: float) -> None:
    """End a pid namespace, given its process 1: ask all else first, then the server and process 1, then kill.

    Returns when process 1 has ended: by then the kernel has ended every other process of the namespace.
    """
    descriptor = open_process(init)
    if descriptor is None:
        return
    try:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        server = await asyncio.to_thread(_server, init.pid)
        if await asyncio.to_thread(_ask_work_to_end, init.pid, server):
            await _wait_for_work(init, server, descriptor, deadline)
        if server is not None:
            _ask(init.pid, server, signal.SIGTERM)
        send(descriptor, signal.SIGTERM)
        if not await ended(descriptor, min(1.0, max(0.2, deadline - loop.time()))):
            send(descriptor, signal.SIGKILL)
            await ended(descriptor)
    finally:
        os.close(descriptor)


async def end_all_in_net(inode: int) -> None:
    """Kill every process in a network namespace, given its inode, and wait until none is left.

    What was started and never recorded is found this way: nothing else has a process in a cell.
    """
    while found := await asyncio.to_thread(lambda: list(in_namespace("net", inode))):
        for pid in found:
            with contextlib.suppress(OSError):
                descriptor = os.pidfd_open(pid)
                try:
                    if _space_of(pid, "net") == inode:
                        send(descriptor, signal.SIGKILL)
                        await ended(descriptor, 5.0)
                finally:
                    os.close(descriptor)


def _members(init: int) -> list[int]:
    try:
        inode = _space_of(init, "pid")
    except OSError:
        return []
    return [pid for pid in in_namespace("pid", inode) if pid != init]


def _server(init: int) -> int | None:
    """Process 1's first child, its SSH server; later ones are what the work inside left to it."""
    births = {pid: birth(pid) for pid in _members(init)}
    children = {
        pid: known.started for pid, known in births.items() if known is not None and known.parent == init
    }
    return min(children, key=lambda pid: (children[pid], pid), default=None)


def _ask_work_to_end(init: int, server: int | None) -> bool:
    """SIGTERM to all but the SSH server, and SIGHUP to what has a terminal; True if there was any.

    A shell on a terminal heeds SIGHUP alone. To a service it would be an order to read its settings again, or its end
    before it has done what it does at SIGTERM.
    """
    asked = [pid for pid in _members(init) if pid != server and _ask(init, pid, signal.SIGTERM, hang_up=True)]
    return bool(asked)


def _ask(init: int, pid: int, number: signal.Signals, *, hang_up: bool = False) -> bool:
    """Signal a process, if it is of the pid namespace of `init`, and continue it; True if it was there.

    `hang_up` adds SIGHUP on a terminal.
    """
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            # Asked only now, when the number can no longer come to mean another process.
            known = birth(pid)
            if known is None or _space_of(pid, "pid") != _space_of(init, "pid"):
                return False
            send(descriptor, number)
            if hang_up and known.terminal:
                send(descriptor, signal.SIGHUP)
            # One that is stopped would heed nothing of it.
            send(descriptor, signal.SIGCONT)
            return True
        finally:
            os.close(descriptor)
    return False


async def _wait_for_work(init: Process, server: int | None, descriptor: int, deadline: float) -> None:
    loop = asyncio.get_running_loop()
    pause = 0.02
    while loop.time() < deadline and await asyncio.to_thread(_has_work, init.pid, server):
        # An end of process 1 itself ends the wait too.
        if await ended(descriptor, min(pause, max(0.0, deadline - loop.time()))):
            return
        pause = min(pause * 2, 0.2)


def _has_work(init: int, server: int | None) -> bool:
    return any(pid != server and birth(pid) is not None for pid in _members(init))
