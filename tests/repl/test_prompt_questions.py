"""Questions of mode `ask` in the prompt: a line above the input, a chord that opens it, one letter that answers, and keys that stay the line's."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from irons.testing import FakeApi, faults
from tests.repl.asking import answers, end, press, put, put_rule
from tests.repl.terminal import Terminal

Open = Callable[..., Terminal]
CHORD = "\x1bq"
TITLE, KEPT, GIVEN_BACK = b"\x1b]2;", b"\x1b[22;2t", b"\x1b[23;2t"


@pytest.fixture
def asking(terminal: Open, fake: FakeApi) -> Terminal:
    """A prompt that follows the questions: a sandbox is in mode `ask`."""
    fake.mode = "ask"
    screen = terminal()
    screen.until(r"mode ask")
    screen.until(lambda: any("/questions" in call.path for call in fake.calls))
    return screen


def test_a_question_is_a_line_above_the_input(asking: Terminal, fake: FakeApi) -> None:
    """It comes with a bell, leaves what is typed alone, is counted below, and says when it ends; the prompt counts as watching."""
    asking.send("lis")
    asking.until("irons> lis")
    rung = asking.raw.count(b"\a")
    put(fake, "new")
    asking.until(r"\? agent-1: new\.example:443 +\[Alt-Q\]\nirons> lis")
    asking.until(r"mode ask │ 1 asked")
    assert asking.raw.count(b"\a") == rung + 1
    assert any({"watch", "idle"} <= call.query.keys() for call in fake.calls)
    end(fake, "new")
    asking.until(r"new\.example:443 of agent-1 is not asked any more\nirons> lis")
    asking.send("t\r")
    asking.until(r"NAME +STATE")
    assert "any more" not in asking.text
    assert answers(fake) == []


def test_a_chord_and_one_letter_answer(asking: Terminal, fake: FakeApi) -> None:
    """The chord opens the list, one letter answers the chosen question and closes it; what it did names the sandbox; the line is as it was."""
    asking.send("sta")
    put(fake, "new")
    asking.until(r"\? agent-1: new\.example:443")
    asking.send(CHORD)
    asking.until(r"> new\.example:443\n +agent-1: 1 waiting")
    press(asking, "h", r"irons: new\.example:443 is allowed for an hour for agent-1")
    asking.until(lambda: asking.line_of_cursor() == "irons> sta")
    assert answers(fake) == [("/questions/q_new", {"answer": "hour"})]


def test_every_key_typed_while_a_question_comes_is_of_the_line(asking: Terminal, fake: FakeApi) -> None:
    """The letters that answer, Enter and a paste, typed before, at and after its arrival, are the line's, and answer nothing."""
    for number, letter in enumerate("oshanNwq"):
        asking.send(letter)
        put(fake, f"n{number}")
        asking.send(letter)
        asking.until(rf"agent-1: n0\.example:443{rf' and {number} more' if number else ''}")
        asking.send(letter)
    typed = "".join(3 * letter for letter in "oshanNwq")
    asking.until(lambda: asking.line_of_cursor() == f"irons> {typed}")
    asking.send("\x15\x1b[200~oshan\x1b[201~")
    asking.until(lambda: asking.line_of_cursor() == "irons> oshan")
    asking.send("\r")
    asking.until("there is no command 'oshan'")
    assert answers(fake) == []


def test_an_open_list_takes_no_key_of_the_line(asking: Terminal, fake: FakeApi) -> None:
    """Any other key closes it and stays in the line; Enter and Escape close it, and run and answer nothing; so do several keys at once."""
    put(fake, "new")
    asking.until(r"\? agent-1: new")
    listed = r"> new\.example:443"

    def opened() -> None:
        asking.send(CHORD)
        asking.until(listed)

    def closed(line: str) -> None:
        asking.until(lambda: not re.search(listed, asking.text) and asking.line_of_cursor() == line)

    opened()
    asking.send("x")
    closed("irons> x")
    opened()
    asking.send("\r")
    closed("irons> x")
    opened()
    asking.send("\x1b")
    closed("irons> x")
    opened()
    asking.send(CHORD)
    closed("irons> x")
    opened()
    asking.send("\x1bOQ")
    closed("irons> x")
    opened()
    asking.send("oo")
    closed("irons> xoo")
    opened()
    asking.send("\x1b[200~o\x1b[201~")
    closed("irons> xooo")
    assert answers(fake) == []
    assert "no command" not in asking.text


