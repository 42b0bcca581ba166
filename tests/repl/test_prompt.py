"""The prompt on a real terminal: what the screen shows after keys."""

from __future__ import annotations

import re
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from irons.testing import FakeApi, faults
from tests.background import JOBS, job
from tests.repl.conftest import KEY
from tests.repl.terminal import Terminal

Open = Callable[..., Terminal]


def test_irons_alone_opens_the_prompt_and_runs_commands(prompt: Terminal) -> None:
    """`irons` on a terminal opens the prompt, which runs a command and shows how it ended."""
    prompt.send("plugins\r")
    prompt.until(r"shell +irons")
    prompt.send("nosuch\r")
    prompt.until(r"there is no command 'nosuch'")
    prompt.until(r"\[2\] irons>")
    prompt.send("exit\r")
    assert prompt.ended() == 0


def test_every_way_out_leads_out(terminal: Open) -> None:
    """`exit`, `quit` and Ctrl-D leave with 0, `exit 3` with 3."""
    for keys, code in (("quit\r", 0), ("\x04", 0), ("exit 3\r", 3)):
        screen = terminal()
        screen.until("irons>")
        screen.send(keys)
        assert screen.ended() == code


def test_commands_are_suggested_when_mistyped(prompt: Terminal) -> None:
    """An unknown command names the nearest one."""
    prompt.send("plugin\r")
    prompt.until("did you mean plugins")


def test_commands_and_sandbox_names_are_completed(prompt: Terminal) -> None:
    """Typing part of a word opens a menu of commands, and after `use` one of sandboxes with their states."""
    prompt.send("pl")
    prompt.until("List the plugins")
    prompt.send("\x15use ")
    prompt.send("ag2")
    menu_of_the_second(prompt)
    prompt.send("\t\r")
    prompt.until(lambda: prompt.line_of_cursor() == "irons> use agent-2")
    prompt.send("\r")
    prompt.until("agent-2 irons>")


def menu_of_the_second(screen: Terminal) -> None:
    """Wait until the menu below `ag2` is the one of these letters, and no longer that of a part of them."""
    screen.until(
        lambda: (
            screen.line_of_cursor().endswith(" ag2")
            and re.search(r"agent-2 +stopped", screen.text) is not None
            and "agent-1" not in screen.text
        )
    )


def test_aliases_are_commands_of_the_prompt(terminal: Open, tmp_path: Path) -> None:
    """An alias of the configuration is offered, coloured as a command, completes as what it stands for, helps and runs."""
    config = tmp_path / "config" / "irons" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[aliases]\nstate = "status -o json"\n')
    screen = terminal()
    screen.until("1 stopped")
    screen.send("stat")
    screen.until(r"state +status -o json")
    screen.send("e")
    screen.until(lambda: screen.screen.buffer[screen.screen.cursor.y][8].bold)
    screen.send(" ag2")
    menu_of_the_second(screen)
    screen.send("\t\r\r")
    screen.until(r'"name": "agent-2"')
    screen.send("help state | head -n 1\r")
    screen.until("state is an alias: status -o json")


def test_the_toolbar_tells_how_things_are(prompt: Terminal, fake: FakeApi) -> None:
    """Backend, mode, sandboxes by state and denials are below the prompt, and follow what happens."""
    line = prompt.until(r"127\.0\.0\.1:\d+ │ mode warn \(log only\) │ 1 ready │ 1 stopped │ 0 denied")
    last = prompt.screen.buffer[prompt.screen.lines - 1]
    assert last[line.splitlines()[-1].index("mode warn")].fg == "ff8787", "what is left open is red"
    fake.record("evil.example", "agent-1", allowed=False)
    fake.sandboxes["agent-2"].status = "ready"
    fake.mode = "deny"
    prompt.until(r"mode deny │ 2 ready │ 1 denied")


def test_the_toolbar_does_not_flicker(prompt: Terminal, fake: FakeApi) -> None:
    """While nothing changes, nothing is drawn, however often the server is looked at."""
    prompt.until("0 denied")
    before = drawn_after(1, prompt, fake)
    while (now := drawn_after(1, prompt, fake)) != before:
        before = now
    assert drawn_after(2, prompt, fake) == before


