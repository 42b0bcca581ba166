"""Removing a directory whose files belong to a sandbox: by descriptors, through no link, however deep it is."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import stat
from pathlib import Path
from typing import Any

from irons_local.linux.userns_call import call
from irons_local.linux.userns_main import Say


async def remove_tree(path: Path) -> None:
    """Remove a directory of ours with everything beneath it; one that is gone already is passed over.

    Safe to do again where it was interrupted. No process may be left in it.

    Raises:
        OSError: something could not be removed.
        EngineError: the same, where subordinate ids own the files.
    """
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        try:
            # Where no sandbox ever ran, it takes no namespace: a machine that allows none is left clean, too.
            await asyncio.to_thread(empty, directory)
        except OSError:
            if os.geteuid() == 0:
                raise
            # Only root of a namespace that holds the subordinate ids may remove what belongs to them.
            # It ends with this process: nothing may be removed any more once another may make things here.
            request = {"directory": directory, "dies_with": os.getpid()}
            await call("a", f"{__name__}:empty_inside", request, fds=(directory,))
    finally:
        os.close(directory)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)  # noqa: PTH106 (a Path would be taken for one that blocks, which this does not)


def empty_inside(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """`empty`, for `userns_main`."""
    empty(request["directory"])
    return {}


def empty(directory: int) -> None:
    """Remove everything in a directory, given by a descriptor; raises OSError.

    Directories deeper down are first moved up, so that neither the depth of a hostile tree nor the length of its
    paths matters. Another removal of the same directory, such as one that was given up and goes on, is harmless.
    """
    moved = _Moved(directory)
    while entries := os.listdir(directory):
        for name in entries:
            with contextlib.suppress(FileNotFoundError):
                _remove(directory, name, moved)


class _Moved:
    """Names, never used before, for what is moved to the top."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._names = (f".trash-{secrets.token_hex(8)}-{number}" for number in itertools.count())

    def up(self, inner: int, name: str) -> None:
        os.rename(name, next(self._names), src_dir_fd=inner, dst_dir_fd=self._top)


def _remove(top: int, name: str, moved: _Moved) -> None:
    """Remove one entry of `top`, moving the directories in it to `top`."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=top)
        return
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        with os.scandir(inner) as found:
            # All at once: what is removed while a directory is read may hide its neighbours.
            entries = list(found)
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                _remove_or_move(inner, entry, moved)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=top)


def _remove_or_move(inner: int, entry: os.DirEntry[str], moved: _Moved) -> None:
    if not entry.is_dir(follow_symlinks=False):
        os.unlink(entry.name, dir_fd=inner)
        return
    try:
        os.rmdir(entry.name, dir_fd=inner)
    except FileNotFoundError:
        return
    except OSError:
        moved.up(inner, entry.name)
