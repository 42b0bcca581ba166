"""Sends an answer in a thread of its own, so that no key waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from irons.asking.answers import KeyAnswer, answered
from irons.errors import IronsError
from irons.text import clean

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.client.models.questions import OpenQuestion, QuestionAnswered


def send(
    api: Api,
    wanted: KeyAnswer,
    asked: OpenQuestion,
    say: Callable[[str], None],
    done: Callable[[QuestionAnswered], None],
) -> None:
    """Send an answer, and say what it did, or why it did nothing.

    Args:
        api: The client that the question came from.
        wanted: The answer.
        asked: The question.
        say: Hears a line for the person, in that thread.
        done: Hears what the answer did, likewise.
    """
    what = f"{clean(asked.pattern)} of {clean(asked.sandbox)}"

    def work() -> None:
        try:
            told = wanted.give(api)
        except IronsError as error:
            say(f"{what} was not answered: {clean(error.message)}")
        except Exception as error:  # noqa: BLE001 (a person who hears nothing takes the answer for given)
            say(f"{what} was not answered: {type(error).__name__}: {clean(str(error))}")
        else:
            say(answered(told))
            done(told)

    threading.Thread(target=work, name="irons-answer", daemon=True).start()
