"""Running a function of ours in the namespaces of `userns_main`, from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from typing import Any, cast

from irons_local.errors import EngineError
from irons_local.interpreter import options
from irons_local.progress import Progress, unheard

_LINE = 1 << 20


def program(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules as a program of its own."""
    return [sys.executable, *options(), "-m", module, *arguments]


async def call(
    level: str,
    target: str,
    request: dict[str, Any],
    *,
    fds: Sequence[int] = (),
    progress: Progress = unheard,
) -> dict[str, Any]:
    """Run `MODULE:FUNCTION` inside; a cancelled call kills it, and so does the end of this process.

    Args:
        level: `a` or `b`, as `userns_main` explains.
        target: the function.
        request: its argument, as JSON.
        fds: descriptors that it inherits under the same numbers.
        progress: called with what the function reports.

    Raises:
        EngineError: what the function raised, or that it died.
    """
    process = await asyncio.create_subprocess_exec(
        *program("irons_local.linux.userns_main", level, target),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        pass_fds=fds,
        start_new_session=True,
        limit=_LINE,
    )
    stdin = cast("asyncio.StreamWriter", process.stdin)
    stdout, stderr = (
        cast("asyncio.StreamReader", process.stdout),
        cast("asyncio.StreamReader", process.stderr),
    )
    complaints = asyncio.ensure_future(stderr.read())
    try:
        # What follows a process that was killed removes what it left half made, which no one may go on making.
        stdin.write(json.dumps({**request, "dies_with": os.getpid()}).encode())
        stdin.close()
        answer: dict[str, Any] = {}
        async for line in stdout:
            body: dict[str, Any] = json.loads(line)
            if "progress" in body:
                progress(body["progress"], body["done"])
            else:
                answer = body
        await process.wait()
        return _result(answer, await complaints)
    finally:
        await end(process)
        complaints.cancel()


async def end(process: Process) -> None:
    """Kill a process that still runs, and wait until it is gone."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


def _result(answer: dict[str, Any], complaints: bytes) -> dict[str, Any]:
    if "ok" in answer:
        result: dict[str, Any] = answer["ok"]
        return result
    error = answer.get("error")
    if error is None:
        lines = complaints.decode(errors="replace").strip().splitlines()
        raise EngineError("failed", lines[-1] if lines else "a process of irons died and reported nothing")
    raise EngineError(error["code"], error["message"], error.get("hint", ""))
