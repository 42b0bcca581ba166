"""Questions of mode `ask` in a real xonsh: a line above the prompt, their number in `{irons}`, and a chord that opens them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from irons.client.names import NameCache
from irons.settings.settings import load
from irons.testing import FakeApi
from tests.repl.asking import answers, end, press, put
from tests.repl.terminal import Terminal

Open = Callable[..., Terminal]


@pytest.fixture
def asking(xonsh: Open, env: dict[str, str], fake: FakeApi) -> Terminal:
    """A xonsh that follows the questions: as far as is on hand a sandbox is in mode `ask`."""
    fake.sandboxes["agent-1"].mode = "ask"
    facts = NameCache.of(load({}, env), what="facts")
    facts.replace({"mode": "warn", "mode/agent-1": "ask"})
    screen = xonsh()
    screen.until(lambda: any({"watch", "idle"} <= call.query.keys() for call in fake.calls))
    return screen


def test_a_question_is_a_line_above_the_prompt(asking: Terminal, fake: FakeApi) -> None:
    """It comes with a bell while a line is typed, leaves that as it is, stands above the next prompt and in `{irons}`, and says when it ends."""
    asking.send("$PROMPT = '{irons}> '\r")
    asking.until(r"default warn \(log only\)(, [^(]* ago)? \(agent-1: ask\)")
    rung = asking.raw.count(b"\a")
    asking.send("1000 + oshanNw")
    put(fake, "new")
    asking.until(r"\? agent-1: new\.example:443 \[Alt-Q\]\n.*1000 \+ oshanNw")
    assert asking.raw.count(b"\a") == rung + 1
    asking.send("\x15" + "1000 + 7\r")
    asking.until(r"\n1007\n\? agent-1: new\.example:443 \[Alt-Q\]\n.*1 asked")
    end(fake, "new")
    looked = sum("/questions" in call.path for call in fake.calls)
    asking.until(lambda: sum("/questions" in call.path for call in fake.calls) >= looked + 2)
    asking.send("2000 + 7\r")
    asking.until(r"\n2007\nnew\.example:443 of agent-1 is not asked any more\n")
    asking.until(lambda: "asked" not in asking.line_of_cursor())
    assert answers(fake) == []


@pytest.mark.parametrize("keys", ["\x1bq", "\x1bOQ"])
def test_a_chord_opens_the_questions(asking: Terminal, fake: FakeApi, keys: str) -> None:
    """One letter answers there; afterwards the line that was being typed is there as it was."""
    put(fake, "new")
    asking.until(r"\? agent-1: new\.example:443")
    asking.send("3000 + 7")
    asking.until(r"here> 3000 \+ 7")
    asking.send(keys)
    asking.until(r"> new\.example:443\n")
    press(asking, "o", r"new\.example:443 is let\s+pass, once for agent-1")
    asking.send("\x1b")
    asking.until(lambda: asking.line_of_cursor().endswith("here> 3000 + 7"))
    asking.send("\r")
    asking.until(r"\n3007\n")
    assert answers(fake) == [("/questions/q_new", {"answer": "once"})]


def test_a_prompt_shows_no_question_that_a_command_has_answered(asking: Terminal, fake: FakeApi) -> None:
    """What was open before the command is looked at again: neither the line nor the number has what is over."""
    asking.send("$PROMPT = '{irons}> '\r")
    asking.until(r"default warn")
    put(fake, "new")
    put(fake, "other", "agent-2")
    asking.until(r"2 asked|\? agent-1: new\.example:443; agent-2: other")
    asking.send("irons ask answer q_new once; 7000 + 7\r")
    asking.until(r"\n7007\n")
    asking.until(r"\n7007\n\? agent-2: other\.example:443 \[Alt-Q\]")
    assert "new" not in asking.text.split("\n7007\n")[1]


def test_a_question_that_was_held_back_is_shown_without_other_news(asking: Terminal, fake: FakeApi) -> None:
    """The second question of a sandbox within seconds gives no line of its own; it is shown once that time is over."""
    put(fake, "new")
    asking.until(r"\? agent-1: new\.example:443 \[Alt-Q\]")
    put(fake, "newer")
    asking.until(r"\? agent-1: new\.example:443 and 1 more host \[Alt-Q\]")


def test_the_chord_is_that_of_the_setting(asking: Terminal, fake: FakeApi) -> None:
    """It is the prompt's setting, changes with the variable, and what is no chord is said."""
    asking.send("$IRONS_ASK_CHORD = 'alt-g x'\r")
    asking.until(r"irons: ask_chord: 'x' is not a chord \(.*\); the questions are ope\s*ned by Alt-G")
    put(fake, "new")
    asking.until(r"\? agent-1: new\.example:443 \[Alt-G\]")
    asking.send("\x1bg")
    asking.until(r"> new\.example:443\n")
    asking.send("q")
    asking.until(r"here> *$")
    asking.send("\x1bOQ9000 + 7\r")
    asking.until(r"\n9007\n")
    assert answers(fake) == []