def drawn_after(looks: int, screen: Terminal, fake: FakeApi) -> int:
    """Wait until the prompt has looked at the server so often, and return how much has been drawn since the beginning."""
    wanted = fake.lines().count("GET /egress/mode") + looks
    screen.until(lambda: fake.lines().count("GET /egress/mode") >= wanted)
    screen.read(0)
    return len(screen.raw)


def test_typing_is_never_delayed_by_the_network(terminal: Open, fake: FakeApi) -> None:
    """While every answer is held back, for longer than the test lasts, each key shows, and the completions of what is known too."""
    fake.fail(faults.held(threading.Event()), times=10**6)
    screen = terminal(env={"IRONS_READ_TIMEOUT": "3600"})
    screen.until("irons>")
    screen.until(lambda: bool(fake.lines()))
    line = "status agent-1 --output json"
    for at in range(len(line)):
        screen.send(line[at])
        screen.until(lambda at=at: line[: at + 1].rstrip() in screen.line_of_cursor())  # type: ignore[misc]
    screen.send("\x15egress ")
    screen.until("Allow")


def test_the_sandbox_in_use_is_shown_and_meant(prompt: Terminal) -> None:
    """`use NAME` puts it into the prompt, and `status` needs no name."""
    prompt.send("use agent-2\r")
    prompt.until("agent-2 irons>")
    prompt.send("status\r")
    prompt.until("stopped")
    prompt.send("use nobody\r")
    prompt.until(r"\[3\] agent-2 irons>")
    prompt.send("use --none\r")
    prompt.until(lambda: prompt.line_of_cursor() == "irons>")


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
def test_the_mode_is_that_of_the_sandbox_in_use(terminal: Open, fake: FakeApi, columns: int) -> None:
    """The line shows the mode that applies to the sandbox in use, red only where that one is open."""
    fake.mode = "warn"
    fake.sandboxes["agent-2"].mode = "deny"
    screen = terminal(columns=columns)

    def colour(text: str) -> str:
        last = screen.screen.lines - 1
        return str(screen.screen.buffer[last][screen.screen.display[last].index(text)].fg)

    screen.until(r"mode warn \(log only\)")
    assert colour("mode warn") == "ff8787"
    screen.send("use agent-2\r")
    screen.until(r"agent-2: mode deny")
    assert colour("agent-2: mode deny") == "87d787"
    screen.send("egress mode warn\r")
    screen.until(r"agent-2: mode warn \(log only\)")
    assert colour("agent-2: mode warn") == "ff8787"
    assert (fake.mode, fake.sandboxes["agent-2"].mode) == ("warn", "warn")
    screen.send("use agent-1\r")
    screen.until(r"agent-1: mode warn")
    screen.send("egress mode deny\r")
    screen.until(r"agent-1: mode deny")
    screen.send("use --none\r")
    screen.until(r"mode warn \(log only\) \((agent-1: deny|1 differs)\)")
    assert fake.mode == "warn"


def test_names_are_fresh_after_each_own_command(prompt: Terminal, fake: FakeApi) -> None:
    """A sandbox destroyed here is offered no more."""
    prompt.until("1 stopped")
    prompt.send("destroy agent-2 --force\r")
    prompt.until(lambda: "agent-2" not in fake.sandboxes)
    prompt.until(r"mode warn \(log only\) │ 1 ready │ 0 denied")


@pytest.mark.parametrize("way", JOBS)
def test_ctrl_c_clears_the_line_and_cancels_the_command(
    terminal: Callable[..., Terminal], fake: FakeApi, way: str
) -> None:
    """Ctrl-C at the prompt clears the line; on a running command it gives 130; the prompt stays."""
    prompt = terminal(argv=job(way, [sys.executable, "-m", "irons"]))
    prompt.until("irons>")
    prompt.send("half a line")
    prompt.until("half a line")
    prompt.send("\x03")
    prompt.until(r"\[130\] irons>")
    prompt.send("audit egress agent-1 --follow\r")
    prompt.until(lambda: any("audit" in line for line in fake.lines()))
    fake.record("seen.example", "agent-1")
    prompt.until("seen.example")
    prompt.send("\x03")
    prompt.until(lambda: prompt.line_of_cursor() == "[130] irons>")
    for line in ("!echo start''ed; exec sleep 100", "plugins | (echo start''ed-2; exec sleep 100)"):
        prompt.send(f"{line}\r")
        prompt.until(f"\n{'started-2' if '|' in line else 'started'}")
        prompt.send("\x03")
        prompt.until(lambda: prompt.line_of_cursor().endswith("[130] irons>"))
    prompt.send("!echo alive\r")
    prompt.until(r"\nalive")


