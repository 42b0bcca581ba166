"""The prompt when things go wrong: servers, terminals, files, and what is pasted into it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from irons.testing import FakeApi
from tests.repl.terminal import PATIENCE, Terminal

Open = Callable[..., Terminal]


def test_a_server_that_dies_is_said_once_and_recovered(prompt: Terminal, fake: FakeApi) -> None:
    """The prompt tells once that the server is away, lives on, and tells when it is back."""
    prompt.until("0 denied")
    fake.__exit__()
    prompt.until("did not answer")
    prompt.until("unreachable")
    prompt.send("!echo alive\r")
    prompt.until(r"\nalive")
    prompt.send("status agent-1\r")
    prompt.until(r"\[6\] irons>")
    with fake:
        prompt.until("answers again")
        prompt.send("status agent-1\r")
        prompt.until(r"ready")
        assert prompt.raw.count(b"The prompt continues") == 1
    fake.__enter__()


def test_a_big_paste_is_refused_and_a_small_one_taken(prompt: Terminal) -> None:
    """A megabyte pasted is refused in a line that says what to do; the prompt is quick again at once."""
    prompt.send("\x1b[200~" + "x" * 1_000_000 + "\x1b[201~")
    prompt.until("too many for one line")
    prompt.send("\x1b[200~!echo a\n!echo b\x1b[201~\r")
    prompt.until(r"\na\nb\n")


def test_a_million_keys_without_paste_marks_are_bounded(prompt: Terminal) -> None:
    """A terminal that does not mark pastes can't make the line grow without end."""
    prompt.send("x" * 200_000)
    prompt.send("\x03")
    prompt.until(r"\[130\] irons>")
    prompt.send("!echo alive\r")
    prompt.until(r"\nalive")


def test_control_characters_run_nothing(prompt: Terminal) -> None:
    """NUL and escapes in a line are an error at their column, and never reach the terminal."""
    prompt.send("\x1b[200~plugins \x00\x1b]0;owned\x07\x1b[201~\r")
    prompt.until("control character")
    assert b"\x1b]0;owned" not in prompt.raw


def test_hostile_names_never_reach_the_terminal(terminal: Open, fake: FakeApi) -> None:
    """What a server calls its sandboxes can neither move the cursor nor set the title."""
    fake.add("evil\x1b]0;owned\x07\x1b[2J")
    fake.add("ok-name")
    screen = terminal()
    screen.until("2 ready|3 ready")
    screen.send("use ")
    screen.until("ok-name")
    assert b"\x1b]0;owned" not in screen.raw


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_killed_prompt_gives_the_terminal_back(terminal: Open, number: int) -> None:
    """Asked to end, the prompt restores the terminal's settings first."""
    screen = terminal()
    before = screen.modes_before
    screen.until("irons>")
    assert screen.modes() != before
    os.kill(screen.pid, number)
    assert screen.ended() == 128 + number
    assert screen.modes() == before


def test_a_terminal_that_goes_away_leaves_no_orphan(terminal: Open, tmp_path: Path) -> None:
    """When the window closes, the prompt and the programs it runs end."""
    screen = terminal()
    screen.until("irons>")
    screen.send("!sh -c 'echo $$ > pid; exec sleep 1000'\r")
    pid = tmp_path / "pid"
    screen.until(lambda: pid.exists() and bool(pid.read_text().strip()))
    program = int(pid.read_text())
    screen.hang_up()
    screen.ended()
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{program}").exists() and "Z" not in _state(program):
        assert time.monotonic() < deadline, "the program lives on"
        os.sched_yield()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_an_idle_prompt_ends_with_its_terminal(terminal: Open) -> None:
    """No prompt stays behind a closed window."""
    screen = terminal()
    screen.until("irons>")
    screen.hang_up()
    screen.ended()


def test_corrupt_files_are_kept_aside_and_said_once(terminal: Open, tmp_path: Path) -> None:
    """A corrupt configuration and history are moved away, each reported in a line, and the prompt opens."""
    config, history = tmp_path / "config" / "irons" / "config.toml", tmp_path / "state" / "irons" / "history"
    for path in (config, history):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"\xff\x00 = [garbage\n")
    screen = terminal(columns=250)
    screen.until("irons>")
    assert "config.toml is not TOML" in screen.text
    assert "the history was corrupt" in screen.text
    assert len(list(tmp_path.glob("**/*.corrupt-*"))) == 2
    again = terminal(columns=250)
    again.until("irons>")
    assert "corrupt" not in again.text


def test_a_slip_in_the_configuration_stays_where_it_is(terminal: Open, tmp_path: Path) -> None:
    """TOML with an unknown setting is refused with a suggestion, and not moved."""
    config = tmp_path / "config" / "irons" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('api_ulr = "local"\n')
    screen = terminal()
    assert screen.ended() == 2
    assert "did you mean api_url" in screen.text
    assert config.exists()
