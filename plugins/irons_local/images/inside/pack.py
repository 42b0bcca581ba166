"""Packing a root file system into a plain tar archive, as the root of the sandbox or image it belongs to.

Runs by `linux.userns_main` in namespace B with its root changed to what it packs. It looks no name up and executes
nothing: what lies there may be hostile. Holes stay holes, in GNU tar's sparse format 1.0 for pax archives (GNU tar
manual, "Storing Sparse Files"), so that what is read out of a sandbox is bounded by the blocks that it uses.
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
from typing import IO, Any, cast

from irons_local.disk_room import Room
from irons_local.errors import EngineError
from irons_local.linux.userns_main import Say

_CAPABILITY = "security.capability"
_REPORT_EVERY = 8 << 20
LEFT_OUT = re.compile(r"(?:dev|proc|run|sys)/.+")
"""Paths that are filled again at each start, or another kernel's view."""

_BLOCK = 512
MULTIPLE = 16
"""How many times the bytes of its blocks may be read out of a file system: some compress, and some know no holes."""
_GRANTED = 64 << 20
KEYS = re.compile(r"(?:.*/)?\.ssh/authorized_keys2?|etc/ssh/ssh_host_[^/]*|etc/hostname|etc/machine-id")
"""Paths that say who may enter or which machine this is: they must not travel with a copy."""
KEY_PLACES = re.compile(r"(?:.*/)?\.ssh|etc/ssh|etc")
"""The directories that `KEYS` lie in, so that among many files few need to be compared."""


def pack(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Write a tar archive, for `userns_main`.

    Args:
        request: `rootfs` and `archive` (descriptors), `size` (bytes to expect, 0 if not known), `without_keys`
            (leave out host keys and authorized keys).
        say: called with the progress.

    Returns:
        `size`, the bytes of the files without their holes.

    Raises:
        EngineError: something cannot be read, there is no room, or there is more to read than `MULTIPLE` times the
            blocks in use.
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
        self._room = Room(file.fileno(), "the archive")
        self._done = self._used = 0

    def run(self, say: Say, total: int) -> int:
        done = reported = 0
        with self._tar:
            for path, found in _walk():
                if LEFT_OUT.fullmatch(path) or (self._without_keys and KEYS.fullmatch(path)):
                    continue
                self._room.take_entry()
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
        try:
            found = os.fstat(descriptor)
            regions = _regions(descriptor, found)
            data = sum(length for _, length in regions)
            self._allow(path, data, found.st_blocks * _BLOCK)
            with contextlib.suppress(OSError):
                value = os.getxattr(descriptor, _CAPABILITY)
                member.pax_headers = {f"SCHILY.xattr.{_CAPABILITY}": value.decode("utf-8", "surrogateescape")}
            member.size = data
            head = b""
            if data < found.st_size:
                head = _as_sparse(member, found.st_size, regions)
            self._tar.addfile(member, cast("IO[bytes]", _Reader(descriptor, head, regions, self._room)))
        finally:
            os.close(descriptor)
        return data

    def _allow(self, path: str, data: int, used: int) -> None:
        """Refuse a file that is larger than what is on the disk of it could be."""
        self._done += data
        self._used += used
        if self._done > MULTIPLE * self._used + _GRANTED:
            raise EngineError(
                "limit",
                f"the files cannot be packed: {path} holds more than {MULTIPLE} times the blocks it uses",
            )


class _Reader:
    """A file's data as it stands in the archive: what goes before it, then its regions without the holes."""

    def __init__(self, descriptor: int, head: bytes, regions: list[tuple[int, int]], room: Room) -> None:
        self._descriptor = descriptor
        self._head = head
        self._regions = regions[::-1]
        self._room = room

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; fewer only where the file ends before its time."""
        self._room.take(size)
        pieces: list[bytes] = [self._head[:size]]
        self._head = self._head[size:]
        size -= len(pieces[0])
        while size and self._regions:
            start, length = self._regions.pop()
            piece = os.pread(self._descriptor, min(size, length), start)
            if not piece:
                break
            if len(piece) < length:
                self._regions.append((start + len(piece), length - len(piece)))
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def _regions(descriptor: int, found: os.stat_result) -> list[tuple[int, int]]:
    """Where a file has data, as start and length; a file without holes, or on a disk that knows none, is one region."""
    size = found.st_size
    whole = [(0, size)] if size else []
    if found.st_blocks * _BLOCK >= size:
        return whole
    regions: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
            end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno != errno.ENXIO:
                return whole
            break
        if start < end:
            regions.append((start, end - start))
        at = end
    return regions


def _as_sparse(member: tarfile.TarInfo, size: int, regions: list[tuple[int, int]]) -> bytes:
    """Make a member a sparse one; gives the map that goes before its data."""
    directory, _, name = member.name.rpartition("/")
    headers = {"major": "1", "minor": "0", "name": member.name, "realsize": str(size)}
    member.pax_headers = {
        **member.pax_headers,
        **{f"GNU.sparse.{key}": value for key, value in headers.items()},
    }
    member.name = f"{directory}/GNUSparseFile.0/{name}".lstrip("/")
    entries = [*regions, (size, 0)]
    text = "".join(f"{number}\n" for number in (len(entries), *(part for entry in entries for part in entry)))
    padded = text.encode("ascii")
    padded += bytes(-len(padded) % _BLOCK)
    member.size += len(padded)
    return padded


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
