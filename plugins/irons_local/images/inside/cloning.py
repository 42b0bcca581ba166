"""A copy of a sandbox's changes that shares their blocks, where the file system can do that (`FICLONE`).

Runs by `linux.userns_main` in namespace B. It follows no link, and copies what an overlay's upper directory is made of:
files, directories, links, whiteouts and extended attributes. Sockets are left out.

The changes of a sandbox that runs are copied twice. The first pass takes them as they are; what goes or changes in the meantime it
leaves out. Then the sandbox is frozen, and the second pass takes what is not known to be unchanged: an entry is where it
was, in the same directory, and its status was last changed (`st_ctime`, which no one in a sandbox can set) before the first pass began.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
import time
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from irons_local.disk_room import Room
from irons_local.emptying import empty
from irons_local.errors import EngineError
from irons_local.images.inside.pairs import (
    DIRECTORY,
    Both,
    Contents,
    Pair,
    copy_attributes,
    is_possible,
    own_by_name,
)
from irons_local.linux import syscalls
from irons_local.linux.userns_main import Say

READY = "copied what does not change"
"""What `clone` reports when the sandbox is to be frozen; it goes on when something comes through `go`."""

_CLOCK_REALTIME_COARSE = 5
"""The clock of a file's times (linux/time.h)."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
FIRST_WITHIN = 1800.0
"""Seconds for the first pass at most: what a sandbox changes faster than it is copied does not keep its owner waiting for ever."""
_SECOND = 10**9
_STEP = 0.01
"""Seconds by which the clock may have been set between the passes; times of status are not believed after more."""

_TRIES = 100
_CLOSE = 0.002
_REPORT_EVERY = 10_000


