"""Running mmdebstrap(1), and the two ends of the pipe between whoever writes an archive and whoever unpacks it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Coroutine
from pathlib import Path
from typing import IO, Any, Self, TypeVar, cast

from irons_local.errors import EngineError
from irons_local.images.sources import debian
from irons_local.images.sources.complaints import Complaints
from irons_local.linux.userns_call import end
from irons_local.progress import Progress

_CLEAN_UP_WITHIN = 20.0
_LINE_AT_MOST = 1 << 20
_LOG_AT_MOST = 16 << 20
_T = TypeVar("_T")


async def debootstrap(recipe: debian.Recipe, out: int, log: Path, progress: Progress) -> None:
    """Run mmdebstrap, which writes its archive to `out`.

    Args:
        recipe: what to build.
        out: descriptor of the pipe for the archive.
        log: file for all that the programs say; it is replaced.
        progress: called with the progress.

    Raises:
        EngineError: it failed, with the cause in the words of the program that failed, and the log's path.
    """
    process = await asyncio.create_subprocess_exec(
        *recipe.command(root=os.geteuid() == 0),
        stdin=DEVNULL,
        stdout=out,
        stderr=PIPE,
        start_new_session=True,
        limit=_LINE_AT_MOST,
        # Messages are looked at, so they must not be translated; scripts of packages may need UTF-8.
        env={**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": ""},
    )
    said = Complaints()
    try:
        with _Log(log) as file:
            async for raw in cast("asyncio.StreamReader", process.stderr):
                file.take(raw)
                line = raw.decode(errors="replace")
                said.take(line)
                known = debian.stage(line)
                if known is not None:
                    progress(*known)
            if await process.wait():
                hint = f"{file.name} has the whole log"
                if said.was_fetching:
                    hint = f"is the package mirror reachable? {hint}"
                raise EngineError("image", f"mmdebstrap failed: {said.cause}", hint)
    finally:
        await asyncio.shield(_give_up(process))


class _Log:
    """A file for the lines of one build, bounded, owner-only."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._left = _LOG_AT_MOST
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.fdopen(os.open(draft, flags, 0o600), "wb")
        draft.replace(self._path)
        return self

    def take(self, line: bytes) -> None:
        """Write a line; past the bound it is left out."""
        self._left -= len(line)
        if self._file is not None and self._left >= 0:
            self._file.write(line)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


async def _give_up(process: Process) -> None:
    """End mmdebstrap so that it can clean up after itself; it is killed only if it does not."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLEAN_UP_WITHIN):
                await process.wait()
    await end(process)


async def piped(
    writing: Coroutine[Any, Any, Any], write: int, reading: Coroutine[Any, Any, _T], read: int
) -> _T:
    """Run both ends of a pipe, each of which is closed when its work ends; gives what the reading end gives.

    The reading end reads to the end also what it refuses, so a writer meets a closed pipe only where the reader could
    not do its work. That is the cause then, and the writer is ended at once.

    Raises:
        EngineError: the cause of the failure, not what it did to the other end.
    """
    writer = asyncio.ensure_future(_closing(writing, write))
    reader = asyncio.ensure_future(_closing(reading, read))
    try:
        await asyncio.wait((writer, reader), return_when=asyncio.FIRST_COMPLETED)
        if reader.done() and (broken := reader.exception()) is not None and not _may_follow(broken):
            raise broken
        await asyncio.wait((writer, reader))
        broken = reader.exception()
        if broken is not None and not _may_follow(broken):
            raise broken
        writer.result()
        return reader.result()
    finally:
        writer.cancel()
        reader.cancel()
        await asyncio.gather(writer, reader, return_exceptions=True)


async def _closing(work: Coroutine[Any, Any, _T], descriptor: int) -> _T:
    """Do some work, and close its end of a pipe also where it fails."""
    try:
        return await work
    finally:
        os.close(descriptor)


def _may_follow(error: BaseException) -> bool:
    """True of what a reader meets where its writer failed: an archive that ends early, and so lacks something."""
    return isinstance(error, EngineError) and error.code == "image"