def test_a_follower_ends_with_its_pipe(prompt: Terminal, fake: FakeApi) -> None:
    """`… --follow | head` ends when head has what it wants, also where nothing more happens."""
    fake.record("one.example", "agent-1")
    prompt.send("audit egress agent-1 --follow | head -n 1\r")
    prompt.until(r"one\.example.*\nirons>")


def test_lines_go_on_behind_open_quotes_and_backslashes(prompt: Terminal) -> None:
    """Enter on an open quote continues on the next line."""
    prompt.send("!echo 'one\r")
    prompt.until("…")
    prompt.send("two'\r")
    prompt.until(r"\none\ntwo\n")
    prompt.send("!printf '%s' a\\\rb\r")
    prompt.until(r"\nab\n\S*irons>")


def test_the_prompt_has_a_line_of_its_own(prompt: Terminal) -> None:
    """It follows output without an end of line, and what was typed while a command ran; that is taken as typed."""
    width = prompt.screen.columns
    for text in ("x", "y" * (width - 1), "z" * width):
        prompt.send(f"!printf {text}\r")
        prompt.until(rf"\n{text}\n+irons>")
    prompt.send("!echo beg''un; read line; echo over\r")
    prompt.until(r"\nbegun")
    prompt.send("\rstatus agent-2 | grep -c stopped\r")
    prompt.until(r"\n1\n.*irons>")


def test_errors_point_at_the_column(prompt: Terminal) -> None:
    """A line that is invalid is shown with a mark."""
    prompt.send("plugins | | cat\r")
    prompt.until(r"nothing follows \| \(column 9\)\n  plugins \| \| cat\n {10}\^")


def test_history_lasts_and_is_searched(terminal: Open, tmp_path: Path) -> None:
    """Lines are there again in the next prompt: the arrow, the search, the grey suggestion; never one with a key in it."""
    first = terminal()
    first.until("irons>")
    first.send("help exit-codes\r")
    first.until("130")
    first.send(" plugins\r")
    first.until("shell")
    first.send(f"config set api_key {KEY}x; !echo do''ne\r")
    first.until(r"\ndone\nirons>")
    first.send("\x04")
    first.ended()
    path = tmp_path / "state" / "irons" / "history"
    assert path.read_text() == '"help exit-codes"\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = terminal()
    second.until("irons>")
    whole = "irons> help exit-codes"
    second.send("\x1b[A")
    second.until(lambda: second.line_of_cursor() == whole)
    for keys, reached in (
        ("hel", lambda: second.line_of_cursor().endswith(whole)),
        ("\x1b[C", lambda: second.screen.cursor.x == len(f"[130] {whole}")),
        ("\x12codes", lambda: whole in second.text and "search backward: codes" in second.text),
        ("\r", lambda: "search" not in second.text and second.line_of_cursor().endswith(whole)),
    ):
        if not keys.startswith(("\x1b", "\r")):
            second.send("\x03")
            second.until(lambda: second.line_of_cursor() == "[130] irons>")
        second.send(keys)
        second.until(reached)


def test_a_line_from_the_history_gets_no_menu_of_its_own(prompt: Terminal, fake: FakeApi) -> None:
    """News from the server open no menu below a recalled line, where it would take the arrows."""
    prompt.send("help prompt\r")
    prompt.until(lambda: prompt.line_of_cursor() == "irons>")
    prompt.send("list -q\r")
    prompt.until(r"\nagent-2\nirons>")
    prompt.send("\x1b[A")
    prompt.until(lambda: prompt.line_of_cursor() == "irons> list -q")
    fake.mode = "deny"
    prompt.until("mode deny")
    prompt.send("\x1b[A")
    prompt.until(lambda: prompt.line_of_cursor().endswith("help prompt"))


