"""The first `create` on a new backend, on a real terminal: it asks once how new sandboxes start, and keeps the answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from irons.testing import FakeApi, faults
from tests.repl.terminal import Terminal

Open = Callable[..., Terminal]

ASKED = """\
How do new sandboxes start? 1 log only (warn), 2 ask (you decide), 3 deny.
This is asked once; irons egress mode MODE --all changes it later.
1, 2 or 3 [Enter: 1, log only]:"""
OPEN = (
    "The egress mode is warn (log only): one can connect anywhere, and every connection is logged. "
    "Restrict one: irons egress lock one. Restrict all: irons egress mode deny --all.\n"
)
ASKS = (
    "The egress mode is ask: what no rule allows waits a few seconds for your answer, in irons ask, the prompt, "
    "irons audit watch or xonsh; while none of them is open it is blocked.\n"
)
HINTS = {"warn": OPEN, "ask": ASKS, "deny": ""}
PUT = "PUT /egress/mode"


def modes(api: FakeApi) -> list[str]:
    """The modes that were set for all sandboxes, in order."""
    return [call.body["mode"] for call in api.calls if call.line == PUT]


@pytest.mark.parametrize(
    ("keys", "mode", "word"),
    [
        ("\r", "warn", "warn (log only)"),
        ("1\r", "warn", "warn (log only)"),
        ("2\r", "ask", "ask"),
        ("3\r", "deny", "deny"),
    ],
)
def test_the_answer_is_the_mode_of_all_sandboxes(
    terminal: Open, new: FakeApi, keys: str, mode: str, word: str
) -> None:
    """Three lines ask, one key and Enter answer, and the next `create` does not ask again; the whole screen is compared."""
    screen = terminal("create", "one", columns=220)
    screen.until(r"log only\]:$")
    assert screen.text == ASKED
    assert not new.sandboxes
    screen.send(keys)
    assert screen.ended() == 0
    chosen = f"{ASKED} {keys.strip()}".rstrip() + f"\nThe mode of all sandboxes is {word}.\n"
    assert screen.text == f"{chosen}{HINTS[mode]}🟢 one is ready"
    assert (modes(new), list(new.sandboxes)) == ([mode], ["one"])
    again = terminal("create", "two", columns=220)
    assert again.ended() == 0
    assert again.text == "🟢 two is ready"
    assert modes(new) == [mode]


def test_another_answer_is_asked_for_again(terminal: Open, new: FakeApi) -> None:
    """What is not an answer takes nothing, a line says so, and the last line comes again."""
    screen = terminal("create", "one")
    screen.until(r"log only\]:$")
    screen.send("4\r")
    screen.until(
        r"\]: 4\n4 is not an answer; type 1 \(warn\), 2 \(ask\) or 3 \(deny\)\n1, 2 or 3 \[Enter: 1, log only\]:$"
    )
    assert (modes(new), list(new.sandboxes)) == ([], [])
    screen.send("Deny\r")
    assert screen.ended() == 0
    assert modes(new) == ["deny"]


def test_a_mode_that_was_set_meanwhile_stays(terminal: Open, new: FakeApi) -> None:
    """While the question is open the mode is set in another terminal: the answer does not undo that, and the screen says so."""
    screen = terminal("create", "one")
    screen.until(r"log only\]:$")
    new.mode, new.undecided = "deny", False
    screen.send("\r")
    assert screen.ended() == 0
    said = "The mode of all sandboxes was set elsewhere by now, and stays deny."
    assert screen.text == f"{ASKED}\n{said}\n🟢 one is ready"
    assert modes(new) == []


@pytest.mark.parametrize("key", ["\x03", "\x04"])
def test_without_an_answer_nothing_is_made(terminal: Open, new: FakeApi, key: str) -> None:
    """Ctrl-C and Ctrl-D end with 130; no sandbox is made and no mode is kept, so the next `create` asks again."""
    screen = terminal("create", "one")
    screen.until(r"log only\]:$")
    screen.send(key)
    assert screen.ended() == 130
    shown = screen.text.replace("^C", "").splitlines()
    assert [line.rstrip() for line in shown] == [
        *ASKED.splitlines(),
        "irons: interrupted; nothing was created, and no mode was set",
    ]
    assert {call.method for call in new.calls} == {"GET"}
    terminal("create", "one").until(r"log only\]:$")


def test_a_create_that_fails_keeps_the_answer(terminal: Open, new: FakeApi) -> None:
    """The answer is kept before anything is made: after a failure the next `create` does not ask."""
    new.fail(faults.error(500, "no room"), on="POST /sandboxes")
    screen = terminal("create", "one")
    screen.until(r"log only\]:$")
    screen.send("3\r")
    assert screen.ended() != 0
    assert modes(new) == ["deny"]
    again = terminal("create", "one")
    assert again.ended() == 0
    assert again.text == "🟢 one is ready"


@pytest.mark.parametrize(
    "words",
    [
        ["--mode", "warn"],
        ["--allow", "pypi.org"],
        ["--policy", "policy.toml"],
        ["--no-input"],
        ["-o", "json"],
        ["-o", "jsonl"],
    ],
)
def test_who_says_how_it_starts_is_not_asked(
    terminal: Open, new: FakeApi, tmp_path: Path, words: list[str]
) -> None:
    """A mode, rules, a policy, JSON and --no-input leave the mode of all sandboxes as it is, without a question."""
    (tmp_path / "policy.toml").write_text('[allow]\n"pypi.org" = ""\n')
    screen = terminal("create", "one", *words)
    assert screen.ended() == 0
    assert "asked once" not in screen.text
    assert (modes(new), list(new.sandboxes)) == ([], ["one"])


@pytest.mark.parametrize(
    "line", ["irons create one </dev/null", "irons create one 2>said", "irons create one | cat <said"]
)
def test_nobody_is_asked_where_no_one_reads_or_types(
    terminal: Open, new: FakeApi, tmp_path: Path, line: str
) -> None:
    """It takes a terminal that is read and one that is typed at; a pipe on stdout alone changes nothing."""
    (tmp_path / "said").touch()
    screen = terminal(argv=["sh", "-c", line])
    if "|" in line:
        screen.until(r"log only\]:")
        screen.send("2\r")
    assert screen.ended() == 0
    assert "asked once" not in (tmp_path / "said").read_text()
    assert (modes(new), list(new.sandboxes)) == (["ask"] if "|" in line else [], ["one"])


def test_a_remote_server_is_not_asked_about(terminal: Open, new: FakeApi) -> None:
    """The mode of a server elsewhere is its administrator's."""
    screen = terminal("create", "one", env={"IRONS_API_URL": new.url})
    assert screen.ended() == 0
    assert (modes(new), list(new.sandboxes)) == ([], ["one"])


