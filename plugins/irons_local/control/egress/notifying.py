"""What hears of each question without being a face: one message about a sandbox at a time, and answers as far as they are allowed.

What goes out is made for places that turn texts into links: there are none in it. Nothing waits for whoever hears it, unless the settings
say so and it has answered lately.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from irons.text import clean
from irons_local import times
from irons_local.config.server import NotifierSettings
from irons_local.control.egress.questions import ANSWERS, Answer, CellQuestion, QuestionDesk
from irons_local.control.schema.errors import HttpError
from irons_local.control.store.changelog import ORIGIN, Origin
from irons_local.control.store.database import StoreError
from irons_local.control.store.sandboxes import StoredSandbox

_log = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds between two messages about one sandbox."""
MOST = 4
"""Messages that are out at the same time, each of another sandbox."""
MOST_FIELD = 100
"""Bytes of each text that goes out."""
MOST_SAID = 64
"""Characters of an answer that are logged."""
ANSWERED_WITHIN = 3600.0
"""Seconds since its last answer for which connections wait for it, with the setting `hold`."""
LOOK = 2.0
"""Seconds between two looks at the settings."""

_PLAIN: Final = frozenset(" ,;'+-_")


class AskAgainError(Exception):
    """What hears of questions was exchanged before it could answer."""


class NotifierReply(NamedTuple):
    """What came back of a message.

    Attributes:
        said: the answer; empty for none.
        by: what the change log calls who gave it.
    """

    said: str = ""
    by: str = ""


class QuestionNotifier:
    """Passes questions on, one message for each, and the next of a sandbox a while later.

    Args:
        name: what logs call it.
        desk: has the questions, and takes answers.
        settings: gives `[ask]` as it is now; None while there is nothing to pass them to.
        clock: seconds that only ever grow.
    """

    def __init__(
        self,
        name: str,
        desk: QuestionDesk,
        settings: Callable[[], NotifierSettings | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self._desk, self._settings, self._clock = name, desk, settings, clock
        self._running: dict[str, asyncio.Task[None]] = {}
        self._known: set[str] = set()
        self._sent: dict[str, float] = {}
        self._answered = float("-inf")

    @property
    def running(self) -> int:
        """How many messages are out."""
        return len(self._running)

    async def run(self) -> None:
        """Follow the questions until cancelled; no failure ends it."""
        token: int | None = None
        try:
            while True:
                try:
                    token = await self._look(token)
                except StoreError as error:
                    _log.warning("questions cannot be read for %s: %s", self.name, error)
                    await asyncio.sleep(LOOK)
                except Exception:  # noqa: BLE001 (nothing of the control plane depends on it, so it stops nothing either)
                    _log.exception("%s: a look at the questions failed", self.name)
                    await asyncio.sleep(LOOK)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _look(self, token: int | None) -> int | None:
        """Look at the questions once there are others than those of a token, and pass them on; gives the next token.

        Raises:
            StoreError: the database failed.
        """
        settings = self._settings()
        if settings is None:
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
        """Pass a question on, unless it was, or another one of its sandbox is out or was passed on a moment ago."""
        now = self._clock()
        for cell in [cell for cell, when in self._sent.items() if now - when >= EVERY]:
            del self._sent[cell]
        cell = question.cell
        if (
            question.id in self._known
            or cell in self._sent
            or cell in self._running
            or len(self._running) >= MOST
        ):
            return
        self._known.add(question.id)
        self._sent[cell] = now
        task = self._running[cell] = asyncio.create_task(self._ask(settings, question, sandbox))
        task.add_done_callback(lambda _: self._running.pop(cell))

    async def _ask(self, settings: NotifierSettings, question: CellQuestion, sandbox: StoredSandbox) -> None:
        try:
            reply = await self._pass_on(settings.command, message(settings, question, sandbox))
        except AskAgainError:
            self._known.discard(question.id)
            self._sent.pop(question.cell, None)
            return
        except OSError as error:
            _log.warning("%s cannot be started: %s", self.name, error.strerror)
            return
        answer: Answer | None = next((each for each in ANSWERS if each == reply.said), None)
        if answer is None or answer not in settings.may:
            if reply.said:
                said = clean(reply.said, limit=MOST_SAID)
                _log.warning("%s: %r is not an answer that it may give", self.name, said)
            return
        await self._answer(question, answer, reply.by)

    async def _pass_on(self, command: Sequence[str], told: Mapping[str, Any]) -> NotifierReply:
        """Pass a message on, to the program that the settings name where that is who hears it, and give what came back of it.

        Raises:
            AskAgainError: it is to be passed on once more.
            OSError: nothing can be started for it.
        """
        raise NotImplementedError

    async def _answer(self, question: CellQuestion, answer: Answer, by: str) -> None:
        ORIGIN.set(Origin(face=by))
        try:
            await self._desk.answer(question.id, answer, all_of=False, pattern=None)
        except (HttpError, StoreError) as error:
            _log.info("%s: its answer came too late or could not be given: %s", self.name, error)
        else:
            self._answered = self._clock()


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