def test_for_good_and_wider_want_a_second_key(asking: Terminal, fake: FakeApi) -> None:
    """The rule is shown before it is put; `w` takes the wider pattern, which is shown whole."""
    put(fake, "www.new")
    asking.until(r"\? agent-1: www\.new")
    asking.send("\x1bOQ")
    asking.until(r"> www\.new\.example:443")
    asking.send("w")
    asking.until(r"\*\.new\.example:443\nevery name below new\.example")
    rule = r"deny\n\*\.new\.example:443\nfor agent-1, while agent-1 exists: N again"
    put_rule(asking, fake, ("N", rule), done=r"irons: \*\.new\.example:443 is denied for agent-1")
    assert answers(fake) == [("/questions/q_www.new", {"answer": "never", "pattern": "*.new.example:443"})]


def test_the_chord_is_a_setting(terminal: Open, fake: FakeApi) -> None:
    """The line names it and it opens the list; the usual one is a key of the line then, and what is no chord is said at the start."""
    fake.mode = "ask"
    screen = terminal(env={"IRONS_ASK_CHORD": "alt-a ctrl-y"})
    screen.until(r"irons: ask_chord: 'ctrl-y' is not a chord \(.*\); the questions\s+ar\s*e opened by Alt-A")
    put(fake, "new")
    screen.until(r"\? agent-1: new\.example:443 \[Alt-A\]")
    screen.send(CHORD)
    screen.send("\x1bOQ" + "x")
    screen.until(lambda: screen.line_of_cursor() == "irons> qx")
    assert "1 waiting" not in screen.text
    screen.send("\x1ba")
    screen.until(r"> new\.example:443\n +agent-1: 1 waiting")
    screen.send("\x1ba")
    screen.until(lambda: "1 waiting" not in screen.text)
    screen.send("\x1bOS")
    screen.until(r"\? agent-1: new\.example:443 \[F2\]")
    screen.send("\x1bOQ")
    screen.until(r"> new\.example:443\n +agent-1: 1 waiting")
    assert answers(fake) == []


def test_the_title_counts_what_is_open(terminal: Open, fake: FakeApi) -> None:
    """It names the sandbox while questions are open, is what it was before while a command runs and at the end, and can be switched off."""
    fake.mode = "ask"
    screen = terminal()
    screen.until("mode ask")
    assert TITLE not in screen.raw
    put(fake, "new")
    screen.until(lambda: KEPT + TITLE + b"(1?) agent-1\x1b\\" in screen.raw)
    put(fake, "newer")
    screen.until(lambda: TITLE + b"(2?) agent-1\x1b\\" in screen.raw)
    assert screen.raw.count(KEPT) == 1
    screen.send("use agent-1\r")
    screen.until(lambda: TITLE + b"\x1b\\" + GIVEN_BACK in screen.raw)
    screen.until(lambda: screen.raw.count(KEPT) == 2)
    screen.send("\x04")
    assert screen.ended() == 0
    assert screen.raw.count(GIVEN_BACK) == 2
    assert screen.raw.rindex(GIVEN_BACK) > screen.raw.rindex(b"(2?)")
    for env in ({"IRONS_TERMINAL_TITLE": "off"}, {"TERM": "linux"}):
        plain = terminal(env=env)
        plain.until(r"\? agent-1: new\.example:443 and 1 more")
        plain.send("\x04")
        assert plain.ended() == 0
        assert KEPT not in plain.raw
        assert TITLE not in plain.raw


