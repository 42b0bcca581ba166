"""Unpacking an archive that may be hostile: as a sandbox's root, below a directory that is its whole world.

Runs by `linux.userns_main` in namespace B with its root changed to the target, so that even a path that were let
through could reach nothing but the target. No device nodes, no extended attributes but file capabilities, no
owners outside the namespace; nothing of the archive is executed.
"""

# This process's root is the image: paths are plain text, handed to the system calls by name.
# ruff: noqa: PTH101, PTH102, PTH108, PTH112, PTH208, PTH211
from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import lzma
import os
import posixpath
import resource
import shutil
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Any, cast

from irons.text import size_text
from irons_local.bundle.image_config import EMPTY, ImageConfig
from irons_local.disk_room import Room
from irons_local.errors import EngineError
from irons_local.images.inside import archive, prepare
from irons_local.linux.idmap import INNER_COUNT
from irons_local.linux.userns_main import Say

# After the change of root nothing can be imported any more; tarfile imports these when it meets such a file.
_COMPRESSIONS = (bz2, gzip, lzma)
# What tarfile raises where a header or the map of a sparse file holds what it does not expect.
_DAMAGES = (tarfile.TarError, EOFError, lzma.LZMAError, LookupError, ValueError, OverflowError)
MEMORY = 1 << 30
"""Bytes of memory for reading an archive: headers, the lists of a sparse file, the dictionary of a compression."""

_CAPABILITY = "SCHILY.xattr.security.capability"
_CHUNK = 1 << 20
_REPORT_EVERY = 8 << 20
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


