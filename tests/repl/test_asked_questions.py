"""Questions above the input, without a terminal: whatever comes at whatever moment, keys of the line are the line's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

from irons.asking.following import QuestionsHeard
from irons.asking.screen import SETTLED
from irons.client.models.questions import OpenQuestion, QuestionAnswered, QuestionPage
from irons.presets.offers import PresetOffers
from irons_repl.chord import AskChords
from irons_repl.questions.asked import LEFT_EMPTY, LEFT_OPEN, AskedQuestions

LETTERS = "oshanNwjkqx "
OTHERS = (Keys.Enter, Keys.Up, Keys.Down, Keys.Escape, Keys.ControlC, Keys.BracketedPaste, Keys.CPRResponse)


class Server:
    """Takes answers; each is an error, so that nothing is said of it but that."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, str]] = []
        self.answered = threading.Event()

    def answer_question(self, identity: str, answer: str, **_: Any) -> QuestionAnswered:
        """Take an answer."""
        self.answers.append((identity, answer))
        self.answered.set()
        return QuestionAnswered(identity, answer, "box", "a.example:443")


class Desk:
    """A face whose time goes only where a test says. Implements `irons_repl.questions.asked.AskingFace`."""

    chords = AskChords()
    vi = False

    def __init__(self) -> None:
        self.now = 100.0
        self.rows, self.rows_of_input, self.menu = 24, 1, ""
        self.said: list[str] = []
        self.server = Server()
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self.keys, self._typed = os.pipe()
        self.questions = AskedQuestions(self, self.keys, clock=lambda: self.now)

    def client(self) -> Any:
        """Nothing is followed here."""
        raise AssertionError

    def write(self, text: str) -> None:
        """Nothing is shown in a title here."""
        raise AssertionError(text)

    def offers(self) -> PresetOffers:
        """No presets."""
        return PresetOffers(())

    def changed(self) -> None:
        """Nothing is drawn by itself."""

    def say(self, line: str) -> None:
        """Hear a line."""
        self.said.append(line)

    def answered(self, done: QuestionAnswered) -> None:
        """Hear of an answer."""

    def rows_of_line(self, _: str) -> int:
        """How many rows what is typed takes."""
        return self.rows_of_input

    def has_drawn(self, lines: Sequence[str]) -> bool:
        """Whether no menu lies over one of these."""
        return self.menu not in lines

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Note a call."""
        timer = (self.now + seconds, call)
        self._timers.append(timer)
        return lambda: self._timers.remove(timer) if timer in self._timers else None

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while due := sorted(each for each in self._timers if each[0] <= until)[:1]:
            self._timers.remove(due[0])
            self.now = max(self.now, due[0][0])
            due[0][1]()
        self.now = until

    def open_now(self, *names: str) -> None:
        """Have these be the open questions."""
        asked = tuple(OpenQuestion(f"q_{name}", "box", f"{name}.example:443") for name in names)
        self.questions.hear(QuestionsHeard(QuestionPage(asked), cast("Any", self.server)))
        self.questions.take_news()

    def draw(self) -> list[str]:
        """Draw."""
        lines = self.questions.lines(80, self.rows)
        self.questions.was_drawn()
        return lines

    def type(self, *keys: KeyPress) -> list[KeyPress]:
        """Type keys that are read together; return those of the line."""
        return self.questions.pass_on(keys)

    def close(self) -> None:
        """End."""
        self.questions.stop()
        os.close(self.keys)
        os.close(self._typed)


def key(name: str | Keys) -> KeyPress:
    """A key."""
    return KeyPress(name, "")


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A face with one open question that was seen for long."""
    face = Desk()
    face.open_now("a")
    face.draw()
    face.wait(10.0)
    yield face
    face.close()


KEY = st.sampled_from([key(each) for each in (*LETTERS, *OTHERS)])
STEP = st.one_of(
    st.lists(KEY, min_size=1, max_size=3),
    st.lists(st.sampled_from("abc"), unique=True).map(tuple),
    st.sampled_from(["draw", 0.1, SETTLED, 5.0]),
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(STEP, max_size=40))
def test_without_the_chord_every_key_is_of_the_line(steps: list[Any]) -> None:
    """Whichever keys come before, at and after whichever questions: all reach the line as they are, and nothing is answered."""
    face = Desk()
    try:
        for step in steps:
            if isinstance(step, list):
                assert face.type(*step) == step
            elif isinstance(step, tuple):
                face.open_now(*step)
            elif step == "draw":
                face.draw()
            else:
                face.wait(step)
        assert face.server.answers == []
    finally:
        face.close()


