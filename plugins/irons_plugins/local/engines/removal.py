"""Removing a directory whose files belong to a sandbox: by descriptors, through no link, however deep it is."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

from irons_plugins.local.engines.call import call
from irons_plugins.local.engines.inside import Say

_TRASH = ".trash-"


async def remove_tree(path: Path) -> None:
    """Remove a directory of ours with everything beneath it; one that is not there is no error.

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
        if os.geteuid() == 0:
            await asyncio.to_thread(empty, directory)
        else:
            # Only root of a namespace that holds the subordinate ids may remove what belongs to them.
            await call("a", f"{__name__}:empty_inside", {"directory": directory}, fds=(directory,))
    finally:
        os.close(directory)
    os.rmdir(path)  # noqa: PTH106 (a Path would be taken for one that blocks, which this does not)


def empty_inside(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """`empty`, for `inside`."""
    empty(request["directory"])
    return {}


def empty(directory: int) -> None:
    """Remove everything in a directory, given by a descriptor; raises OSError.

    Directories deeper down are first moved up, so that neither the depth of a hostile tree nor the length of its
    paths matters.
    """
    count = 0
    while entries := os.listdir(directory):
        for name in entries:
            count = _remove(directory, name, count)


def _remove(top: int, name: str, count: int) -> int:
    """Remove one entry of `top`, moving its directories to `top`; gives how many were moved so far."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=top)
        return count
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        with os.scandir(inner) as found:
            # All at once: what is removed while a directory is read may hide its neighbours.
            entries = list(found)
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=inner)
                continue
            try:
                os.rmdir(entry.name, dir_fd=inner)
            except OSError:
                count = _move_up(inner, entry.name, top, count)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=top)
    return count


def _move_up(inner: int, name: str, top: int, count: int) -> int:
    while True:
        count += 1
        try:
            os.stat(f"{_TRASH}{count}", dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, f"{_TRASH}{count}", src_dir_fd=inner, dst_dir_fd=top)
            return count