def test_no_one_watches_without_a_line_that_questions_can_stand_above(
    xonsh: Open, env: dict[str, str], fake: FakeApi
) -> None:
    """In a shell of xonsh that is not prompt_toolkit's no connection waits: nothing rings there, and no chord opens the questions."""
    fake.sandboxes["agent-1"].mode = "ask"
    NameCache.of(load({}, env), what="facts").replace({"mode": "warn", "mode/agent-1": "ask"})
    screen = xonsh(SHELL_TYPE="dumb")
    for number in range(3):
        screen.send(f"irons egress check host-{number}.example\r")
        screen.until(rf"(?s)egress check host-{number}\.example\n.*host-{number}\.example.*here>")
    assert not any("/questions" in call.path for call in fake.calls)


@pytest.mark.parametrize(
    "words",
    [
        ("egress", "mode", "ask", "--sandbox", "agent-1"),
        ("create", "agent-3", "--mode", "ask", "--no-wait"),
        ("fork", "agent-1", "agent-3", "--mode", "ask", "--no-wait"),
    ],
    ids=lambda words: words[0],
)
def test_a_mode_that_another_terminal_sets_is_noticed_where_no_mode_was_known(
    xonsh: Open, env: dict[str, str], fake: FakeApi, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """A shell that waits at its first prompt watches once a command elsewhere puts a sandbox into mode `ask`, without a key."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519.pub").write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKZ7 me@here\n")
    screen = xonsh()
    done = subprocess.run(
        [sys.executable, "-m", "irons", *words], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    screen.until(lambda: any("watch" in call.query for call in fake.calls))
    put(fake, "new")
    screen.until(r"\? agent-1: new\.example:443 \[Alt-Q\]\nhere>")


def test_no_one_watches_without_mode_ask_nor_after_unloading(
    xonsh: Open, env: dict[str, str], fake: FakeApi
) -> None:
    """It follows once a command puts a sandbox into mode `ask`, and no more once the extension is unloaded."""
    facts = NameCache.of(load({}, env), what="facts")
    facts.replace({"mode": "warn"})
    screen = xonsh()
    screen.send("4000 + 7\r")
    screen.until(r"\n4007\n")
    assert not any("/questions" in call.path for call in fake.calls)
    screen.send("irons egress mode ask --sandbox agent-1\r")
    screen.until(lambda: any("watch" in call.query for call in fake.calls))
    put(fake, "new")
    screen.until(r"\? agent-1: new\.example:443")
    screen.send("irons ask answer q_new no\r")
    screen.until(r"new\.example:443 is refused for 5 minutes for agent-1")
    screen.send("xontrib unload irons\r")
    screen.send("5000 + 7\r")
    screen.until(r"\n5007\n")
    put(fake, "other")
    screen.send("\x1bOQ")
    screen.send("6000 + 7\r")
    screen.until(r"\n6007\n")
    assert re.search(r"\? agent-1: other", screen.text) is None