def test_no_line_that_was_typed_before_is_taken(terminal: Open, new: FakeApi) -> None:
    """Lines that wait when the question would come belong to the next command, and reach it."""
    script = "read go; irons create one; read next; echo [$next]"
    screen = terminal(argv=["sh", "-c", script])
    screen.send("go\r3\r")
    screen.until(r"\[3\]")
    assert screen.ended() == 0
    assert "asked once" not in screen.text
    assert (modes(new), list(new.sandboxes)) == ([], ["one"])


def test_a_job_in_the_background_is_not_stopped(terminal: Open, new: FakeApi) -> None:
    """A command that may not read the terminal asks nothing."""
    screen = terminal(argv=["bash", "-m", "-c", "irons create one & wait $!; echo ended $?"])
    screen.until("ended 0")
    assert screen.ended() == 0
    assert "asked once" not in screen.text
    assert (modes(new), list(new.sandboxes)) == ([], ["one"])


@pytest.mark.parametrize("words", [["run", "--image", "x", "--", "true"], ["fork", "one", "two"]])
def test_other_commands_never_ask(terminal: Open, new: FakeApi, words: list[str]) -> None:
    """Whatever becomes of them, the mode stays undecided and no question is shown."""
    screen = terminal(*words)
    screen.ended()
    assert "asked once" not in screen.text
    assert modes(new) == []


def test_the_prompt_asks_and_goes_on(prompt_on_new: Terminal, new: FakeApi) -> None:
    """At `irons>` the commands in the question go without `irons`; Ctrl-C leaves the prompt, and what is typed after is a line."""
    screen = prompt_on_new
    screen.send("create one\r")
    screen.until(
        r"This is asked once; egress mode MODE --all changes it later\.\n1, 2 or 3 \[Enter: 1, log only\]:$"
    )
    screen.send("\x03")
    screen.until(r"nothing was created, and no mode was set")
    screen.until(r"\[130\].*irons>")
    screen.send("create one\r")
    screen.until(r"(?s)no mode was set.*log only\]:$")
    screen.send("2\r")
    screen.until(r"The mode of all sandboxes is ask\.\n(?s:.*)🟢 one is ready\n(?s:.*)irons>")
    screen.send("create two\r")
    screen.until(r"🟢 two is ready\n(?s:.*)irons>")
    assert (modes(new), list(new.sandboxes)) == (["ask"], ["one", "two"])


@pytest.fixture
def prompt_on_new(new: FakeApi, terminal: Open) -> Terminal:
    """A prompt that is open on the new backend."""
    assert new.undecided
    screen = terminal(argv=[sys.executable, "-m", "irons"])
    screen.until("irons>")
    return screen
