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
from irons_local import times
from irons_local.config.server import NotifierSettings
from irons_local.control.egress.program_output import ProgramOutput
from irons_local.control.egress.questions import ANSWERS, Answer, CellQuestion, QuestionDesk
from irons_local.control.schema.errors import HttpError
from irons_local.control.store.changelog import ORIGIN, Origin
from irons_local.control.store.database import StoreError
from irons_local.control.store.sandboxes import StoredSandbox

_log = logging.getLogger(__name__)

NAME: Final = "ask.exec"
"""What the change log calls it."""
LONGEST = 30.0
"""Seconds that the program may take."""
EVERY = 10.0
"""Seconds between two messages about one sandbox."""
MOST = 4
"""Programs that run at the same time."""
MOST_SAID = 64
"""Bytes of its output that may be an answer; more is none."""
MOST_SHOWN = 200
"""Bytes of its stderr that are logged where it fails."""
MOST_WRONG = 1 << 20
"""Bytes of its stderr for which it is not ended."""
MOST_FIELD = 100
"""Bytes of each text that goes out."""
ANSWERED_WITHIN = 3600.0
"""Seconds since its last answer for which connections wait for it, with the setting `hold`."""
LOOK = 2.0
"""Seconds between two looks at the settings."""

_OURS = ("IRONS_LINK", "IRONS_KEEPER", "IRONS_NURSERY")
_PLAIN = frozenset(" ,;'+-_")


class ProgramNotifier:
    """Runs the program for questions, one message for each, and the next of a sandbox a while later.

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
        self._desk, self._settings, self._confined, self._clock = desk, settings, confined, clock
        self._environ = {name: value for name, value in environ.items() if name not in _OURS}
        self._running: set[asyncio.Task[None]] = set()
        self._known: set[str] = set()
        self._sent: dict[str, float] = {}
        self._answered = float("-inf")

    @property
    def running(self) -> int:
        """How many programs run."""
        return len(self._running)

    async def run(self) -> None:
        """Follow the questions until cancelled; no failure ends it."""
        token: int | None = None
        try:
            while True:
                try:
                    token = await self._look(token)
                except StoreError as error:
                    _log.warning("questions cannot be read for [ask] exec: %s", error)
                    await asyncio.sleep(LOOK)
                except Exception:  # noqa: BLE001 (nothing of the control plane depends on it, so it stops nothing either)
                    _log.exception("[ask] exec: a look at the questions failed")
                    await asyncio.sleep(LOOK)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _look(self, token: int | None) -> int | None:
        """Look at the questions once there are others than those of a token, and tell the program of them; gives the next token.

        Raises:
            StoreError: the database failed.
        """
        settings = self._settings()
        if settings is None:
            self._known.clear()
            await asyncio.sleep(LOOK)
            return token
        self._desk.watchers.listen(
            LOOK, hold=settings.hold and self._clock() - self._answered < ANSWERED_WITHIN
        )
        page = await self._desk.page(token, LOOK)
        self._known &= {question.id for question, _ in page.questions}
        for question, sandbox in page.questions:
            self._tell(settings, question, sandbox)
        return page.token

    def _tell(self, settings: NotifierSettings, question: CellQuestion, sandbox: StoredSandbox) -> None:
        """Run the program for a question, unless it had that one, or was run for its sandbox a moment ago."""
        now = self._clock()
        for cell in [cell for cell, when in self._sent.items() if now - when >= EVERY]:
            del self._sent[cell]
        if question.id in self._known or question.cell in self._sent or len(self._running) >= MOST:
            return
        self._known.add(question.id)
        self._sent[question.cell] = now
        task = asyncio.create_task(self._ask(settings, question, sandbox))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _ask(self, settings: NotifierSettings, question: CellQuestion, sandbox: StoredSandbox) -> None:
        try:
            said = await self._run(settings, message(settings, question, sandbox))
        except OSError as error:
            _log.warning("[ask] exec cannot be started: %s", error.strerror)
            return
        answer: Answer | None = next((each for each in ANSWERS if each == said), None)
        if answer is None or answer not in settings.may:
            if said:
                _log.warning("[ask] exec: %r is not an answer that it may give", clean(said, limit=MOST_SAID))
            return
        await self._answer(question, answer)

    async def _answer(self, question: CellQuestion, answer: Answer) -> None:
        ORIGIN.set(Origin(face=NAME))
        try:
            await self._desk.answer(question.id, answer, all_of=False, pattern=None)
        except (HttpError, StoreError) as error:
            _log.info("[ask] exec: its answer came too late or could not be given: %s", error)
        else:
            self._answered = self._clock()

    async def _run(self, settings: NotifierSettings, told: Mapping[str, Any]) -> str:
        """What the program says; empty where it fails, says too much, or takes too long."""
        much = asyncio.Event()
        with (
            ProgramOutput(MOST_SAID, MOST_SAID, much) as said,
            ProgramOutput(MOST_SHOWN, MOST_WRONG, much) as wrong,
        ):
            process = await asyncio.create_subprocess_exec(
                *self._confined(settings.command),
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


def message(settings: NotifierSettings, question: CellQuestion, sandbox: StoredSandbox) -> dict[str, Any]:
    """What goes out of a question: nothing in it is a link, and no text is longer than `MOST_FIELD`."""
    told = {
        "id": question.id,
        "sandbox": defanged(sandbox.name),
        "host": defanged(question.host.text),
        "port": question.port,
        "protocol": defanged(question.protocol),
        "since": times.rfc3339(question.since),
        "count": question.count,
        "waiting": question.waiting,
        "requests": question.requests,
        "may": list(settings.may),
    }
    if settings.reason and question.reason:
        told["reason"] = defanged(question.reason)
    return told


def defanged(text: str) -> str:
    """A text without links and markup, cut on the left: a host's owner is on its right."""
    plain = "".join(
        "[.]" if each == "." else "[:]" if each == ":" else each if each.isalnum() or each in _PLAIN else " "
        for each in text
    )
    data = plain.encode()
    return data[-MOST_FIELD:].decode("utf-8", "ignore")


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
