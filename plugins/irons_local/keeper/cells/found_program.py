"""Which program of a sandbox holds a connection: what a forked child of the keeper looks up, and how it confines itself for that.

All that is read here is hostile. The child reads links and short texts of `/proc` alone, with two rights over the sandbox's own user
namespace and none over anything else. It opens no file of the sandbox, has no descriptor of another one, and can neither be seen nor
signalled from inside. A timer of its own ends it, also when something holds it up or the keeper is gone.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from irons_local.cell.connections import inode_of
from irons_local.cell.layout import Ends, Namespaces
from irons_local.ipc.framing import Body
from irons_local.ipc.link import Link
from irons_local.linux import namespaces

WITHIN: Final = 1.0
"""Seconds after which the child ends itself."""
_LOOKS: Final = 0.25
"""Seconds of processor time for which it looks through processes and their descriptors: of a sandbox with very many, the program is not known."""
_MOST: Final = 512
"""Bytes of a program's words."""
_STATUS: Final = 4096
_DEEPEST: Final = 33
"""User namespaces in one another at most (user_namespaces(7)), and one."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class _Clock:
    """When to give up."""

    def __init__(self, seconds: float) -> None:
        self._end = time.process_time() + seconds

    def check(self) -> None:
        """Raise `TimeoutError` once it is that late."""
        if time.process_time() > self._end:
            raise TimeoutError


class _Space(NamedTuple):
    """What names a namespace: its device and inode."""

    device: int
    inode: int

    @classmethod
    def of(cls, descriptor: int) -> _Space:
        found = os.fstat(descriptor)
        return cls(found.st_dev, found.st_ino)


def report(link: Link, cell: Namespaces, ends: Ends, parent: int) -> None:
    """Report the program that holds a connection: `{"program", "pid"}`, or `{}` where it is not known.

    Args:
        link: where to report.
        cell: the sandbox's cell.
        ends: the connection.
        parent: the keeper's process id.
    """
    signal.setitimer(signal.ITIMER_REAL, WITHIN)
    namespaces.prctl(namespaces.PR_SET_DUMPABLE, 0)
    _close_others({0, 1, 2, link.sock.fileno(), cell.user, cell.net})
    found: Body = {}
    with suppress(TimeoutError):
        found = _look(cell, ends, parent)
    link.send({"ok": found})


def _close_others(kept: set[int]) -> None:
    for descriptor in {int(each.name) for each in Path("/proc/self/fd").iterdir()} - kept:
        with suppress(OSError):  # the one that listed them
            os.close(descriptor)


def _look(cell: Namespaces, ends: Ends, parent: int) -> Body:
    clock = _Clock(_LOOKS)
    outer, net = _Space.of(cell.user), _Space.of(cell.net)
    namespaces.setns(cell.user, namespaces.NEWUSER)
    namespaces.setns(cell.net, namespaces.NEWNET)
    os.setgroups([])
    _become_root(parent)
    inode = inode_of(ends)
    if not inode:
        return {}
    # From here on there is no file but those of /proc.
    os.chroot("/proc")
    os.chdir("/")
    pids = _pids(clock)
    if not _confine(pids, outer, net, parent, clock):
        return {}
    for pid in _inside(pids, net, clock):
        with suppress(OSError), _process(pid) as process:
            if _is_in(process, net) and _holds(process, f"socket:[{inode}]", clock):
                return _described(process)
    return {}


def _pids(clock: _Clock) -> Sequence[str]:
    """All process ids, the latest first: what makes a connection has mostly begun a short while ago."""
    found: list[str] = []
    with os.scandir("/") as entries:
        for each in entries:
            clock.check()
            if each.name.isdecimal():
                found.append(each.name)
    return sorted(found, key=int, reverse=True)


def _inside(pids: Sequence[str], net: _Space, clock: _Clock) -> Iterator[str]:
    """Those of the processes that are in a network namespace, or were a moment ago."""
    name = f"net:[{net.inode}]"
    for pid in pids:
        clock.check()
        # Most are the machine's, of which this is refused.
        try:
            found = os.readlink(f"/{pid}/ns/net")  # noqa: PTH115 (a path is an object for each of very many)
        except OSError:
            continue
        if found == name:
            yield pid


@contextmanager
def _process(pid: str) -> Iterator[int]:
    """A descriptor of a process's directory, by which it stays the same process."""
    directory = os.open(pid, _DIRECTORY)
    try:
        yield directory
    finally:
        os.close(directory)


def _is_in(process: int, net: _Space) -> bool:
    return os.readlink("ns/net", dir_fd=process) == f"net:[{net.inode}]"


def _confine(pids: Sequence[str], outer: _Space, net: _Space, parent: int, clock: _Clock) -> bool:
    """Enter the sandbox's user namespace, and keep two rights over it; False where no process is in one."""
    for pid in _inside(pids, net, clock):
        with suppress(OSError), _process(pid) as process:
            if not _is_in(process, net):
                continue
            inner = _below(os.open("ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process), outer)
            if inner is None:
                continue
            namespaces.setns(inner, namespaces.NEWUSER)
            os.close(inner)
            _become_root(parent)
            namespaces.prctl(namespaces.PR_SET_NO_NEW_PRIVS, 1)
            namespaces.capset(namespaces.CAP_DAC_READ_SEARCH, namespaces.CAP_SYS_PTRACE)
            return True
    return False


def _below(user: int, outer: _Space) -> int | None:
    """The user namespace that is directly below another one and has this one in it, or is it; closes what it does not return."""
    try:
        for _ in range(_DEEPEST):
            above = namespaces.parent_of(user)
            if _Space.of(above) == outer:
                os.close(above)
                return user
            os.close(user)
            user = above
    except OSError as error:
        # It is the outer one itself, whose parent is out of sight.
        if error.errno != errno.EPERM:
            raise
    os.close(user)
    return None


def _become_root(parent: int) -> None:
    """Become the root of the user namespace that was entered, out of reach of its other processes."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # The kernel changes both with the ids.
    namespaces.prctl(namespaces.PR_SET_DUMPABLE, 0)
    namespaces.prctl(namespaces.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _holds(process: int, name: str, clock: _Clock) -> bool:
    """Whether one of a process's descriptors has this name."""
    directory = os.open("fd", _DIRECTORY, dir_fd=process)
    try:
        with os.scandir(directory) as entries:
            for each in entries:
                clock.check()
                # It may be closed by now.
                with suppress(FileNotFoundError):
                    if os.readlink(each.name, dir_fd=directory) == name:
                        return True
    finally:
        os.close(directory)
    return False


def _described(process: int) -> Body:
    """The words of a program, and its number inside where that is known."""
    words = _read(process, "cmdline", _MOST).rstrip(b"\0") or _read(process, "comm", _MOST).rstrip(b"\n")
    found: Body = {"program": words.replace(b"\0", b" ").decode("utf-8", "replace")}
    pid = _pid_inside(_read(process, "status", _STATUS))
    return found if pid is None else {**found, "pid": pid}


def _read(process: int, name: str, most: int) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def _pid_inside(status: bytes) -> int | None:
    """The number by which the sandbox's own pid namespace has a process (proc(5) status, NSpid): the first below that of `/proc`."""
    for line in status.splitlines():
        if line.startswith(b"NSpid:"):
            numbers = line.split()[1:]
            return int(numbers[1]) if len(numbers) > 1 else None
    return None
