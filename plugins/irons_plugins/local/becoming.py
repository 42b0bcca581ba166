"""How a process becomes the keeper: the locks that make it the only one, and leaving behind where it came from."""

from __future__ import annotations

import fcntl
import os
import resource
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from irons_plugins.local import namespaces
from irons_plugins.local.link import Link, LinkError, RequestError
from irons_plugins.local.places import Places

_LOCK_WITHIN = 5.0
_ANSWER_WITHIN = 2.0
_LOG_MOST = 4 << 20
_LOG_KEPT = 1 << 20


class BecomingError(Exception):
    """This process cannot be the keeper; the message says why, on one line."""


class AnotherError(BecomingError):
    """A keeper of the same runtime directory is there already, and answers."""


def lock(places: Places) -> list[int]:
    """Be the only keeper of these places, for as long as the descriptors stay open.

    State and runtime directory are locked apart: two sessions of one user may have different runtime directories.

    Raises:
        AnotherError: a keeper is there and answers.
        BecomingError: a keeper is there and does not answer here.
    """
    held = []
    for path in (places.lock, places.local / "lock"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if not _take(fd, places):
            where = os.read(fd, 4096).decode("utf-8", "replace")
            raise BecomingError(f"another keeper of this user is there, and serves {where or path}")
        os.ftruncate(fd, 0)
        os.write(fd, str(places.runtime).encode())
        held.append(fd)
    return held


def _take(fd: int, places: Places) -> bool:
    # The last keeper's forked children may hold the lock a moment longer than itself.
    deadline = time.monotonic() + _LOCK_WITHIN
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if _answers(places):
                raise AnotherError(f"another keeper serves {places.runtime}") from None
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _answers(places: Places) -> bool:
    try:
        with Link.to(places.keeper_socket, _ANSWER_WITHIN) as link:
            link.request("hello")
    except (OSError, LinkError, RequestError):
        return False
    return True


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


def settle(wanted: Collection[int]) -> None:
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
    """Keep a log from growing for ever: its end is kept beside it and it starts again.

    Raises:
        OSError: it cannot be read or written.
    """
    if log.stat().st_size > _LOG_MOST:
        with log.open("r+b") as file:
            file.seek(-_LOG_KEPT, os.SEEK_END)
            log.with_suffix(".log.1").write_bytes(file.read())
            # Whoever writes appends, and so goes on at the new end.
            file.truncate(0)
