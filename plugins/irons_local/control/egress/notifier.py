"""`[ask] exec`: a program of the user's that hears of each question and may answer it, such as one that sends a message to a phone.

It runs without the daemon's rights and descriptors, without a shell, for 30 seconds at most. A word of its output is taken where the settings
allow it as an answer; anything else is passed over. Nothing waits for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from irons.text import clean
from irons_local.config.server import NotifierSettings
from irons_local.control.egress.notifying import NotifierReply, QuestionNotifier
from irons_local.control.egress.program_output import ProgramOutput
from irons_local.control.egress.questions import QuestionDesk

_log = logging.getLogger(__name__)

NAME: Final = "ask.exec"
"""What the change log calls it."""
LONGEST = 30.0
"""Seconds that the program may take."""
MOST_SAID = 64
"""Bytes of its output that may be an answer; more is none."""
MOST_SHOWN = 200
"""Bytes of its stderr that are logged where it fails."""
MOST_WRONG = 1 << 20
"""Bytes of its stderr for which it is not ended."""

_OURS = ("IRONS_LINK", "IRONS_KEEPER", "IRONS_NURSERY")


class ProgramNotifier(QuestionNotifier):
    """Runs the program for questions.

    Args:
        desk: has the questions, and takes answers.
        settings: gives `[ask]` as it is now; None where it names no program.
        environ: this process's variables.
        confined: makes of a command one that runs it without rights.
        clock: seconds that only ever grow.
    """

    def __init__(
        self,
        desk: QuestionDesk,
        settings: Callable[[], NotifierSettings | None],
        environ: Mapping[str, str],
        confined: Callable[[Sequence[str]], Sequence[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("[ask] exec", desk, settings, clock)
        self._confined = confined
        self._environ = {name: value for name, value in environ.items() if name not in _OURS}

    async def _pass_on(self, command: Sequence[str], told: Mapping[str, Any]) -> NotifierReply:
        return NotifierReply(await self._run(command, told), NAME)

    async def _run(self, command: Sequence[str], told: Mapping[str, Any]) -> str:
        """What the program says; empty where it fails, says too much, or takes too long."""
        much = asyncio.Event()
        with (
            ProgramOutput(MOST_SAID, MOST_SAID, much) as said,
            ProgramOutput(MOST_SHOWN, MOST_WRONG, much) as wrong,
        ):
            process = await asyncio.create_subprocess_exec(
                *self._confined(command),
                stdin=PIPE,
                stdout=said.writes,
                stderr=wrong.writes,
                env=self._environ,
                cwd="/",
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(LONGEST):
                    await _tell(process, json.dumps(told).encode() + b"\n")
                    await _ended(process, much)
            except TimeoutError:
                _log.warning("[ask] exec took longer than %.0f seconds", LONGEST)
                return ""
            finally:
                code = process.returncode
                await asyncio.shield(_end(process))
            answer, complaint = said.rest(), wrong.rest()
        if much.is_set():
            return ""
        if code != 0:
            shown = clean(complaint.strip()) or "nothing on stderr"
            _log.warning("[ask] exec failed with exit code %s: %s", code, shown)
            return ""
        return answer.strip()


async def _tell(process: Process, told: bytes) -> None:
    """Give it what there is to say."""
    assert process.stdin is not None  # noqa: S101 - it was asked for
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(told)
        await process.stdin.drain()
    process.stdin.close()


async def _ended(process: Process, much: asyncio.Event) -> None:
    """Wait until it has ended, whatever it started goes on, or has said too much."""
    until = [asyncio.ensure_future(process.wait()), asyncio.ensure_future(much.wait())]
    try:
        await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in until:
            each.cancel()


async def _end(process: Process) -> None:
    """End it with what it started, unless it has ended."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
