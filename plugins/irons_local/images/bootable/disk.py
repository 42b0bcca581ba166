"""Makes a disk of the files of an image, or of a kernel kit, as their owner (`linux.userns_main`).

An image's files are a stranger's: they are read beneath the image and through no link, and nothing of them is run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from irons_local.errors import EngineError
from irons_local.linux.programs import search_path
from irons_local.linux.userns_main import Say

_BLOCK = 4096
_ROOM = 192 << 20
"""Bytes of a new file system beyond its files: for its tables and journal, and to start before it has grown."""
_CHUNK = 1 << 20


def make(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Write a file system with the files of a directory to an open file; gives its size in bytes.

    Args:
        request: descriptors: `rootfs` of the directory, and `disk`, the file to write; `room`, bytes beyond the files, where these are
            not to grow; `what` it is of, for people.
        say: called with the progress.

    Raises:
        EngineError: mke2fs is not there, or failed.
    """
    rootfs, disk = request["rootfs"], request["disk"]
    say(f"making the disk of {request.get('what', 'the image')}", None)
    size = _size(rootfs, request.get("room", _ROOM))
    _make_file_system(rootfs, disk, size)
    return {"size": size}


def _size(rootfs: int, room: int) -> int:
    """Bytes of a file system for these files, each in whole blocks, and inodes of 256 bytes."""
    total = 0
    for _, directories, files, directory in os.fwalk(".", dir_fd=rootfs):
        for name in files:
            blocks = os.stat(name, dir_fd=directory, follow_symlinks=False).st_size // _BLOCK + 2
            total += blocks * _BLOCK
        total += _BLOCK * 2 * (1 + len(directories))
    total = total * 11 // 10 + room
    return total - total % _CHUNK


def _make_file_system(rootfs: int, disk: int, size: int) -> None:
    program = shutil.which("mke2fs", path=search_path())
    if program is None:
        raise EngineError("machine", "mke2fs (e2fsprogs) is not installed", "see `irons doctor`: vm")
    os.ftruncate(disk, size)
    for descriptor in (rootfs, disk):
        os.set_inheritable(descriptor, True)
    words = [
        program,
        *("-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-m", "0", "-L", "irons"),
        *("-E", "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard"),
        *("-d", f"/proc/self/fd/{rootfs}", f"/proc/self/fd/{disk}"),
    ]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, check=False, pass_fds=(rootfs, disk)
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise EngineError("failed", f"mke2fs: {lines[-1] if lines else done.returncode}")