def test_a_preset_is_taken_whole(asking: Terminal, fake: FakeApi) -> None:
    """The list offers the set of a known host, one key lists its hosts, and the same key takes them as rules of that sandbox."""
    with fake.lock:
        pypi = {"id": "q_pypi", "sandbox_name": "agent-1", "host": "pypi.org", "port": 443, "waiting": 1}
        fake.questions.append({**pypi, "pattern": "pypi.org:443", "protocol": "tls"})
        fake.lock.notify_all()
    asking.until(r"\? agent-1: pypi\.org:443")
    asking.send("\x1bOQ")
    asking.until(r"> pypi\.org:443\n(.*\n)*? +preset pypi, 2 hosts: p shows and takes it")
    put_rule(
        asking,
        fake,
        (
            "p",
            r"allow preset pypi\npypi\.org files\.pythonhosted\.org\nfor agent-1, while agent-1 exists\. What can",
        ),
        done=r"irons: pypi\.org, files\.pythonhosted\.org are allowed for agent-1",
    )
    ((path, body),) = answers(fake)
    assert (path, body["answer"]) == ("/questions/q_pypi", "always")
    assert body["patterns"] == ["pypi.org", "files.pythonhosted.org"]
    assert body["note"].startswith("preset pypi 20")


def test_all_sandboxes_are_asked_for_once_more(asking: Terminal, fake: FakeApi) -> None:
    """`A` shows the rule and for whom it is, then asks for `y`; a `y` that was not asked for is the line's."""
    put(fake, "new")
    asking.until(r"\? agent-1: new")
    asking.send("\x1bOQ")
    asking.until(r"> new\.example:443")
    asking.send("y")
    asking.until(lambda: asking.line_of_cursor() == "irons> y" and "> new.example" not in asking.text)
    asking.send("\x1bOQ")
    asking.until(r"> new\.example:443")
    put_rule(
        asking,
        fake,
        ("A", r"allow\nnew\.example:443\nfor all sandboxes, not agent-1 alone: A again"),
        ("A", r"every sandbox there is and every one made later may reach\nnew\.example:443\ny puts it"),
        done=r"irons: new\.example:443 is allowed for all sandboxes",
    )
    asking.until(lambda: asking.line_of_cursor() == "irons> y")
    assert answers(fake) == [("/questions/q_new", {"answer": "always", "scope": "account"})]


def test_a_long_line_hides_no_rule(terminal: Open, fake: FakeApi) -> None:
    """What is typed may take most of a low terminal: the rule is on it before a second key puts it, and no menu lies over it."""
    fake.mode = "ask"
    screen = terminal(columns=80, rows=24)
    screen.until("mode ask")
    for number in range(8):
        put(fake, f"h{number}")
    screen.until(r"h0\.example:443 and 7 more")
    screen.send(f"\x1b[200~audit {'x' * 70 * 14}\x1b[201~")
    screen.until(lambda: screen.text.count("x") >= 70 * 14)
    screen.send(CHORD)
    screen.until(r"> h0\.example:443\n +agent-1: 1 waiting")
    # It has no wider pattern, which takes the note off.
    put_rule(
        screen,
        fake,
        ("a", r"allow\nh0\.example:443\nfor agent-1, while agent-1 exists: a again"),
        done=r"irons: h0\.example:443 is allowed for agent-1",
        between="w",
    )
    assert answers(fake) == [("/questions/q_h0", {"answer": "always"})]


def test_with_vi_keys_escape_begins_no_chord(asking: Terminal, fake: FakeApi) -> None:
    """Escape and q are vi's own; F2 opens the list, and the line names it."""
    asking.send("\x1bOS")
    put(fake, "new")
    asking.until(r"\? agent-1: new\.example:443 \[F2\]")
    asking.send("ab\x1bq")
    asking.send("ai\x1bOQ")
    asking.until(r"> new\.example:443\n +agent-1: 1 waiting")
    press(asking, "n", r"irons: new\.example:443 is refused for 5 minutes for agent-1")
    assert answers(fake) == [("/questions/q_new", {"answer": "no"})]


@pytest.mark.process
def test_the_first_prompt_waits_for_no_module_of_it() -> None:
    """Nothing of questions is imported with the prompt."""
    code = "import irons_repl.prompt, sys; print([n for n in sys.modules if 'asking.' in n and n[:6] == 'irons.' or 'questions' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_a_flood_leaves_the_question_of_another_sandbox_on_the_screen(
    terminal: Open, fake: FakeApi, columns: int
) -> None:
    """It folds into a number, at any width; the list shows the other sandbox's question first."""
    fake.mode = "ask"
    screen = terminal(columns=columns)
    screen.until("mode ask")
    for number in range(32):
        put(fake, f"h{number}")
    screen.until(r"agent-1: h0\.example:443")
    screen.until(r"32 asked")
    put(fake, "quiet", "agent-2")
    screen.until(r"\? agent-2: quiet\.example:443.*\[Alt-Q\]")
    if columns == 100:
        assert "agent-1: h0.example:443 and 31 more hosts" in screen.text
    screen.send(CHORD)
    screen.until(r"> quiet\.example:443\n +agent-2: 1 waiting")


