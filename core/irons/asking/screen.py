"""What is shown of open questions and what keys do: a state without a terminal, and without a clock of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from irons.asking.answers import KeyAnswer, rule_text, surely_text, taken_preset
from irons.asking.details import details
from irons.asking.folding import folded
from irons.asking.question_line import question_line
from irons.asking.question_rows import QuestionRows, around, beginnings, whole_names, words_of
from irons.asking.ranking import first_of_each, in_turns
from irons.asking.widening import wider_patterns
from irons.client.models.questions import QuestionPage
from irons.record import NamedTuple
from irons.terminal.cells import cells, cut, cut_middle
from irons.text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from irons.client.models.questions import Answer, OpenQuestion

KEYS: Final[dict[str, Answer]] = {
    "o": "once",
    "s": "stop",
    "h": "hour",
    "a": "always",
    "n": "no",
    "N": "never",
}
SETTLED = 0.5
"""Seconds for which a question must have been drawn, with no key waiting at their end, before one answers it: what was typed before it
came is not an answer, however late it is read. So it is with a rule, and the key that puts it."""
MOST_OTHERS = 3
"""Sandboxes of which the pane says how many more questions they have."""
SHORTEST_NAME = 8
"""Cells of a sandbox's name below which it says nothing."""
_ABOUT = "  about the chosen question (>):"
_LEAST = 2
"""Lines that the chosen question takes, where its sandbox's name has room in one."""
TOO_SOON = "that key came too soon after what it answers; press it again"
LEFT = "left: nothing was put, and nothing is answered"
NO_ROOM = "no room to show what a key would answer, so none does"
WIDER = "w"
"""The key that takes the next wider pattern, and after the widest the host alone again."""
EVERYWHERE, SURELY = "A", "y"
"""The key for an allow rule of all sandboxes, and the one that is asked for once more."""
PRESET = "p"
"""The key that takes the preset of the question in place of its host."""
ANSWERING: Final = (*KEYS, EVERYWHERE, SURELY, PRESET)
"""Keys that answer, or begin to."""
ESCAPE = "\x1b"
LEAVING = ("q", ESCAPE, "\x03", "\x04")
DOWN, UP = ("j", "\x1b[B", "\x1bOB"), ("k", "\x1b[A", "\x1bOA")
HELP = (
    "o once  s until stop  h hour  a always  A for all  n no  N never  w wider  p preset  j k choose  q leave"
)


class _Begun(NamedTuple):
    """A rule that is shown, and the key that puts it."""

    wanted: KeyAnswer
    key: str
    text: str


