"""Removing a directory whose files belong to a sandbox: by descriptors, through no link, however deep it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

from irons_local.emptying import empty
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
            await call("a", f"{__name__}:empty_inside", {"directory": directory}, fds=(directory,))
    finally:
        os.close(directory)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)  # noqa: PTH106 (a Path would be taken for one that blocks, which this does not)


def empty_inside(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """`empty`, for `userns_main`."""
    empty(request["directory"])
    return {}
