"""The hook `irons_ask` of plugins: each question, and what a plugin answers, by way of the process in which plugins run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from irons.text import clean
from irons_local.config.server import NotifierSettings
from irons_local.control.egress.notifying import AskAgainError, NotifierReply, QuestionNotifier
from irons_local.control.egress.questions import QuestionDesk

NAME: Final = "irons_ask"
LONGEST = 120.0
"""Seconds for an answer; the process may have events to go through first, and the plugins have their own limit."""
_MOST_NAME = 40


class Hearing(Protocol):
    """The process of plugins, as far as questions are concerned."""

    @property
    def hears_questions(self) -> bool:
        """Whether a plugin has the hook."""
        ...

    async def ask(self, question: Mapping[str, Any]) -> tuple[str, str] | None:
        """Have plugins hear of a question; gives the plugin that answers first and its answer, two empty texts where none does.

        None is for plugins that were exchanged before they could answer.
        """
        ...


class HookNotifier(QuestionNotifier):
    """Has plugins hear of questions.

    Args:
        desk: has the questions, and takes answers.
        settings: gives `[ask]` as it is now.
        plugins: the process in which they run.
        clock: seconds that only ever grow.
    """

    def __init__(
        self,
        desk: QuestionDesk,
        settings: Callable[[], NotifierSettings],
        plugins: Hearing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(NAME, desk, lambda: settings() if plugins.hears_questions else None, clock)
        self._plugins = plugins

    async def _pass_on(self, command: Sequence[str], told: Mapping[str, Any]) -> NotifierReply:  # noqa: ARG002 (there is no program)
        try:
            async with asyncio.timeout(LONGEST):
                answer = await self._plugins.ask(told)
        except TimeoutError:
            return NotifierReply()
        if answer is None:
            raise AskAgainError
        by, said = answer
        return NotifierReply(said, f"{NAME}.{clean(by, limit=_MOST_NAME)}")
