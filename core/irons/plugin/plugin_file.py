"""A plugin of one file: loaded only where no other user could have written it."""

from __future__ import annotations

import os
import stat
import sys
from types import ModuleType

from irons.errors import PluginError

PREFIX = "irons_plugin_"
"""What the module of such a plugin is named before the file's own name: a file `json.py` must not hide another module."""

LARGEST = 1 << 20
"""Bytes of a file that are read at most."""


def load(path: str, name: str, owner: int | None = None) -> ModuleType:
    """Read, compile and run a file, and return its module; no byte code is kept.

    Args:
        path: The file.
        name: Its name without the suffix.
        owner: Whose it must be, by uid; by default the effective user's.

    Raises:
        PluginError: Another user owns or can write the file or a directory on the way to it.
        OSError: It can't be read.
        SyntaxError: It is not Python; anything else that its code raises is raised too.
    """
    source = read(path, os.geteuid() if owner is None else owner)
    module = ModuleType(f"{PREFIX}{name}")
    module.__file__ = path
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, path, "exec"), vars(module))  # noqa: S102 - this is what a plugin is
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def read(path: str, owner: int) -> bytes:
    """Return the text of a plugin's file.

    Raises:
        PluginError: Another user owns or can write the file or a directory on the way to it.
        OSError: It can't be read.
    """
    # Where the file is a link, whoever can replace the link decides as much as who can write what it leads to.
    for directory in dict.fromkeys((os.path.dirname(path), os.path.dirname(os.path.realpath(path)))):  # noqa: PTH120 - no pathlib at start
        _check_way(os.path.realpath(directory), owner)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise PluginError(f"{path} is not a regular file")
        _check(path, found, {owner}, owner)
        source = file.read(LARGEST + 1)
    if len(source) > LARGEST:
        raise PluginError(f"{path} is larger than {LARGEST >> 20} MiB")
    return source


def refusing(why: str) -> object:
    """Raise `PluginError` with a reason that was found before the file was read."""
    raise PluginError(why)


def _check_way(directory: str, owner: int) -> None:
    """Check a directory, which must be the person's own, and those above it, which may be root's."""
    owners = {owner}
    while True:
        _check(directory, os.stat(directory), owners, owner)  # noqa: PTH116 - no pathlib at start
        owners = {owner, 0}
        above = os.path.dirname(directory)  # noqa: PTH120 - no pathlib at start
        if above == directory:
            return
        directory = above


def _check(path: str, found: os.stat_result, owners: set[int], owner: int) -> None:
    if found.st_uid not in owners:
        raise PluginError(
            f"{path} belongs to uid {found.st_uid}, not to uid {owner}, which runs irons; it is not loaded"
        )
    writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # In a directory such as /tmp only the owner of an entry can replace it.
    if writable and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        raise PluginError(f"others can write {path}; it is not loaded until you run: chmod go-w {path}")
