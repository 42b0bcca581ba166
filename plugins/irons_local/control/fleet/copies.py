"""Copies of a member's audit logs: written as they arrive, on disk before the member hears of it, taken in like this machine's."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from irons.files import make_private
from irons_local.ipc.framing import RequestError

MOST = 1 << 30
"""Bytes of all copies of a member, but for what was taken in: with more none is begun, until some is."""
MOST_IN_ALL = 2 * MOST
"""The same for what goes on: the end of a run, by which its copy goes, must come."""
MOST_COUNTS = 4 * 1024 * 1024
MOST_FILES = 8192
_BLOCK = 512
"""Bytes of what stat(2) counts."""


class LogCopies:
    """The copies of one member's logs, in a directory: `RUN.jsonl`, `RUN.counts`, and `RUN.over` for one that is whole.

    `RUN.over` stays until the member has removed the run: a run that was taken in and removed here is not taken in again.
    All calls block, and come one after the other.

    Args:
        directory: made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def compare(self, runs: Collection[str]) -> tuple[Mapping[str, int], list[str]]:
        """How much there is of each of a member's runs, and which of them are whole; what the member has no more is forgotten.

        Raises:
            OSError: the directory cannot be read or written.
        """
        make_private(self._directory)
        whole = []
        for name in os.listdir(self._directory):  # noqa: PTH208 (names are what is wanted)
            run, _, kind = name.rpartition(".")
            if kind != "over":
                continue
            if run in runs:
                whole.append(run)
            elif not self._path(run, "jsonl").exists():
                self._path(run, "over").unlink()
        return {run: self._size(run) for run in runs if run not in whole}, whole

    def append(self, run: str, at: int, data: bytes, *, counts: bool) -> int:
        """Add to a copy, and wait until the disk has it.

        Args:
            run: the run.
            at: where the bytes begin; those of the counts replace all when they begin at 0.
            data: the bytes.
            counts: they are of the counts.

        Returns:
            How many bytes there are now. Nothing is written where that is not where they begin.

        Raises:
            RequestError: there is no room for more until some is taken in.
            OSError: they cannot be written.
        """
        make_private(self._directory)
        path = self._path(run, "counts" if counts else "jsonl")
        fresh = not path.exists()
        if self._path(run, "over").exists():
            raise RequestError("over", "that run is whole already")
        if counts and at + len(data) > MOST_COUNTS:
            raise RequestError("large", "the counts are too large")
        self._have_room(MOST if fresh and not counts else MOST_IN_ALL)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path, flags | (os.O_TRUNC if counts and not at else 0), 0o600)
        try:
            size = os.fstat(fd).st_size
            if size != at:
                return size
            while data:
                written = os.pwrite(fd, data, at)
                at, data = at + written, data[written:]
            os.fdatasync(fd)
        finally:
            os.close(fd)
        if fresh:
            self._sync()
        return at

    def end(self, run: str, size: int) -> None:
        """Note that a copy is whole.

        Raises:
            RequestError: it is not.
            OSError: that cannot be written.
        """
        make_private(self._directory)
        over = self._path(run, "over")
        if over.exists():
            return
        if not self._path(run, "jsonl").exists():
            if size:
                raise RequestError("size", f"the copy has 0 of {size} bytes")
            # Nothing was ever written: there is nothing to take in, and nothing to remember.
            self._path(run, "counts").unlink(missing_ok=True)
            return
        if self._size(run) != size:
            raise RequestError("size", f"the copy has {self._size(run)} of {size} bytes")
        fd = os.open(self._path(run, "jsonl"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            # Another process may have written it, and not have got to this.
            os.fdatasync(fd)
        finally:
            os.close(fd)
        os.close(os.open(over, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._sync()

    def _have_room(self, most: int) -> None:
        # Of what was taken in the blocks are free again.
        used = [each.stat().st_blocks * _BLOCK for each in os.scandir(self._directory)]
        if sum(used) >= most or len(used) >= MOST_FILES * most // MOST:
            raise RequestError("busy", "the server has to take in what it has first")

    def _size(self, run: str) -> int:
        try:
            return self._path(run, "jsonl").stat().st_size
        except FileNotFoundError:
            return 0

    def _path(self, run: str, kind: str) -> Path:
        return self._directory / f"{run}.{kind}"

    def _sync(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
