"""Running mmdebstrap(1), and the two ends of the pipe between whoever writes an archive and whoever unpacks it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from irons_plugins.local.engines import EngineError, Progress
from irons_plugins.local.engines.call import end
from irons_plugins.local.images import debian

_CLEAN_UP_WITHIN = 20.0
# How apt reports that it is the mirror, or the way to it, that failed.
_NOT_FETCHED = ("Err:", "E: Failed to fetch", "W: Failed to fetch", "E: Some index files failed")
_T = TypeVar("_T")


async def debootstrap(recipe: debian.Recipe, out: int, progress: Progress) -> None:
    """Run mmdebstrap, which writes its archive to `out`.

    Raises:
        EngineError: it failed, with its own first complaint.
    """
    process = await asyncio.create_subprocess_exec(
        *recipe.command(root=os.geteuid() == 0),
        stdin=DEVNULL,
        stdout=out,
        stderr=PIPE,
        start_new_session=True,
    )
    complaint, fetching = "", False
    try:
        async for raw in cast("asyncio.StreamReader", process.stderr):
            line = raw.decode(errors="replace").strip()
            fetching = fetching or line.startswith(_NOT_FETCHED)
            known = debian.stage(line)
            if known is not None:
                progress(*known)
            # apt announces a failure, and says why only in the line of the error itself.
            if line.startswith("E:") and not complaint:
                complaint = " ".join(line.removeprefix("E:").split())
        if await process.wait():
            why = complaint or "no reason given"
            hint = "is the package mirror reachable?" if fetching else ""
            raise EngineError("image", f"mmdebstrap failed: {why}", hint)
    finally:
        await asyncio.shield(_give_up(process))


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
    """Do some work, and close its end of a pipe whatever becomes of it."""
    try:
        return await work
    finally:
        os.close(descriptor)


def _may_follow(error: BaseException) -> bool:
    """True of what a reader meets where its writer failed: an archive that ends early, and so lacks something."""
    return isinstance(error, EngineError) and error.code == "image"
