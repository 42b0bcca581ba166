"""The prompt on a real terminal: what the screen shows after keys."""

from __future__ import annotations

from collections.abc import Callable

from tests.repl.terminal import Terminal

Open = Callable[..., Terminal]


def test_irons_alone_opens_the_prompt_and_runs_commands(terminal: Open) -> None:
    """`irons` on a terminal opens the prompt, which runs a command and shows how it ended."""
    screen = terminal()
    screen.until("irons>")
    screen.send("plugins\r")
    screen.until(r"shell +irons")
    screen.send("nosuch\r")
    screen.until(r"there is no command 'nosuch'")
    screen.until(r"\[2\] irons>")
    screen.send("exit\r")
    assert screen.ended() == 0


def test_commands_and_sandbox_names_are_completed(terminal: Open) -> None:
    """Typing part of a word opens a menu of commands, and behind `use` one of sandboxes with their states."""
    screen = terminal()
    screen.until("irons>")
    screen.send("pl")
    screen.until("List the plugins")
    screen.send("\x15use ")
    screen.send("ag2")
    screen.until(r"agent-2 +stopped")
