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
    complaint = ""
    try:
        async for raw in cast("asyncio.StreamReader", process.stderr):
            line = raw.decode(errors="replace").strip()
            known = debian.stage(line)
            if known is not None:
                progress(*known)
            # apt announces a failure, and says why only in the line of the error itself.
            if line.startswith("E:") and not complaint:
                complaint = " ".join(line.removeprefix("E:").split())
        if await process.wait():
            why = complaint or "no reason given"
            raise EngineError("image", f"mmdebstrap failed: {why}", "is the package mirror reachable?")
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

    Raises:
        EngineError: what went wrong; where both ends fail the writer's word is worth more, unless the disk was full.
    """
    return await _all_or_first_failure(
        asyncio.ensure_future(_closing(writing, write)), asyncio.ensure_future(_closing(reading, read))
    )


async def _closing(work: Coroutine[Any, Any, _T], descriptor: int) -> _T:
    """Do some work, and close its end of a pipe whatever becomes of it."""
    try:
        return await work
    finally:
        os.close(descriptor)


async def _all_or_first_failure(writer: asyncio.Future[Any], reader: asyncio.Future[_T]) -> _T:
    """Wait for both ends of a pipe; where both fail, the writer's word is worth more, unless the disk was full."""
    try:
        await asyncio.wait((writer, reader))
        broken = reader.exception()
        if broken is not None and not _is_consequence(broken):
            raise broken
        writer.result()
        return reader.result()
    finally:
        writer.cancel()
        reader.cancel()
        await asyncio.gather(writer, reader, return_exceptions=True)


def _is_consequence(error: BaseException) -> bool:
    """True of what goes wrong at the reading end of a pipe when the writing end failed."""
    return isinstance(error, EngineError) and error.code != "limit"
