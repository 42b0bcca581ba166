"""Files that processes lock to keep out of one another's way (flock(2)); a lock ends with its process."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from irons_local.progress import Progress, unheard

_ASK_AGAIN = 0.2


@contextlib.asynccontextmanager
async def locked(path: Path, *, shared: bool = False, progress: Progress = unheard) -> AsyncIterator[None]:
    """Hold a lock, after waiting for its holder; `progress` is called where it waits."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    descriptor = _open(path)
    told = False
    try:
        while not _try(descriptor, kind):
            if not told:
                progress("waiting for another image that is being made", None)
                told = True
            await asyncio.sleep(_ASK_AGAIN)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_now(path: Path) -> Iterator[bool]:
    """Hold a lock if no one has it; gives whether it is held."""
    descriptor = _open(path)
    try:
        yield _try(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def holding(directory: Path, *, alone: bool = False) -> Iterator[bool]:
    """Hold a lock on a directory, shared with others or `alone`, if it is there and no one's lock forbids it; gives whether it is held."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _try(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