class AskScreen:
    """The state of one pane.

    Args:
        of: Whose questions they are, where what is shown around them does not say it.

    Attributes:
        chosen: the id of the question that keys answer; empty where there is none.
        note: what there is to say of the last key.
        left: the person leaves.
    """

    def __init__(self, of: str = "") -> None:
        self._of = f", {of}" if of else ""
        self._page = QuestionPage()
        # Since when the chosen question, or the rule of a second key, has been drawn as that, and whether a key may be for it.
        self._drawn: float | None = None
        self._settled = False
        self._second: _Begun | None = None
        # What of the last picture must be on the terminal before a key counts.
        self._needed: tuple[str, ...] = ()
        # The wider patterns of the chosen question once they were asked for, and which of them is taken; 0 is none.
        self._wider: tuple[str, ...] = ()
        self._width = 0
        # What was said of the one that is taken.
        self._widened = ""
        self._sent = ""
        self.chosen = ""
        self.note = ""
        self.left = False

    def take(self, page: QuestionPage, trouble: str = "") -> bool:
        """Take what there is by now; return whether a question is new. The chosen one stays chosen while it is open.

        Args:
            page: The open questions.
            trouble: Why they could not be read; then none has ended.
        """
        before = self.question
        known = {each.id for each in self._page.questions}
        self._page = page._replace(questions=in_turns(page))
        ids = [each.id for each in self._page.questions]
        if self.chosen not in ids:
            if before is not None and before.id != self._sent:
                what = f"{clean(before.pattern)} of {clean(before.sandbox)}"
                self.note = (
                    f"{what} can't be answered now: {trouble}" if trouble else f"{what} is not asked any more"
                )
            self._choose(ids[0] if ids else "")
        return not known.issuperset(ids)

    @property
    def page(self) -> QuestionPage:
        """The open questions, in the order in which they are shown."""
        return self._page

    @property
    def question(self) -> OpenQuestion | None:
        """The chosen question; None where nothing is asked."""
        return next((each for each in self._page.questions if each.id == self.chosen), None)

    def choose_first(self) -> None:
        """Choose the question that is shown first, as a face does that shows only one."""
        self._choose(self._page.questions[0].id if self._page.questions else "")

    def put_back(self) -> None:
        """Forget what keys have begun: a second key is not waited for, and no wider pattern is taken."""
        self._second, self._width, self.note, self.left = None, 0, "", False

    @property
    def needed(self) -> tuple[str, ...]:
        """Lines of the last picture that must be on the terminal whole before a key answers; none where it has no room for them."""
        return self._needed

    def line(self, width: int, how: str = "") -> str:
        """Return what a face shows that has one line, as `question_line` does."""
        line = question_line(self._page, width, how)
        self._needed = (line,) if line else ()
        return line

    def drawn(self, now: float) -> None:
        """The last picture is on the terminal, with all that is `needed`."""
        if not self._needed:
            self.hidden()
            return
        if self._drawn is None and self.chosen:
            self._drawn = now

    def settles_in(self, now: float) -> float | None:
        """Seconds until keys answer the chosen question, or put the rule that is shown, where none is typed before; None where time alone changes nothing."""
        if self._drawn is None or self._settled:
            return None
        return max(0.0, self._drawn + SETTLED - now)

    def settle(self, now: float) -> None:
        """At this moment, or a later one, no key was waiting."""
        if self._drawn is not None and now - self._drawn >= SETTLED:
            self._settled = True

    def hidden(self) -> None:
        """The picture is not on the terminal any more: what is typed until the next one answers nothing."""
        self._drawn, self._settled, self._needed = None, False, ()

    def takes(self, typed: str) -> bool:
        """Tell whether a key is for the list, where others close it."""
        if typed == SURELY:
            return self._second is not None and self._second.key == SURELY
        return typed in (*KEYS, EVERYWHERE, PRESET, WIDER, *DOWN, *UP, *LEAVING)

    def key(self, typed: str) -> KeyAnswer | None:
        """Take what was typed at once; gives the answer that it is. More than one character was pasted, and is not an answer."""
        begun, self._second, self.note = self._second, None, ""
        leaves = begun is not None and typed != begun.key
        if leaves:
            # No key answers until the question is seen again without the rule.
            self._drawn, self._settled = None, False
        if leaves and typed in (*ANSWERING, ESCAPE):
            # It is no answer of its own: the text says that it leaves the rule.
            self.note = LEFT
        elif typed in LEAVING:
            self.left = True
        elif typed in DOWN:
            self._move(1)
        elif typed in UP:
            self._move(-1)
        elif typed == WIDER and self.chosen:
            self._widen()
        elif typed in ANSWERING:
            return self._answer(typed, begun)
        return None

    def _answer(self, typed: str, shown: _Begun | None) -> KeyAnswer | None:
        """Take a key that answers; `shown` is the rule that it may put."""
        question = self.question
        begun = shown if shown is not None and typed == shown.key else None
        wanted = begun.wanted if begun is not None else self._begin(typed, question)
        if question is None or wanted is None:
            return None
        if not self._settled:
            self.note = TOO_SOON if self._needed else NO_ROOM
            if begun is not None and self._needed:
                # The rule stays: the same key puts it a moment later.
                self._second, self.note = begun, f"{begun.text}\n{TOO_SOON}"
        elif begun is None and wanted.is_shown_first:
            self._show_rule(_Begun(wanted, typed, rule_text(question, wanted, typed)))
        elif wanted.everywhere and typed != SURELY:
            self._show_rule(_Begun(wanted, SURELY, surely_text(question, wanted, SURELY)))
        else:
            self._sent = wanted.id
            return wanted
        return None

    def _show_rule(self, begun: _Begun) -> None:
        """Show a rule. As with a question, no key puts it that was typed before it was seen."""
        self._second, self.note = begun, begun.text
        self._drawn, self._settled = None, False

    def _begin(self, typed: str, question: OpenQuestion | None) -> KeyAnswer | None:
        """The answer that a key begins; None where it begins none."""
        if question is None or typed == SURELY:
            return None
        if typed == PRESET:
            if not question.preset_hosts:
                self.note = f"{clean(question.pattern)} is in no preset"
                return None
            return KeyAnswer(question.id, "always", preset=taken_preset(question))
        if typed == EVERYWHERE:
            return KeyAnswer(question.id, "always", self._pattern("always"), everywhere=True)
        return KeyAnswer(question.id, KEYS[typed], self._pattern(KEYS[typed]))

    def answered(self, note: str) -> None:
        """Say what an answer did; in the place of a rule that was to be put by a second key."""
        self._second, self.note = None, note

    def lines(self, width: int, height: int) -> list[str]:
        """What the pane shows, as lines that fit. The chosen question and the rule of a second key are there, or no key answers."""
        questions = self._page.questions
        count = f"{len(questions)} open" if questions else "nothing is asked"
        watched = "" if self._page.watched else "; no one counts as watching: press a key"
        whole = whole_names({each.sandbox for each in questions}, width)
        blocks = {each.id: QuestionRows.of(each, width, whole=each.sandbox in whole) for each in questions}
        block = blocks.get(self.chosen, QuestionRows(()))
        # Without these lines of the chosen question no key answers.
        least = max(_LEAST, len(block.asked))
        note, has_room = self._foot(width, height, least)
        keys = _keys(width)
        others = _others(self._page.others, width)
        head = [f"irons ask: {count}{self._of if questions else ''}{watched}"]
        if self._second is None and self.chosen and height >= least:
            # Of what else there is to say no line takes the question's place.
            note = note[: height - least]
        # What a second key would do is seen before all else, and the questions before what keys there are.
        if height - len(note) - len(keys) - len(others) - len(head) < least + len(block.facts):
            others = []
        if height - len(note) - len(keys) - len(head) < least:
            keys = []
        if questions and height - len(note) - len(head) < least:
            head = []
        # They are below the questions, and give way to them.
        known = self._details(
            width, height - len(note) - len(keys) - len(others) - len(head) - least - len(block.facts)
        )
        room = max(1, height - len(head) - len(note) - len(keys) - len(others) - len(known))
        rows: list[str] = []
        chosen = 0
        at = next((place for place, each in enumerate(questions) if each.id == self.chosen), 0)
        sizes = [len(blocks[each.id].all()) for each in questions]
        words = self._words(width - 4, room - sum(sizes))
        if questions:
            sizes[at] += len(words)
        for each in (questions[place] for place in around(sizes, at, room, first_of_each(questions))):
            mark = ">" if each.id == self.chosen else " "
            chosen = len(rows) if each.id == self.chosen else chosen
            pattern, *more = blocks[each.id].all()
            rows += [f"{mark} {pattern}", *(f"    {line}" for line in more)]
            if each.id == self.chosen:
                rows += [f"    {line}" for line in words]
        above = [*head, *rows[:room], *known, *others, *keys][: max(0, height - len(note))]
        lines = [cut(line, width) for line in (*above, *note[-height:])] if height > 0 else []
        chosen += len(head)
        fits = (
            self.question is not None
            and has_room
            and chosen + least <= min(len(above), len(head) + room)
            and len(note) <= height
        )
        rule = lines[len(above) :] if self._second is not None else []
        self._needed = (*lines[chosen : chosen + least], *rule) if fits else ()
        return lines

    def _foot(self, width: int, height: int, least: int) -> tuple[list[str], bool]:
        """What there is to say of the last key, and whether there is room. A rule, or a wider pattern, is not shown in part."""
        whole = self._second is not None or (bool(self.note) and self.note == self._widened)
        note = folded(self.note, width, whole=whole)
        if not whole or len(note) <= height - least:
            return note, True
        # What is said below the rule gives way to it.
        rule = folded(self._second.text, width, whole=True) if self._second is not None else note
        return (rule, True) if len(rule) <= height - least else (folded(NO_ROOM, width), False)

    def _words(self, width: int, room: int) -> list[str]:
        """The sandbox's words for the chosen question; the first row of each text alone where all have no room next to the other questions."""
        words = [] if self.question is None else words_of(self.question, width)
        return words if len(words) <= room else beginnings(words, width)

    def _details(self, width: int, room: int) -> list[str]:
        """What is known of the chosen question, in so many rows at most; among others, under a heading of its own."""
        chosen = self.question
        told = [] if chosen is None else details(chosen)
        known = [f"    {line}" for each in told for line in folded(each, width - 4)]
        # Without it what is below the last question reads as if it were about that one.
        heading = [_ABOUT] if len(self._page.questions) > 1 else []
        return [*heading, *known][:room] if known and room > len(heading) else []

    def _move(self, by: int) -> None:
        ids = [each.id for each in self._page.questions]
        if ids:
            self._choose(ids[(ids.index(self.chosen) + by) % len(ids)] if self.chosen in ids else ids[0])

    def _choose(self, identity: str) -> None:
        if identity != self.chosen:
            self.chosen, self._drawn, self._settled = identity, None, False
            self._second, self._wider, self._width = None, (), 0

    def _widen(self) -> None:
        question = self.question
        if question is None:
            return
        self._wider = self._wider or wider_patterns(question)
        if not self._wider:
            self.note = f"no wider pattern than {clean(question.pattern)} can be put here"
            return
        self._width = (self._width + 1) % (len(self._wider) + 1)
        if not self._width:
            self.note = f"{clean(question.pattern)} alone again"
            return
        # A pattern has a line of its own, as names do.
        pattern = self._wider[self._width - 1]
        below = pattern.removeprefix("*.").rpartition(":")[0]
        self.note = f"wider:\n{pattern}\nevery name below {below}; s h a N put it, A for all, w goes on"
        self._widened = self.note

    def _pattern(self, answer: Answer) -> str | None:
        """The wider pattern that was taken, for answers that are rules."""
        return self._wider[self._width - 1] if self._width and answer not in ("once", "no") else None


def _others(others: Mapping[str, int], width: int) -> list[str]:
    first = list(others.items())[:MOST_OTHERS]
    left = len(others) - len(first)
    lines: list[str] = []
    for name, count in first:
        more = f"  and {count:,} more of "
        lines.append(more + cut_middle(clean(name), max(SHORTEST_NAME, width - len(more))))
    return [*lines, f"  and more of {left:,} further sandboxes"] if left else lines


def _keys(width: int) -> list[str]:
    """The keys, each next to what it does."""
    lines = [""]
    for key in HELP.split("  "):
        if lines[-1] and cells(lines[-1]) + 2 + cells(key) > width:
            lines.append("")
        lines[-1] += f"  {key}" if lines[-1] else key
    return lines
