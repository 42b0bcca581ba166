"""The gateway's logs on their way to the server: in order, from where its copy ends, kept here until it has them on its disk."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import stat
import time
from pathlib import Path
from typing import NamedTuple

from irons_local.fleet.link import MemberLink
from irons_local.fleet.messages import CHUNK, LogPiece, Over, Runs
from irons_local.ipc.framing import RequestError

_log = logging.getLogger(__name__)
_RUN = re.compile(r"([0-9]{1,20}-[0-9]{1,10}-[0-9]{1,6})\.jsonl", re.ASCII)
_MOST_RUNS = 4096
_LOOK_EVERY = 1.0
_STILLBORN = 5.0
_MOST_COUNTS = 4 * 1024 * 1024
_END = b'"kind":"end"'


class _Look(NamedTuple):
    data: bytes
    size: int
    over: bool


class Shipping:
    """Ships the runs of a directory over one link after the other.

    Args:
        directory: the gateway's `audit`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._at: dict[str, int] = {}
        self._said: dict[str, str] = {}
        self._poked = asyncio.Event()

    def poke(self, _run: str = "") -> None:
        """A log has grown."""
        self._poked.set()

    def backlog(self) -> int:
        """Bytes that the server is not known to have."""
        at = dict(self._at)
        return sum(max(0, self._size(run) - at.get(run, 0)) for run in self._runs())

    async def run(self, link: MemberLink) -> None:
        """Ship for as long as the link lasts.

        Raises:
            LinkError: it ended.
            TimeoutError: the server does not answer.
        """
        compared = False
        while True:
            self._poked.clear()
            compared = compared or await self._compare(link)
            if not compared:
                await asyncio.sleep(_LOOK_EVERY)
                continue
            for run in self._runs():
                await self._ship(link, run)
            try:
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._poked.wait()
            except TimeoutError:
                continue

    async def _compare(self, link: MemberLink) -> bool:
        """Hear what the server has; whether it said it: one with a full disk does not, and everything else goes on."""
        runs = self._runs()
        try:
            found = await link.request(Runs(runs), within=_WITHIN)
        except RequestError as error:
            self._refused("", error)
            return False
        self._said.pop("", None)
        over, at = found.get("over"), found.get("at")
        self._at = {
            run: size for run, size in (at if isinstance(at, dict) else {}).items() if type(size) is int
        }
        for run in over if isinstance(over, list) else ():
            if run in runs:
                self._remove(run)
        return True

    async def _ship(self, link: MemberLink, run: str) -> None:
        """Ship what a run has new, and remove it once it is over and the server has it."""
        try:
            while True:
                at = self._at.get(run, 0)
                look = await asyncio.to_thread(self._look, run, at)
                if look is None:
                    return
                if (look.over and not look.data) or _END in look.data:
                    # Before what ends the run: the server reads them then.
                    await self._ship_counts(link, run)
                if look.data:
                    answer = await link.request(LogPiece(run, at, look.data), within=_WITHIN)
                    self._at[run] = _reached(answer)
                    self._said.pop(run, None)
                elif look.over:
                    # The server may have what this disk has lost.
                    await link.request(Over(run, max(at, look.size)), within=_WITHIN)
                    self._remove(run)
                    return
                else:
                    return
        except RequestError as error:
            self._refused(run, error)

    def _refused(self, run: str, error: RequestError) -> None:
        """Log why the server takes nothing of a run now, once for each reason; it is tried again."""
        if error.code != "busy" and self._said.get(run) != error.message:
            self._said[run] = error.message
            _log.warning("the log%s is not taken: %s", run and f" {run}", error.message)

    async def _ship_counts(self, link: MemberLink, run: str) -> None:
        data = await asyncio.to_thread(self._read_counts, run)
        for at in range(0, len(data), CHUNK):
            await link.request(LogPiece(run, at, data[at : at + CHUNK], counts=True), within=_WITHIN)

    def _look(self, run: str, at: int) -> _Look | None:
        fd = _open(self._directory / f"{run}.jsonl")
        if fd is None:
            return None
        try:
            # Before the size: what a writer wrote before it went is then surely seen.
            free = _let_go(fd)
            found = os.fstat(fd)
            over = free and (found.st_size > 0 or time.time() - found.st_mtime > _STILLBORN)
            data = os.pread(fd, CHUNK, at)
        finally:
            os.close(fd)
        if not over or len(data) == CHUNK:
            # The line that is being written is whole later; and none is cut in two, as one of them says that it is the last.
            data = data[: data.rfind(b"\n") + 1] or (data if len(data) == CHUNK else b"")
        return _Look(data, found.st_size, over)

    def _read_counts(self, run: str) -> bytes:
        fd = _open(self._directory / f"{run}.counts")
        if fd is None:
            return b""
        try:
            return os.pread(fd, _MOST_COUNTS, 0)
        finally:
            os.close(fd)

    def _runs(self) -> list[str]:
        try:
            names = os.listdir(self._directory)  # noqa: PTH208 (names are what is wanted)
        except FileNotFoundError:
            return []
        return sorted(found[1] for name in names if (found := _RUN.fullmatch(name)))[:_MOST_RUNS]

    def _size(self, run: str) -> int:
        try:
            return (self._directory / f"{run}.jsonl").stat(follow_symlinks=False).st_size
        except OSError:
            return 0

    def _remove(self, run: str) -> None:
        for kind in ("counts", "jsonl"):
            (self._directory / f"{run}.{kind}").unlink(missing_ok=True)
        self._at.pop(run, None)
        self._said.pop(run, None)
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # One that came back with a power cut would be shipped again.
            os.fsync(fd)
        finally:
            os.close(fd)


_WITHIN = 60.0


def _reached(answer: dict[str, object]) -> int:
    at = answer.get("at")
    if type(at) is not int or at < 0:
        raise RequestError("input", "the server did not say how much it has")
    return at


def _open(path: Path) -> int | None:
    """A descriptor of a plain file; None where there is none. The directory belongs to the gateway's own user."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def _let_go(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True