def test_up_recalls_what_begins_like_the_line(prompt: Terminal, fake: FakeApi) -> None:
    """Up brings the last line with the same beginning, also over an open menu, and never one that destroys without asking."""
    prompt.send("egress mode\r")
    prompt.until(r"\nwarn.*\n+irons>")
    prompt.send("destroy agent-2 --force\r")
    prompt.until(lambda: "agent-2" not in fake.sandboxes)
    prompt.until(lambda: prompt.line_of_cursor() == "irons>")
    prompt.send("eg")
    prompt.until(r"Allow domains|egress +allow, deny")
    prompt.send("\x1b[A")
    prompt.until(lambda: prompt.line_of_cursor() == "irons> egress mode")
    prompt.send("\x1b[B")
    prompt.until(lambda: prompt.line_of_cursor().startswith("irons> eg"))
    prompt.send("\x15\x1b[A")
    prompt.until(lambda: prompt.line_of_cursor() == "irons> destroy agent-2")


def test_the_first_prompt_greets_once(terminal: Open) -> None:
    """Two lines say what this is and which keys help; the next prompt begins at once."""
    first = terminal(columns=40)
    first.until(r"irons \d.*: sandboxes for AI agents\nTab completes, \? helps, Ctrl-D leaves\n+irons>")
    first.send("\x04")
    first.ended()
    second = terminal()
    second.until("irons>")
    assert "Tab completes" not in second.text


def test_the_mode_of_vi_keys_is_shown(prompt: Terminal) -> None:
    """The line below names it, and the cursor has its shape; with emacs keys neither is there."""
    prompt.until("0 denied")
    assert b" q" not in prompt.raw
    assert "vi " not in prompt.screen.display[-1]
    prompt.send("\x1bOS")
    prompt.until(lambda: prompt.screen.display[-1].startswith(" vi insert │") and b"\x1b[6 q" in prompt.raw)
    prompt.send("x\x1b")
    prompt.until(lambda: prompt.screen.display[-1].startswith(" vi normal │") and b"\x1b[2 q" in prompt.raw)
    prompt.send("V")
    prompt.until(lambda: prompt.screen.display[-1].startswith(" vi visual line │"))
    prompt.send("\x1bR")
    prompt.until(lambda: prompt.screen.display[-1].startswith(" vi replace │"))
    prompt.send("\x1b\x1bOS")
    prompt.until(lambda: "vi " not in prompt.screen.display[-1] and b"\x1b[0 q" in prompt.raw)


