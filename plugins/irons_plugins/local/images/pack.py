"""Packing a root file system into a plain tar archive, as the root of the sandbox or image it belongs to.

Runs by `engines.inside` in namespace B with its root changed to what it packs. It looks no name up and executes
nothing: what lies there may be hostile.
"""

# This process's root is the image: paths are plain text, handed to the system calls by name; and a tar file lives
# as long as its packer.
# ruff: noqa: PTH115, SIM115
from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from typing import IO, Any

from irons_plugins.local.engines import EngineError
from irons_plugins.local.engines.inside import Say

_CAPABILITY = "security.capability"
_REPORT_EVERY = 8 << 20
# Filled anew at each start, or another kernel's view.
_LEFT_OUT = re.compile(r"(?:dev|proc|run|sys)/.+")
# What lets somebody in must not travel with a copy.
_KEYS = re.compile(r"(?:.*/)?\.ssh/authorized_keys2?|etc/ssh/ssh_host_[^/]*|etc/hostname|etc/machine-id")


def pack(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Write a tar archive, for `inside`.

    Args:
        request: `rootfs` and `archive` (descriptors), `size` (bytes to expect, 0 if not known), `without_keys`
            (leave out host keys and authorized keys).
        say: told how far it is.

    Returns:
        `size`, the bytes of the files.

    Raises:
        EngineError: something cannot be read, or there is no room.
    """
    os.fchdir(request["rootfs"])
    os.chroot(".")
    try:
        with os.fdopen(request["archive"], "wb", closefd=False) as file:
            return {"size": _Packer(file, request["without_keys"]).run(say, request["size"])}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EngineError("limit", "the disk is full: the archive does not fit") from error
        name = f" {error.filename}" if error.filename else ""
        raise EngineError("failed", f"the files cannot be packed:{name} {error.strerror}") from error


class _Packer:
    def __init__(self, file: IO[bytes], without_keys: bool) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 18)
        self._without_keys = without_keys
        self._links: dict[tuple[int, int], str] = {}

    def run(self, say: Say, total: int) -> int:
        done = reported = 0
        with self._tar:
            for path, found in _walk():
                if _LEFT_OUT.fullmatch(path) or (self._without_keys and _KEYS.fullmatch(path)):
                    continue
                done += self._add(path, found)
                if done - reported >= _REPORT_EVERY:
                    reported = done
                    say("packing", min(0.99, done / total) if total else None)
        return done

    def _add(self, path: str, found: os.stat_result) -> int:
        member = tarfile.TarInfo(path)
        member.mode = stat.S_IMODE(found.st_mode)
        member.uid, member.gid = found.st_uid, found.st_gid
        member.mtime = int(found.st_mtime)
        mode = found.st_mode
        if stat.S_ISDIR(mode):
            member.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(mode):
            member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
        elif stat.S_ISFIFO(mode):
            member.type = tarfile.FIFOTYPE
        elif not stat.S_ISREG(mode):
            return 0
        elif (
            found.st_nlink > 1
            and (first := self._links.setdefault((found.st_dev, found.st_ino), path)) != path
        ):
            member.type, member.linkname = tarfile.LNKTYPE, first
        else:
            return self._add_file(member, path)
        self._tar.addfile(member)
        return 0

    def _add_file(self, member: tarfile.TarInfo, path: str) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            member.size = os.fstat(descriptor).st_size
            with contextlib.suppress(OSError):
                value = os.getxattr(descriptor, _CAPABILITY)
                member.pax_headers = {f"SCHILY.xattr.{_CAPABILITY}": value.decode("utf-8", "surrogateescape")}
            self._tar.addfile(member, file)
        return member.size


def _walk() -> Iterator[tuple[str, os.stat_result]]:
    """Every path below the root, relative to it, directories before what they hold."""
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(directory or ".") as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            path = f"{directory}/{name}" if directory else name
            found = os.lstat(path)
            yield path, found
            if stat.S_ISDIR(found.st_mode):
                waiting.append(path)
