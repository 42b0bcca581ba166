"""The xontrib in a real xonsh on a real terminal."""

from __future__ import annotations

from collections.abc import Callable

from tests.repl.terminal import Terminal

Open = Callable[..., Terminal]


def test_commands_run_and_their_output_is_captured(xonsh: Open) -> None:
    """`irons` is an alias: its output goes into pipes, captures, JSON, and its exit code into xonsh's hands."""
    screen = xonsh()
    screen.send("irons plugins | grep -c irons_commands\r")
    screen.until(r"\n[67]\n")
    screen.send("len($(@json irons plugins -o json)) + 1000\r")
    screen.until(r"\n100[78]\n")
    screen.send("!(irons nosuch).returncode + 2000\r")
    screen.until(r"\n2002\n")


def test_commands_and_sandbox_names_are_completed(xonsh: Open) -> None:
    """Tab completes commands, and sandbox names that the cache holds."""
    screen = xonsh()
    screen.send("irons plug\t")
    screen.until(r"irons plugins")
