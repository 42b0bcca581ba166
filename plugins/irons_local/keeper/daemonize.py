"""How a process becomes the keeper: the locks that make it the only one, and leaving behind where it came from."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from irons_local.ipc import locate
from irons_local.linux import namespaces
from irons_local.paths import Paths

_PATIENCE = 10.0
"""Seconds after which the keeper that holds a lock is asked to end: one that begins may hold it long on a busy machine."""

_END_WITHIN = 40.0
_LOG_MOST = 4 << 20
_LOG_KEPT = 1 << 20


class DaemonizeError(Exception):
    """This process cannot be the keeper; the message says why, on one line."""


class AnotherError(DaemonizeError):
    """A keeper of this user is there already, and answers."""


def lock(paths: Paths) -> list[int]:
    """Be the only keeper of these places, for as long as the descriptors stay open.

    State and runtime directory are locked apart: two sessions of one user may have different runtime directories,
    and one that belongs to a session goes with it. A keeper that can no longer be reached is asked to end.

    Raises:
        AnotherError: a keeper is there and answers.
        DaemonizeError: a keeper is there and neither answers nor ends.
    """
    noted = json.dumps(_holding(paths)).encode()
    return [_take(path, paths, noted) for path in (paths.lock, paths.state_lock)]


def bar(paths: Paths) -> list[int]:
    """Keep every keeper away from these places, for as long as the descriptors stay open.

    Raises:
        AnotherError: a keeper is there and answers.
        DaemonizeError: a keeper is there and neither answers nor ends.
    """
    # Without a note: a keeper that waits for the lock would end the process that it names.
    return [_take(path, paths, b"") for path in (paths.lock, paths.state_lock) if path.parent.is_dir()]


def _take(path: Path, paths: Paths, noted: bytes) -> int:
    fd = _open(path)
    begun = time.monotonic()
    told = False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - begun
            holder = locate.read(path)
            where = paths._replace(runtime=Path(holder["runtime"])) if holder else paths
            if locate.answers(where):
                raise AnotherError(f"another keeper of this user serves {where.runtime}") from None
            if waited > _END_WITHIN:
                # What is uninstalled leaves no note.
                who = (
                    "another keeper" if holder else "another process, such as an uninstall that is not done,"
                )
                raise DaemonizeError(f"{who} holds {path}, and neither answers nor ends") from None
            # It may be about to begin, or to end; the children it forked hold the lock a moment longer.
            if waited > _PATIENCE and not told and holder and namespaces.is_same(holder["process"]):
                os.kill(holder["process"]["pid"], signal.SIGTERM)
                told = True
            time.sleep(0.02)
        else:
            if not _is_at(fd, path):
                # It was removed by whoever held it.
                os.close(fd)
                fd = _open(path)
                continue
            os.ftruncate(fd, 0)
            os.write(fd, noted)
            return fd


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        raise DaemonizeError(f"{path.parent} was removed by another process") from None


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _holding(paths: Paths) -> dict[str, Any]:
    return {"process": namespaces.identity(os.getpid()), "runtime": str(paths.runtime)}


def detach(log: Path) -> None:
    """Leave the terminal, the session and the parent; what this process prints goes to `log` from now on."""
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open("/dev/null", os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    for source, number in ((null, 0), (file, 1), (file, 2)):
        os.dup2(source, number)
    os.close(null)
    os.close(file)


def prepare(wanted: Collection[int]) -> None:
    """Drop what was inherited, and become the parent of what crun and others leave behind.

    Args:
        wanted: descriptors that stay open.

    Raises:
        OSError: the kernel refuses.
    """
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd > 2 and fd not in wanted:
            with suppress(OSError):  # the one that the listing itself was read from
                os.close(fd)
    os.umask(0o077)
    namespaces.prctl(namespaces.PR_SET_CHILD_SUBREAPER, 1)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cap(log: Path) -> None:
    """Keep a log from growing for ever: its end is kept next to it and it starts again.

    Raises:
        OSError: it cannot be read or written.
    """
    if log.stat().st_size > _LOG_MOST:
        with log.open("r+b") as file:
            file.seek(-_LOG_KEPT, os.SEEK_END)
            log.with_suffix(".log.1").write_bytes(file.read())
            # Whoever writes appends, and so goes on at the new end.
            file.truncate(0)
