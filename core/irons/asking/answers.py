"""Answers that keys give, and the rules that a person sees before one is put."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from irons.record import NamedTuple
from irons.text import clean

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.client.models.questions import Answer, OpenQuestion, QuestionAnswered

SAID: Final[dict[str, str]] = {
    "once": "let pass, once",
    "stop": "allowed until it stops",
    "hour": "allowed for an hour",
    "always": "allowed",
    "no": "refused for 5 minutes",
    "never": "denied",
}
"""What becomes of a place by each answer."""
FOR_GOOD: Final = ("always", "never")
"""Answers that want a second key: the rule is shown first."""
MOST_SAID: Final = 3
"""Rules of a set that are named once they are put."""


class TakenPreset(NamedTuple):
    """A preset that is taken in place of one host.

    Attributes:
        note: What each rule has as its note.
        hosts: All its hosts, as patterns: a rule each.
    """

    note: str
    hosts: tuple[str, ...]


class KeyAnswer(NamedTuple):
    """An answer that a key gives: to the question that was drawn.

    Attributes:
        id: The question's id.
        answer: The answer.
        pattern: The wider pattern that was taken; None where none was.
        everywhere: The rule is for all sandboxes.
        preset: The set that is taken.
    """

    id: str
    answer: Answer
    pattern: str | None = None
    everywhere: bool = False
    preset: TakenPreset | None = None

    @property
    def is_shown_first(self) -> bool:
        """Whether the rule is shown before a second key puts it."""
        return self.answer in FOR_GOOD or self.pattern is not None

    def give(self, api: Api) -> QuestionAnswered:
        """Give it. Raises `IronsError`."""
        if self.preset is not None:
            return api.answer_question_by_set(self.id, self.preset.hosts, note=self.preset.note)
        return api.answer_question(self.id, self.answer, all_sandboxes=self.everywhere, pattern=self.pattern)


def taken_preset(question: OpenQuestion) -> TakenPreset:
    """Return the preset of a question as an answer takes it."""
    return TakenPreset(f"preset {question.preset} {question.preset_version}".rstrip(), question.preset_hosts)


def rule_text(question: OpenQuestion, wanted: KeyAnswer, key: str) -> str:
    """Return what an answer would put, its scope, and the key that puts it, in lines."""
    who = clean(question.sandbox)
    leaves = f"{key} again; any other key leaves it"
    if wanted.preset is not None:
        sends = f". What can be sent there: {clean(question.preset_sends)}" if question.preset_sends else ""
        hosts = " ".join(map(clean, wanted.preset.hosts))
        return (
            f"allow preset {clean(question.preset)}\n{hosts}\nfor {who}, while {who} exists{sends}\n{leaves}"
        )
    verb = "deny" if wanted.answer == "never" else "allow"
    ends = {"stop": f"until {who} stops", "hour": "for an hour"}.get(wanted.answer, f"while {who} exists")
    # The name has a line of its own, so that what does not fit is cut where its owner is not.
    pattern = clean(wanted.pattern or question.pattern)
    if wanted.everywhere:
        return f"{verb}\n{pattern}\nfor all sandboxes, not {who} alone: {leaves}"
    return f"{verb}\n{pattern}\nfor {who}, {ends}: {leaves}"


def surely_text(question: OpenQuestion, wanted: KeyAnswer, key: str) -> str:
    """Return what is asked once more before a rule for all sandboxes is put, in lines."""
    pattern = clean(wanted.pattern or question.pattern)
    return f"every sandbox there is and every one made later may reach\n{pattern}\n{key} puts it; any other key leaves it"


def answered(row: QuestionAnswered) -> str:
    """Return what an answer did as a line."""
    waited = f"; {row.waited} waited" if row.waited else ""
    who = "all sandboxes" if row.scope == "account" else clean(row.sandbox)
    if len(row.rules) > 1:
        more = len(row.rules) - MOST_SAID
        named = ", ".join(map(clean, row.rules[:MOST_SAID])) + (f" and {more:,} more" if more > 0 else "")
        return f"{named} are {SAID.get(row.answer, clean(row.answer))} for {who}{waited}"
    what = clean(row.rule or row.pattern)
    return f"{what} is {SAID.get(row.answer, clean(row.answer))} for {who}{waited}"