def test_clear_and_cd(prompt: Terminal, tmp_path: Path) -> None:
    """`clear` leaves an empty screen; after `cd ` folders are offered, and files are not."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "foam.txt").touch()
    prompt.send("plugins\r")
    prompt.until("lifecycle")
    prompt.send("clear\r")
    prompt.until(lambda: "lifecycle" not in prompt.text)
    prompt.send("cd fo")
    prompt.until(r"folder/ +folder")
    assert "foam.txt" not in prompt.text


def test_vi_and_emacs_keys(prompt: Terminal) -> None:
    """F4 changes to vi keys, where Escape and dd clear the line, and back."""
    prompt.send("\x1bOS")
    prompt.send("some words")
    prompt.until(lambda: prompt.screen.cursor.x == len("irons> some words"))
    prompt.send("\x1b")
    prompt.until(lambda: prompt.screen.cursor.x == len("irons> some word"))
    prompt.send("dd")
    prompt.until(lambda: prompt.line_of_cursor() == "irons>")
    prompt.send("i\x1bOS")
    prompt.send("x y\x01!echo ")
    prompt.until("!echo x y")


def test_the_line_is_edited_in_an_editor(terminal: Open, tmp_path: Path) -> None:
    """Ctrl-X Ctrl-E opens $VISUAL with the line, and runs or shows what it left."""
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho "!echo edited" > "$1"\n')
    editor.chmod(0o755)
    screen = terminal(env={"VISUAL": str(editor), "EDITOR": str(editor)})
    screen.until("irons>")
    screen.send("abc\x18\x05")
    screen.until("echo edited")
    screen.send("\r")
    screen.until(r"\nedited")


@pytest.mark.parametrize("columns", [40, 20])
def test_a_narrow_terminal_will_do(terminal: Open, columns: int) -> None:
    """In few columns the prompt works, the toolbar fits on its line, and a resize is followed."""
    screen = terminal(columns=columns, rows=12)
    screen.until("irons>")
    screen.until("denied|mode warn")
    screen.send("!echo hello\r")
    screen.until(r"\nhello")
    screen.resize(90, 24)
    screen.until("1 ready │ 1 stopped")
    screen.send("status ag")
    screen.until(r"agent-2 +stopped")
    screen.resize(columns, 14)
    screen.until(lambda: "stopped  " not in screen.text and "agent-2" in screen.text)
    screen.send("\x15")
    screen.until(lambda: "agent-2" not in screen.text)
    screen.send("!echo still here\r")
    screen.until(r"\nstill here")


def test_without_colour_there_is_none(terminal: Open) -> None:
    """NO_COLOR: no colour codes reach the terminal, and everything is still there."""
    screen = terminal(env={"NO_COLOR": "1"})
    screen.until(r"mode warn \(log only\)")
    screen.send("use --none; nosuch\r")
    screen.until(r"\[2\] irons>")
    assert not re.search(rb"\x1b\[[0-9;]*(3[0-7]|38;5|9[0-7])[0-9;]*m", screen.raw)


@pytest.mark.parametrize("name", ["dumb", "unknown-terminal", "linux", "screen", "vt100"])
def test_any_kind_of_terminal_will_do(terminal: Open, name: str) -> None:
    """No matter what TERM says, lines are read and run."""
    screen = terminal(env={"TERM": name})
    screen.until("irons>")
    screen.send("!echo a''live\r")
    screen.until(r"\nalive\s+irons>")
    screen.send("\x04")
    assert screen.ended() == 0


def test_a_dumb_terminal_goes_on_behind_an_open_quote(terminal: Open) -> None:
    """There the next line is asked for by three dots."""
    screen = terminal(env={"TERM": "dumb"})
    screen.until("irons>")
    screen.send("!echo 'one\r")
    screen.until(r"\n\.\.\. ?$")
    screen.send("two'\r")
    screen.until(r"\none\ntwo\n")
    screen.send("\x04")
    assert screen.ended() == 0


def test_a_prompt_that_nobody_would_see_is_refused(terminal: Open) -> None:
    """With stdout in a pipe there is no prompt, and irons alone shows its help."""
    screen = terminal(
        argv=["sh", "-c", f"{sys.executable} -m irons shell | cat; {sys.executable} -m irons | head -n 3"]
    )
    assert screen.ended() == 0
    assert "needs a terminal" in screen.text
    assert "usage: irons COMMAND" in screen.text


KEEPING = """
import sys
from irons.client.backends import load_httpx
load_httpx()._config.DEFAULT_LIMITS.keepalive_expiry = None
from irons.__main__ import main
sys.exit(main())
"""
"""The prompt, with connections that httpx keeps however long the machine stands still between two requests."""


def test_one_connection_serves_the_session(terminal: Open, fake: FakeApi) -> None:
    """Commands do not connect again: a dozen of them, and the looks between them, share what is open."""
    prompt = terminal(argv=[sys.executable, "-c", KEEPING])
    prompt.until("0 denied")
    for number in range(12):
        prompt.send(f"status agent-{1 + number % 2}; !echo done-{number}\r")
        prompt.until(f"\ndone-{number}")
    assert fake.connections <= 2


@pytest.mark.parametrize("rows", [3, 5, 8])
def test_a_low_terminal_has_room_for_the_line(terminal: Open, rows: int) -> None:
    """Where there is no room for a menu there is still a prompt, and the line below."""
    screen = terminal(columns=60, rows=rows)
    screen.until("irons>")
    screen.until("mode warn")
    screen.send("status agent-2 | grep -c stopped\r")
    screen.until(r"(?m)^1$")