def test_nothing_is_watched_without_mode_ask(terminal: Open, fake: FakeApi) -> None:
    """The prompt asks for no questions, and the chord says why there are none; once a sandbox asks it follows, until none does."""
    screen = terminal()
    screen.until("mode warn")
    screen.send(CHORD)
    screen.until("no sandbox is in mode ask")
    assert not any("/questions" in call.path for call in fake.calls)
    fake.sandboxes["agent-2"].mode = "ask"
    put(fake, "new", "agent-2")
    screen.until(r"\? agent-2: new\.example:443")
    screen.until(r"mode warn \(log only\) \(agent-2: ask\)")
    fake.sandboxes["agent-2"].mode = None
    screen.until(lambda: "agent-2: new" not in screen.text)


def test_a_server_that_is_gone_asks_nothing(asking: Terminal, fake: FakeApi) -> None:
    """Its questions can't be answered, which is said of them in place of an end; the line that is typed stays."""
    put(fake, "new")
    asking.until(r"\? agent-1: new\.example:443")
    asking.send("lis")
    asking.until(lambda: asking.line_of_cursor() == "irons> lis")
    fake.fail(faults.dropped(), times=10**6)
    asking.until(r"new\.example:443 of agent-1 can't be answered now: ")
    asking.until(lambda: asking.line_of_cursor() == "irons> lis")


@pytest.mark.parametrize("face", ["", "watch"])
def test_the_shell_has_its_title_while_the_face_is_suspended(
    terminal: Open, fake: FakeApi, face: str
) -> None:
    """After Ctrl-Z it is what it was before, and `fg` counts the questions again."""
    fake.mode = "ask"
    put(fake, "new")
    screen = terminal(argv=["bash", "--norc", "--noprofile", "-i"], env={"PS1": "here> "})
    screen.until("here>")
    screen.send(f"irons {face}\r")
    screen.until(lambda: screen.raw.count(TITLE + b"(1?) agent-1\x1b\\") == 1)
    screen.send("\x1a")
    screen.until(lambda: screen.line_of_cursor().endswith("here>"))
    assert screen.raw.count(TITLE + b"\x1b\\" + GIVEN_BACK) == 1
    screen.send("fg\r")
    screen.until(lambda: screen.raw.count(KEPT + TITLE + b"(1?) agent-1\x1b\\") == 2)
    screen.send("\x04" if not face else "q")
    screen.until(lambda: screen.line_of_cursor().endswith("here>"))
    screen.send("exit\r")
    assert screen.ended() == 0


@pytest.mark.parametrize("keys", ["\x18\x05", "\x1bOS\x1bv"])
def test_no_one_watches_while_an_editor_has_the_terminal(
    terminal: Open, fake: FakeApi, tmp_path: Path, keys: str
) -> None:
    """Neither Ctrl-X Ctrl-E nor `v` of vi keys leaves the questions open behind it; they are back with the line."""
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho "an editor"\nread -r line\necho "!echo $line" > "$1"\n')
    editor.chmod(0o755)
    fake.mode = "ask"
    put(fake, "new")
    screen = terminal(env={"VISUAL": str(editor), "EDITOR": str(editor)})
    screen.until(lambda: screen.raw.count(KEPT + TITLE + b"(1?) agent-1\x1b\\") == 1)
    screen.send(keys)
    screen.until("an editor")
    assert screen.raw.count(TITLE + b"\x1b\\" + GIVEN_BACK) == screen.raw.count(KEPT) == 1
    screen.send("edited\r")
    screen.until(r"\nedited")
    screen.until(lambda: screen.raw.count(KEPT + TITLE + b"(1?) agent-1\x1b\\") > 1)
    screen.until(r"\? agent-1: new\.example:443")