def unpack(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Unpack and prepare an image, for `userns_main`.

    Args:
        request: `archive` and `rootfs` (descriptors), `stream` (true where the archive comes through a pipe),
            `size` (bytes of the archive, 0 if not known).
        say: called with the progress.

    Returns:
        What `prepare.prepare` found, and `size`, the bytes unpacked.

    Raises:
        EngineError: the archive is refused, or there is no room.
    """
    os.fchdir(request["rootfs"])
    os.chroot(".")
    os.umask(0)
    # Layers need not say anything of the root directory itself, and a daemon's own umask is none of its business.
    os.chmod(".", 0o755)  # noqa: S103 (everybody inside must get in)
    try:
        with _bounded(MEMORY), os.fdopen(request["archive"], "rb", closefd=False) as file:
            room = Room(request["rootfs"], "the image")
            find = archive.stream if request["stream"] else archive.layers
            config = EMPTY if request["stream"] else ImageConfig.of(archive.configuration(file))
            size = 0
            for layer in find(file):
                size += LayerWriter(layer, room).unpack(say, request["size"])
            if request["stream"]:
                _drain(file)
        found = {**prepare.prepare(config), "config": asdict(config)}
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
    except MemoryError:
        refusal = EngineError(
            "image", f"refused: to read the archive takes more than {size_text(MEMORY)} of memory"
        )
    except (archive.ArchiveError, *_DAMAGES, OSError) as error:
        refusal = _explained(error)
    except EngineError as error:
        refusal = error
    else:
        return {**found, "size": size}
    if request["stream"] and refusal.code == "image":
        # A writer that cannot write to the end would fail too, and hide why.
        with contextlib.suppress(OSError), os.fdopen(request["archive"], "rb", closefd=False) as file:
            _drain(file)
    raise refusal


@contextlib.contextmanager
def _bounded(memory: int) -> Iterator[None]:
    """Let this process have no more than so many bytes: how much is kept of a header or a block is for the archive to say."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    least = [each for each in (soft, hard, memory) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(least), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _explained(error: Exception) -> EngineError:
    if isinstance(error, archive.ArchiveError):
        return EngineError("image", str(error))
    if isinstance(error, KeyError):
        return EngineError("image", f"the archive lacks {error.args[0]}, which its manifest names")
    if not isinstance(error, OSError) or isinstance(error, gzip.BadGzipFile):
        return EngineError("image", f"the archive is damaged: {error}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EngineError("limit", "the disk is full: the image does not fit")
    name = f" {error.filename}" if error.filename else ""
    return EngineError("image", f"the archive cannot be unpacked:{name} {error.strerror or error}")


def _drain(file: IO[bytes]) -> None:
    """Read what follows the end of the archive, so that its writer does not meet a closed pipe."""
    while file.read(_CHUNK):
        pass


class LayerWriter:
    """One tar file on its way to the root of this process."""

    def __init__(self, tar: tarfile.TarFile, room: Room) -> None:
        self._tar = tar
        self._room = room
        self._written: set[str] = set()
        self._directories: list[tuple[str, float]] = []

    def unpack(self, say: Say, total: int) -> int:
        """Write every member; gives the bytes of the files without their holes.

        Raises:
            ArchiveError: a member is refused.
            EngineError: there is no room for it.
            OSError: it cannot be written.
        """
        size = reported = 0
        for member in self._tar:
            self._room.take_entry()
            name = checked_name(member.name)
            if name:
                size += self._member(member, name)
            else:
                self._attributes(member, ".")
            if size - reported >= _REPORT_EVERY:
                reported = size
                say("unpacking", min(0.99, self._tar.offset / total) if total else None)
            # Each member is kept otherwise, which for a large image is a lot of memory.
            self._tar.members = []  # type: ignore[attr-defined]
        for name, mtime in reversed(self._directories):
            with contextlib.suppress(FileNotFoundError):
                os.utime(name, (mtime, mtime), follow_symlinks=False)
        return size

    def _member(self, member: tarfile.TarInfo, name: str) -> int:
        parent, _, base = name.rpartition("/")
        if base.startswith(_WHITEOUT):
            self._remove_by_whiteout(parent, base)
            return 0
        if member.ischr() or member.isblk():
            return 0
        if parent and not os.path.isdir(parent):
            self._make_parents(parent)
        self._written.add(name)
        if member.isdir():
            self._clear(name, keep_directory=True)
            if not os.path.isdir(name):
                os.mkdir(name, 0o755)
            self._directories.append((name, member.mtime))
            self._attributes(member, name)
            return 0
        self._clear(name, keep_directory=False)
        if member.issym():
            os.symlink(checked_link(name, member.linkname), name)
            os.chown(name, *owner(member), follow_symlinks=False)
            return 0
        if member.islnk():
            os.link(checked_name(member.linkname), name, follow_symlinks=False)
            return 0
        size = 0
        if member.isfifo():
            os.mkfifo(name, 0o600)
        elif member.isreg():
            size = self._write(member, name)
        else:
            raise archive.ArchiveError(f"{member.name}: an entry of an unknown type")
        self._attributes(member, name)
        os.utime(name, (member.mtime, member.mtime), follow_symlinks=False)
        return size

    def _write(self, member: tarfile.TarInfo, name: str) -> int:
        """Write a file's data, leaving out the holes of a sparse one; gives the bytes written."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600)
        try:
            if not member.issparse():
                source = self._tar.extractfile(member)
                return 0 if source is None else self._copy(source, descriptor, 0, member.size)
            size = 0
            # The regions follow one another there. A file that tarfile extracts cannot skip a hole of a stream.
            data = cast("IO[bytes]", self._tar.fileobj)
            data.seek(member.offset_data)
            for start, length in cast("list[tuple[int, int]]", member.sparse):
                size += self._copy(data, descriptor, start, length)
            os.ftruncate(descriptor, member.size)
            return size
        finally:
            os.close(descriptor)

    def _copy(self, source: IO[bytes], descriptor: int, at: int, length: int) -> int:
        left = length
        while left > 0:
            data = source.read(min(_CHUNK, left))
            if not data:
                raise EOFError("unexpected end of data")
            self._room.take(len(data))
            view = memoryview(data)
            while view:
                written = os.pwrite(descriptor, view, at)
                view, at = view[written:], at + written
            left -= len(data)
        return length

    def _attributes(self, member: tarfile.TarInfo, name: str) -> None:
        # In this order: a change of owner clears the set-user-id bit and the capabilities.
        os.chown(name, *owner(member), follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(member.mode))
        capability = member.pax_headers.get(_CAPABILITY)
        if capability is not None and member.isreg():
            os.setxattr(
                name,
                "security.capability",
                capability.encode("utf-8", "surrogateescape"),
                follow_symlinks=False,
            )

    def _clear(self, name: str, *, keep_directory: bool) -> None:
        try:
            found = os.lstat(name)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(found.st_mode):
            # A directory entry over a link to a directory means that directory, as every tar program has it.
            if not (keep_directory and os.path.isdir(name)):
                os.unlink(name)
        elif not keep_directory:
            shutil.rmtree(name)

    def _make_parents(self, parent: str) -> None:
        path = ""
        for part in parent.split("/"):
            path = posixpath.join(path, part)
            if not os.path.isdir(path):
                self._clear(path, keep_directory=False)
                os.mkdir(path, 0o755)

    def _remove_by_whiteout(self, parent: str, base: str) -> None:
        if base != _OPAQUE:
            self._clear(posixpath.join(parent, base.removeprefix(_WHITEOUT)), keep_directory=False)
            return
        for name in self._below(parent):
            if name not in self._written:
                self._clear(name, keep_directory=False)

    def _below(self, parent: str) -> Iterator[str]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.listdir(parent or "."):
                yield posixpath.join(parent, entry)


def checked_name(name: str) -> str:
    """A member's name, relative and plain; "" for the root itself.

    Raises:
        ArchiveError: it is absolute, or climbs, or is not a name at all.
    """
    if name.startswith("/") or "\0" in name:
        raise archive.ArchiveError(f"refused: the archive holds the absolute path {name!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise archive.ArchiveError(f"refused: the archive holds a path that climbs: {name!r}")
    return "/".join(parts)


def checked_link(name: str, target: str) -> str:
    """The target of a symbolic link, as it is.

    Raises:
        ArchiveError: it leads out of the root file system.
    """
    depth = name.count("/")
    if not target or "\0" in target:
        raise archive.ArchiveError(f"refused: the link {name!r} leads nowhere")
    for part in () if target.startswith("/") else target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            raise archive.ArchiveError(f"refused: the link {name!r} leads out of the archive: {target!r}")
    return target


def owner(member: tarfile.TarInfo) -> tuple[int, int]:
    """The owner and group of a member.

    Raises:
        ArchiveError: ids that a sandbox does not have.
    """
    for number in (member.uid, member.gid):
        if not 0 <= number < INNER_COUNT:
            raise archive.ArchiveError(f"{member.name}: owner {number} is above {INNER_COUNT - 1}")
    return member.uid, member.gid
