"""Questions of mode `ask` in the live view: a line above the hosts, a key that opens them, and keys that mean the same as ever until then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from irons.asking.answers import KeyAnswer
from irons.asking.screen import SETTLED
from irons.client.models.questions import OpenQuestion, QuestionPage
from irons.testing import FakeApi
from irons_repl.watch.state import AnswerQuestion, ViewState
from irons_repl.watch.view import picture
from tests.repl.asking import answers, press, put
from tests.repl.terminal import Terminal

Open = Callable[..., Terminal]


def drawn(state: ViewState, width: int = 80, height: int = 24) -> list[str]:
    """The picture as text."""
    lines = picture(state, width, height, 100.0)
    assert len(lines) == height
    return ["".join(text for _, text in line).rstrip() for line in lines]


def asked() -> ViewState:
    """A view in which two questions are open."""
    state = ViewState(None)
    names = ("a", "b")
    state.asked.take(
        QuestionPage(
            tuple(OpenQuestion(f"q_{name}", "box", f"{name}.example:443") for name in names), watched=True
        )
    )
    return state


def open_list(state: ViewState) -> None:
    """Open the questions, and look at them for long."""
    state.press("!", 100.0)
    drawn(state)
    state.asked.drawn(100.0)
    state.asked.settle(100.0 + SETTLED)


def test_no_key_of_the_view_answers_before_the_questions_are_open() -> None:
    """The line names the first question and the key that opens it; the letters that answer do what they always did."""
    state = asked()
    assert drawn(state)[2] == " ? box: a.example:443 and 1 more host [!]"
    for key in ("o", "s", "h", "a", "a", "n", "N", "N", "w", "enter", "tab", "y"):
        assert not isinstance(state.press(key, 100.0), AnswerQuestion)
        drawn(state)
    assert len(state.asked.page.questions) == 2


def test_keys_typed_together_answer_nothing() -> None:
    """A key answers alone; Enter and Escape go back and leave the questions open."""
    state = asked()
    open_list(state)
    assert state.press("o", 100.0, alone=False) is None
    effect = state.press("o", 100.0)
    assert isinstance(effect, AnswerQuestion)
    assert effect.wanted == KeyAnswer("q_a", "once")
    for key in ("enter", "escape", "q", "f2"):
        open_list(state)
        assert state.press(key, 100.0) is None
        assert state.shown == "lists"
    state.paste("!o")
    assert state.shown == "lists"


def test_a_view_of_one_sandbox_says_whose_questions_are_asked(terminal: Open, fake: FakeApi) -> None:
    """They are those of all sandboxes, which the head of the list says; a view of all has nothing to add."""
    fake.sandboxes["agent-2"].mode = "ask"
    screen = terminal("watch", "agent-2")
    put(fake, "new")
    screen.until(r"\? agent-1: new\.example:443 \[!\]")
    screen.send("!")
    screen.until(r"irons ask: 1 open, of all sandboxes\n> new\.example:443")
    screen.send("qq")
    assert screen.ended() == 0
    state = asked()
    state.press("!", 100.0)
    assert "irons ask: 2 open" in drawn(state)


@pytest.mark.parametrize(("width", "height"), [(40, 24), (80, 24), (100, 30), (40, 5), (20, 3)])
def test_every_size_has_room_for_them(width: int, height: int) -> None:
    """Line and list fit, and the chosen question is in the list."""
    state = asked()
    drawn(state, width, height)
    state.press("!", 100.0)
    lines = drawn(state, width, height)
    assert max(map(len, lines)) <= width
    if height > 20:
        assert "> a.example:443" in lines


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_the_view_shows_and_answers_questions(terminal: Open, fake: FakeApi, columns: int) -> None:
    """It counts as watching; a question comes with a bell, `!` opens it, and a letter answers."""
    fake.sandboxes["agent-1"].mode = "ask"
    screen = terminal("watch", columns=columns)
    screen.until(lambda: any({"watch", "idle"} <= call.query.keys() for call in fake.calls))
    rung = screen.raw.count(b"\a")
    put(fake, "new")
    screen.until(r"\? agent-1: new\.example:443 \[!\]")
    assert screen.raw.count(b"\a") == rung + 1
    screen.send("s")
    screen.until(lambda: screen.raw.count(b"busiest") > 0 or "No connections yet" in screen.text)
    screen.send("!")
    screen.until(r"> new\.example:443\n +agent-1: 1 waiting")
    press(screen, "s", r"new\.example:443 is allowed until\s+it\s+stops\s+for\s+agent-1")
    assert answers(fake) == [("/questions/q_new", {"answer": "stop"})]
    screen.until("nothing is asked")
    screen.send("q")
    screen.until("a allow|keys")
    # The terminal's title counts them, and is what it was before once none is open.
    assert b"\x1b[22;2t\x1b]2;(1?) agent-1\x1b\\" in screen.raw
    screen.until(lambda: screen.raw.count(b"\x1b]2;\x1b\\\x1b[23;2t") == 1)
    put(fake, "newer")
    screen.until(lambda: screen.raw.count(b"\x1b]2;(1?) agent-1\x1b\\") == 2)
    screen.send("q")
    assert screen.ended() == 0
    assert screen.raw.count(b"\x1b]2;\x1b\\\x1b[23;2t") == 2


def test_the_view_watches_only_where_a_sandbox_asks(terminal: Open, fake: FakeApi) -> None:
    """Without mode `ask` no question is asked for, and its key says that nothing is asked."""
    screen = terminal("watch")
    screen.until("mode warn")
    screen.send("!")
    screen.until("Nothing is asked")
    assert not any("/questions" in call.path for call in fake.calls)