def clone(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Copy a directory, for `userns_main`.

    Args:
        request: `source` and `target` (descriptors of directories; `target` is empty); `copies`, which says what is made
            where data may be copied if the file system shares no blocks; and `go`, a descriptor through which something comes when
            nothing changes in `source` any more, where something may until then.
        say: called with the progress.

    Raises:
        EngineError: there is no room, or the directory cannot be copied.
    """
    os.umask(0)
    try:
        _Clone(request["source"], request["target"], say, request.get("copies", "")).run(request.get("go"))
    except OSError as error:
        if error.errno in _FULL:
            what = request.get("copies", "the image")
            raise EngineError("limit", f"the disk is full: {what} does not fit") from error
        name = f" {error.filename}" if isinstance(error.filename, str) else ""
        raise EngineError("failed", f"the files cannot be copied:{name} {error.strerror}") from error
    return {}


@dataclass(slots=True)
class _Frame:
    """A directory on the way to the one that is being copied.

    Attributes:
        name: its name; "" for the source.
        place: a hash of its way from the source, as long for a deep one as for any.
        found: its status.
        known: its copy was begun by the first pass.
        same: nothing came or went in it since, nor did its attributes change.
        whole: nothing of it was left out in this pass.
        touched: its copy was changed in this pass.
        inner: names of the directories in it that wait.
    """

    name: str
    place: bytes
    found: os.stat_result
    known: bool
    same: bool = False
    whole: bool = True
    touched: bool = False
    inner: list[str] = field(default_factory=list)

    @property
    def number(self) -> tuple[int, int]:
        return self.found.st_dev, self.found.st_ino


class _Clone:
    def __init__(self, source: int, target: int, say: Say, copies: str) -> None:
        self._source = source
        self._target = target
        self._say = say
        self._links: dict[tuple[int, int], str] = {}
        self._room = Room(target, copies or "the image")
        self._shares = is_possible(target) if copies else True
        self._contents = Contents(self._room, shares=self._shares, may_copy=bool(copies))
        self._count = 0
        self._moving = False
        self._since = 0
        self._begun: dict[bytes, tuple[int, int]] = {}
        self._whole: set[bytes] = set()
        self._frames: list[_Frame] = []
        self._ends = math.inf

    def run(self, go: int | None) -> None:
        if go is not None:
            self._first(go)
        self._pass()

    def _first(self, go: int) -> None:
        """Copy what changes meanwhile, and wait until nothing does."""
        offset = _clock_offset()
        # What a program writes through a mapped page that is not written out yet shows in no time.
        if self._tells_time():
            self._since = unchanged_before(time.clock_gettime_ns(_CLOCK_REALTIME_COARSE))
            self._ends = time.monotonic() + FIRST_WITHIN
            syscalls.syncfs(self._source)
            self._moving = True
            try:
                self._pass()
            except OSError as error:
                # A directory that was moved or removed on the way: the second pass copies what this one did not.
                if error.errno in _FULL:
                    raise
            self._moving, self._ends = False, math.inf
            self._links.clear()
        self._say(READY, None)
        if not os.read(go, 1):
            raise EngineError("failed", "the control plane ended")
        # What cannot be told is not believed either.
        if not abs(_clock_offset() - offset) <= _STEP:
            self._since = 0

    def _tells_time(self) -> bool:
        """False of a file system in memory, which does not notice what is written through a mapped page."""
        return self._shares or os.major(os.fstat(self._source).st_dev) != 0

    def _pass(self) -> None:
        here = Pair(os.dup(self._source), os.dup(self._target))
        frames = self._frames
        frames.clear()
        try:
            self._enter(here, "", b"", known=bool(self._begun))
            while frames:
                frame = frames[-1]
                if frame.inner:
                    name = frame.inner.pop()
                    place = _place(frame.place, name)
                    known = self._made(here, frame, name, place)
                    if known is None:
                        frame.whole = False
                        continue
                    try:
                        here = here.down(name)
                    except OSError:
                        if not self._moving:
                            raise
                        frame.whole = False
                        continue
                    self._enter(here, name, place, known=known)
                else:
                    self._left(here, frames.pop())
                    if frames:
                        here = here.down("..")
                        _check(here, frames[-1])
        finally:
            here.close()

    def _made(self, here: Pair, frame: _Frame, name: str, place: bytes) -> bool | None:
        """Make the copy of a directory where it is not there; gives whether the first pass began it, None where it is gone."""
        try:
            found = os.stat(name, dir_fd=here.old, follow_symlinks=False)
            known = frame.known and self._begun.get(place) == (found.st_dev, found.st_ino)
            if not known:
                if frame.known:
                    self._clear(here.new, name)
                os.mkdir(name, 0o700, dir_fd=here.new)
                frame.touched = True
        except (FileNotFoundError, FileExistsError):
            if not self._moving:
                raise
            return None
        return known

    def _enter(self, here: Pair, name: str, place: bytes, *, known: bool) -> None:
        """Copy what lies in a directory but for the directories in it, which wait."""
        frame = _Frame(name, place, os.fstat(here.old), known)
        self._frames.append(frame)
        frame.same = known and place in self._whole and frame.found.st_ctime_ns < self._since
        if self._moving:
            self._begun[place] = frame.number
            self._check_time()
        names = set()
        with os.scandir(here.old) as entries:
            for entry in entries:
                self._room.take_entry()
                self._count += 1
                if self._count % _REPORT_EVERY == 0:
                    self._say("copying", None)
                    self._check_time()
                if known and not frame.same:
                    names.add(entry.name)
                self._entry(entry, here, frame)
        if known and not frame.same:
            for gone in set(os.listdir(here.new)) - names:  # noqa: PTH208 (a descriptor)
                self._clear(here.new, gone)
                frame.touched = True

    def _check_time(self) -> None:
        """Raise where what changes faster than it is copied has kept the first pass for long."""
        if time.monotonic() > self._ends:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    def _way(self, name: str) -> str:
        """Where an entry of the directory at hand lies beneath the source."""
        return "/".join([*(frame.name for frame in self._frames[1:]), name])

    def _left(self, here: Pair, frame: _Frame) -> None:
        if frame.touched or not frame.same:
            copy_attributes(here.old, here.new, frame.found)
        if self._moving and frame.whole:
            self._whole.add(frame.place)

    def _entry(self, entry: os.DirEntry[str], here: Pair, frame: _Frame) -> None:
        name = entry.name
        try:
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                frame.inner.append(name)
                return
            key = (found.st_dev, found.st_ino)
            # Only of what has several names: a way is as long as the guest makes it.
            way = self._way(name) if found.st_nlink > 1 else ""
            first = self._links.setdefault(key, way) if way else way
            if frame.known:
                if self._is_kept(frame, found, first, here.new, name):
                    return
                self._clear(here.new, name)
            frame.touched = True
            if first != way:
                # Its way leads through directories that were made here, so through no link.
                os.link(first, name, src_dir_fd=self._target, dst_dir_fd=here.new, follow_symlinks=False)
            else:
                self._copied(name, found, here)
        except OSError as error:
            if not self._moving or error.errno in _FULL:
                raise
            # The second pass sees to it.
            frame.whole = False

    def _is_kept(self, frame: _Frame, found: os.stat_result, first: str, target: int, name: str) -> bool:
        """Whether the first pass copied an entry, and it has not changed since."""
        if frame.place not in self._whole or found.st_ctime_ns >= self._since:
            return False
        if found.st_nlink == 1 or stat.S_ISSOCK(found.st_mode):
            return True
        with contextlib.suppress(OSError):
            return os.path.samestat(
                os.stat(name, dir_fd=target, follow_symlinks=False),
                os.stat(first, dir_fd=self._target, follow_symlinks=False),
            )
        return False

    def _copied(self, name: str, found: os.stat_result, here: Pair) -> None:
        mode = found.st_mode
        if stat.S_ISREG(mode):
            with Both(name, here) as both:
                now = os.fstat(both.old)
                if not stat.S_ISREG(now.st_mode):
                    raise OSError(errno.ESTALE, "it is another kind of file now", name)
                self._contents.give(both.old, both.new, now.st_size)
                copy_attributes(both.old, both.new, now)
        elif stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=here.old), name, dir_fd=here.new)
            own_by_name(name, here.new, found)
        elif not stat.S_ISSOCK(mode):
            os.mknod(name, mode, found.st_rdev, dir_fd=here.new)
            own_by_name(name, here.new, found)

    def _clear(self, directory: int, name: str) -> None:
        """Remove what the first pass made, if it made anything."""
        try:
            inner = os.open(name, DIRECTORY, dir_fd=directory)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            return
        try:
            empty(inner)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=directory)


def unchanged_before(now: int) -> int:
    """The time of status, in nanoseconds, before which nothing has changed since `now`.

    Some file systems keep whole seconds, and the clock may be set a little: what changed just before is copied again.
    """
    return (now - int(_STEP * _SECOND)) // _SECOND * _SECOND


def _clock_offset() -> float:
    """Seconds between the clock that can be set and the one that cannot, read so close together that no pause lies between."""
    for _ in range(_TRIES):
        before, clock, after = time.monotonic(), time.time(), time.monotonic()
        if after - before < _CLOSE:
            return clock - before
    return math.nan


def _place(above: bytes, name: str) -> bytes:
    return blake2b(above + os.fsencode(name), digest_size=16).digest()


def _check(here: Pair, frame: _Frame) -> None:
    found = os.fstat(here.old)
    if (found.st_dev, found.st_ino) != frame.number:
        raise OSError(errno.ESTALE, "a directory was moved", frame.name)