def test_one_chord_is_for_one_answer(desk: Desk) -> None:
    """The letter after it answers, and the next letter is the line's again, also where more is asked."""
    desk.open_now("a", "b")
    desk.draw()
    desk.questions.open_or_close()
    desk.draw()
    assert desk.type(key("j")) == []
    desk.draw()
    assert desk.type(key("o")) == []
    assert "too soon" in desk.draw()[-1]
    desk.wait(SETTLED)
    assert desk.type(key("o")) == []
    assert not desk.questions.is_open
    for letter in LETTERS:
        assert desk.type(key(letter)) == [key(letter)]
    assert desk.server.answered.wait(60)
    assert desk.server.answers == [("q_b", "once")]


@pytest.mark.parametrize("vi", [False, True])
def test_the_list_is_closed_by_what_opens_it(desk: Desk, *, vi: bool) -> None:
    """With vi keys that is F2 where no function key is named; with emacs keys F2 is a key of the line then."""
    desk.chords, desk.vi = AskChords(("alt-a",)), vi
    for keys, is_chord in (((Keys.F2,), vi), ((Keys.Escape, "a"), not vi)):
        desk.questions.open_or_close()
        typed = [key(each) for each in keys]
        assert desk.type(*typed) == ([] if is_chord else typed)
        assert not desk.questions.is_open


def test_a_list_that_is_left_alone_closes(desk: Desk) -> None:
    """Whoever comes back types a line."""
    desk.questions.open_or_close()
    desk.draw()
    desk.wait(LEFT_OPEN - 1)
    assert desk.questions.is_open
    desk.wait(2)
    assert desk.type(key("s")) == [key("s")]
    assert desk.server.answers == []


def test_a_letter_that_comes_as_the_last_question_ends_is_not_of_the_line(desk: Desk) -> None:
    """It was meant for the question, and does nothing; the next one is of the line, and a moment later the list is closed."""
    desk.questions.open_or_close()
    desk.draw()
    desk.open_now()
    assert "a.example:443 of box is not asked any more" in " ".join(desk.draw())
    assert desk.type(key("o")) == []
    assert desk.type(key("s")) == [key("s")]
    desk.open_now("b")
    desk.questions.open_or_close()
    desk.draw()
    desk.open_now()
    desk.wait(LEFT_EMPTY)
    assert desk.type(key("o")) == [key("o")]
    assert desk.server.answers == []


def test_a_question_seen_before_a_command_is_seen_again_first(desk: Desk) -> None:
    """While a command runs the picture is gone: what is typed then answers nothing."""
    desk.questions.rest(resting=True)
    desk.questions.rest(resting=False)
    desk.questions.open_or_close()
    assert desk.type(key("o")) == []
    desk.draw()
    desk.wait(SETTLED)
    assert desk.type(key("h")) == []
    assert not desk.questions.is_open


def test_the_list_leaves_room_for_a_long_line(desk: Desk) -> None:
    """It takes no rows that what is typed needs, down to half of the terminal."""
    desk.open_now(*(f"h{number}" for number in range(8)))
    desk.questions.open_or_close()
    heights: list[int] = []
    for rows in (1, 10, 60):
        desk.rows_of_input = rows
        heights.append(len(desk.draw()))
    assert heights[0] <= 16
    assert heights[1] <= 12
    assert heights[2] <= 11
    assert any(line.startswith(("> a.example", "> h0.")) for line in desk.draw())


def test_what_a_menu_lies_over_is_not_answered(desk: Desk) -> None:
    """Nor is a rule put that was not on the terminal: the second key counts once it was."""
    desk.questions.open_or_close()
    desk.draw()
    assert desk.type(key("a")) == []
    desk.menu = "a.example:443"
    assert "a.example:443" in desk.draw()
    assert desk.type(key("a")) == []
    assert "no room" in " ".join(desk.draw())
    desk.menu = "> a.example:443"
    desk.draw()
    desk.wait(SETTLED)
    assert desk.type(key("o")) == []
    desk.menu = ""
    desk.draw()
    desk.wait(SETTLED)
    for _ in range(2):
        assert desk.server.answers == []
        assert desk.type(key("a")) == []
        desk.draw()
        desk.wait(SETTLED)
    assert desk.server.answered.wait(60)
    assert desk.server.answers == [("q_a", "always")]


def test_a_terminal_that_became_too_low_answers_nothing(desk: Desk) -> None:
    """What was seen on a higher one has to be seen again."""
    desk.questions.open_or_close()
    desk.draw()
    desk.rows = 3
    assert desk.draw() == []
    assert desk.type(key("o")) == []
    desk.rows = 24
    desk.draw()
    desk.wait(SETTLED)
    assert desk.type(key("o")) == []
    assert desk.server.answered.wait(60)
    assert len(desk.server.answers) == 1
