"""Removing all that is in a directory that may be hostile: by descriptors, through no link, however deep it is."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import stat


def empty(directory: int) -> None:
    """Remove everything in a directory, given by a descriptor; raises OSError.

    Directories deeper down are first moved up, so that neither the depth of a hostile tree nor the length of its
    paths matters. Another removal of the same directory, such as one that was given up and goes on, is harmless.
    """
    moved = _Moved(directory)
    while entries := _listed(directory):
        for name in entries:
            with contextlib.suppress(FileNotFoundError):
                _remove(directory, name, moved)


def _listed(directory: int) -> list[str]:
    """What is in a directory now. It is opened again: on btrfs a descriptor lists nothing that came after it was opened."""
    fresh = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.listdir(fresh)  # noqa: PTH208 (a descriptor)
    finally:
        os.close(fresh)


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
