"""The order of open questions: no sandbox, however many places it tries, pushes another one's question off the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.record import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from irons.client.models.questions import OpenQuestion, QuestionPage


class SandboxQuestions(NamedTuple):
    """What one sandbox asks.

    Attributes:
        sandbox: Its name.
        questions: Its open questions, the oldest first.
        more: Places that it tries beyond these.
    """

    sandbox: str
    questions: tuple[OpenQuestion, ...] = ()
    more: int = 0

    @property
    def places(self) -> int:
        """How many places it tries."""
        return len(self.questions) + self.more


def by_sandbox(page: QuestionPage) -> list[SandboxQuestions]:
    """Return what each sandbox asks; those that try the fewest places come first."""
    asked: dict[str, list[OpenQuestion]] = {name: [] for name, count in page.others.items() if count > 0}
    for question in page.questions:
        asked.setdefault(question.sandbox, []).append(question)
    found = [
        SandboxQuestions(name, tuple(questions), page.others.get(name, 0))
        for name, questions in asked.items()
    ]
    first = {question.sandbox: -at for at, question in reversed(list(enumerate(page.questions)))}
    return sorted(found, key=lambda each: (not each.questions, each.places, -first.get(each.sandbox, 0)))


def first_of_each(questions: Iterable[OpenQuestion]) -> tuple[int, ...]:
    """Return the places of the questions that are the first of their sandbox."""
    places: dict[str, int] = {}
    for place, question in enumerate(questions):
        places.setdefault(question.sandbox, place)
    return tuple(places.values())


def in_turns(page: QuestionPage) -> tuple[OpenQuestion, ...]:
    """Return the questions in the order in which they are shown: the first of each sandbox, then the second of each, and so on."""
    queues = [each.questions for each in by_sandbox(page)]
    longest = max(map(len, queues), default=0)
    return tuple(queue[at] for at in range(longest) for queue in queues if at < len(queue))
