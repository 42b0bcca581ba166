"""Programs that run in a cell: what is done there before they start, and what descriptors they get."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from irons_plugins.local import namespaces
from irons_plugins.local.cellnet import program
from irons_plugins.local.link import Link
from irons_plugins.local.maker import Namespaces, enter


class Job(NamedTuple):
    """A program to run in a cell, and what to do there first.

    Attributes:
        argv: the program and its arguments; empty to do only the steps.
        env: its environment.
        cwd: directory to be in, or "".
        cgroups: directories of control groups to join.
        steps: what to do in the cell before the program starts; see `_STEPS`.
        fds: descriptors, and the numbers they shall have; stdin, stdout and stderr among them.
    """

    argv: Sequence[str]
    env: dict[str, str]
    cwd: str
    cgroups: Sequence[str]
    steps: Sequence[Sequence[Any]]
    fds: Sequence[tuple[int, int]]


def run(link: Link, cell: Namespaces, job: Job) -> None:
    """Do a job's steps in a cell and become its program; the link closes unsaid when that has begun."""
    for group in job.cgroups:
        Path(group, "cgroup.procs").write_text("0", "utf-8")
    os.setsid()
    # The keeper's own limit on descriptors is raised for its sockets; programs get the customary one.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    enter(cell)
    for step in job.steps:
        _step(step)
    if job.cwd:
        os.chdir(job.cwd)
    if not job.argv:
        return
    path = program(job.argv[0], "") if "/" not in job.argv[0] else job.argv[0]
    _place(job.fds, link)
    os.execve(path, list(job.argv), job.env)  # noqa: S606 (no shell is what is wanted)


def _place(fds: Sequence[tuple[int, int]], link: Link) -> None:
    """Give descriptors their numbers; first out of the way of one another, and the link out of the way of all."""
    highest = max([number for _, number in fds] + [2]) + 1
    away = [(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, highest), number) for fd, number in fds]
    kept = fcntl.fcntl(link.sock.fileno(), fcntl.F_DUPFD_CLOEXEC, highest)
    link.sock.detach()
    link.sock = socket.socket(fileno=kept)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1, 2):
        os.dup2(null, number)
    for fd, number in away:
        os.dup2(fd, number)


def _limit(name: str, most: int) -> None:
    kind = getattr(resource, f"RLIMIT_{name.upper()}")
    resource.setrlimit(kind, (most, most))


def _mkdir(path: str, mode: int) -> None:
    Path(path).mkdir(mode, exist_ok=True)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str) -> None:
    namespaces.mount(source, target, kind, flags, data)


def _unshare(_kind: str) -> None:
    namespaces.unshare(namespaces.NEWNS)


_STEPS: dict[str, Callable[..., object]] = {
    "mount": _mount,
    "umount": namespaces.unmount,
    "mkdir": _mkdir,
    "chdir": os.chdir,
    "unshare": _unshare,
    "rlimit": _limit,
    "umask": os.umask,
}


def _step(step: Sequence[Any]) -> None:
    name, *arguments = step
    action = _STEPS.get(name)
    if action is None:
        raise ValueError(f"there is no step {name!r}")
    action(*arguments)
