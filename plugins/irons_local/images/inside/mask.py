"""The thin layer over a saved sandbox's files: it hides what must not travel with a copy.

Runs by `linux.userns_main` in namespace B with its root changed to all layers as one; the mask is the topmost and takes
what is removed and changed. The kernel writes the whiteouts, so that nothing here depends on their form.
"""

# This process's root is the image: paths are plain text, handed to the system calls by name.
# ruff: noqa: PTH108
from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Any

from irons_local.errors import EngineError
from irons_local.images.inside import prepare
from irons_local.images.inside.pack import KEY_PLACES, KEYS
from irons_local.linux.userns_main import Say

EMPTIED = {"dev": 0o755, "proc": 0o555, "run": 0o755, "sys": 0o555}
"""Directories that the mask has as its own, opaque ones, with their modes: they are filled again at each start."""


def begin(tree: int, opaque: str) -> list[int]:
    """Make the `EMPTIED` of a new mask; gives their descriptors, which the caller closes and gives to their owner.

    Args:
        tree: descriptor of the mask's directory.
        opaque: the extended attribute that makes a directory hide what is below it.

    Raises:
        OSError: they cannot be made.
    """
    made: list[int] = []
    try:
        for name, mode in EMPTIED.items():
            os.mkdir(name, dir_fd=tree)
            made.append(
                os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=tree)
            )
            os.setxattr(made[-1], opaque, b"y")
            os.fchmod(made[-1], mode)
    except OSError:
        for descriptor in made:
            os.close(descriptor)
        raise
    return made


def hide(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Hide keys and sockets, and prepare the image, for `userns_main`.

    Args:
        request: `rootfs` (descriptor of all layers as one), `mask` (descriptor of the mask's own directory).
        say: called with what is done.

    Returns:
        What `prepare.prepare` found.

    Raises:
        EngineError: the files cannot be an image, or there is no room.
    """
    os.fchdir(request["rootfs"])
    os.chroot(".")
    os.umask(0)
    say("hiding keys", None)
    try:
        for path in _hidden():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        found = prepare.prepare()
        _sync(request["mask"])
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EngineError("limit", "the disk is full: the image does not fit") from error
        name = f" {error.filename}" if isinstance(error.filename, str) else ""
        raise EngineError("failed", f"the files cannot be saved:{name} {error.strerror}") from error
    return found


def _hidden() -> Iterator[str]:
    """Paths of what must not be in an image: keys, and sockets, which no archive holds either."""
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        below = f"{directory}/" if directory else ""
        may_hold_keys = KEY_PLACES.fullmatch(directory) is not None
        found: list[str] = []
        with os.scandir(directory or ".") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if directory or entry.name not in EMPTIED:
                        waiting.append(below + entry.name)
                elif (may_hold_keys and KEYS.fullmatch(below + entry.name)) or _is_socket(entry):
                    found.append(below + entry.name)
        # What is removed while a directory is read may hide its neighbours.
        yield from found


def _is_socket(entry: os.DirEntry[str]) -> bool:
    if entry.is_file(follow_symlinks=False) or entry.is_symlink():
        return False
    return stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)


def _sync(mask: int) -> None:
    """Write the mask's own few files to the disk, before a record names it."""
    for _, directories, files, descriptor in os.fwalk(".", dir_fd=mask, follow_symlinks=False):
        for name in files:
            if stat.S_ISREG(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
                try:
                    os.fsync(file)
                finally:
                    os.close(file)
        directories.sort()
        os.fsync(descriptor)
