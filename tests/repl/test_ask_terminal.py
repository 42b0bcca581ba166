"""`irons ask` in a terminal: questions come, a key answers, and the terminal is left as it was."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from irons.asking.screen import SETTLED
from irons.testing import FakeApi
from tests.repl.asking import answers, press, put, put_rule
from tests.repl.terminal import Terminal

Open = Callable[..., Terminal]
TITLE_AS_BEFORE = b"\x1b]2;\x1b\\\x1b[23;2t"


def test_a_key_answers_what_is_shown(terminal: Open, fake: FakeApi) -> None:
    """A question appears as it comes, with a bell and a title; keys answer the chosen one, for good only the second time; q leaves."""
    fake.mode = "ask"
    screen = terminal("ask", columns=40, rows=20)
    screen.until("nothing is asked")
    before = screen.raw.count(b"\a")
    put(fake, "new")
    screen.until(r"> new\.example:443")
    assert screen.raw.count(b"\a") > before
    screen.until(lambda: b"\x1b]2;(1?) agent-1\x1b\\" in screen.raw)

    def gone(name: str) -> bool:
        return all(each["id"] != f"q_{name}" for each in fake.questions)

    press(screen, "o", r"new\.example:443 is let\s+pass, once")
    assert gone("new")
    screen.until(lambda: TITLE_AS_BEFORE in screen.raw)
    put(fake, "other")
    screen.until(r"> other\.example:443")
    put_rule(screen, fake, ("a", r"a\s+again"), done=r"is allowed for\s+agent-1")
    assert gone("other")
    assert [call.body for call in fake.calls if call.method == "POST"][-1] == {"answer": "always"}
    assert any("watch" in call.query and "idle" in call.query for call in fake.calls)
    screen.send("q")
    assert screen.ended() == 0
    assert b"\x1b[?1049l" in screen.raw


def test_the_pane_says_how_questions_come_where_none_can(terminal: Open, fake: FakeApi) -> None:
    """Where no sandbox is in mode `ask`, the pane itself says so, until there is a question."""
    fake.mode = "warn"
    screen = terminal("ask", columns=100, rows=20)
    screen.until("irons egress mode ask --sandbox NAME sets it")
    assert screen.raw.index(b"\x1b[?1049h") < screen.raw.index(b"no sandbox is in mode ask")
    put(fake, "new")
    screen.until(r"> new\.example:443")
    assert "no sandbox is in mode ask" not in screen.text
    screen.send("q")
    assert screen.ended() == 0


def test_a_signal_leaves_the_terminal_as_it_was(terminal: Open, fake: FakeApi) -> None:
    """TERM ends the pane as q does, with the exit code of that signal; Ctrl-Z is a key like any other."""
    fake.mode = "ask"
    screen = terminal("ask", columns=40, rows=20)
    screen.until("nothing is asked")
    screen.send("\x1a")
    put(fake, "new")
    screen.until(r"> new\.example:443")
    os.kill(screen.pid, signal.SIGTERM)
    assert screen.ended() == 143
    assert screen.raw.endswith(b"\x1b[?1049l")
    assert screen.raw.count(TITLE_AS_BEFORE) == 1
    # Until then no line goes on in the next row.
    assert screen.raw.index(b"\x1b[?7l") < screen.raw.index(b"nothing is asked")
    assert screen.raw.index(b"> new.example:443") < screen.raw.index(b"\x1b[?7h")
    assert screen.modes() == screen.modes_before


def test_a_resize_is_seen_at_once_and_a_key_is_for_the_picture_after_it(
    terminal: Open, fake: FakeApi
) -> None:
    """The pane fills the new size though nothing is heard; a key of before the new picture answers nothing."""
    fake.mode = "ask"
    screen = terminal("ask", columns=40, rows=20)
    long = "b" * 50
    put(fake, long)
    screen.until(r"> …b+\.example:443")
    screen.resize(90, 20)
    screen.until(rf"> {long}\.example:443")
    until = time.monotonic() + 2 * SETTLED
    screen.until(lambda: time.monotonic() >= until)
    os.kill(screen.pid, signal.SIGSTOP)
    screen.resize(50, 20)
    screen.send("o")
    os.kill(screen.pid, signal.SIGCONT)
    screen.until(r"> …b+\.example:443")
    screen.send("q")
    assert screen.ended() == 0
    assert answers(fake) == []
