"""The prompt, the live view and xonsh in front of a real backend, on a real terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.lab import Person
from tests.repl.deciding import decide
from tests.repl.terminal import Terminal

Open = Callable[..., Terminal]


@pytest.fixture
def terminal(person: Person) -> Iterator[Open]:
    """Open a terminal in which the person runs irons, or another program."""
    with ExitStack() as stack:

        def opened(*argv: str) -> Terminal:
            words = [*person.lab.enter(user=person.user), *(argv or person.program)]
            env = {**person.env, "TERM": "xterm-256color"}
            return stack.enter_context(Terminal(words, env, columns=120, cwd=str(person.home)))

        yield opened


def test_a_day_in_the_prompt(terminal: Open, person: Person, sandbox: str) -> None:
    """Choose a sandbox, enter it, run something in it, see what it tried, allow it, deny the rest."""
    screen = terminal()
    screen.until(r"mode warn \(log only\)")
    screen.send("use s")
    screen.until(rf"{sandbox} +ready")
    screen.send(f"\x15use {sandbox}\r")
    screen.until(rf"{sandbox} irons>")
    screen.send("ssh\r")
    screen.until(r"irons@\S+:~\$")
    screen.send("echo $((6*7)); exit 3\r")
    screen.until(r"\n42")
    screen.until(r"\[3\] \S+ irons>")
    screen.send(f"{sandbox}: seq $((1 + 2)) | tac | head -n 1\r")
    screen.until(r"\n3\n")
    screen.send("egress mode deny\r")
    screen.until("mode deny")
    screen.send(f"{sandbox}: curl -sS -m 60 http://nobody.example.test/\r")
    screen.until("no rule allows nobody.example.test")
    screen.until("1 denied")
    screen.send("watch\r")
    screen.until(r"▸ \? nobody\.example\.test")
    # What the gateway folds into an event that is on the screen already counts.
    again = "for n in 1 2 3 4 5 6; do curl -s http://nobody.example.test/; done; true"
    person.ok("exec", sandbox, "--", "sh", "-c", again)
    screen.until(r"▸ \? nobody\.example\.test +7 ")
    decide(screen, "a", f"allow nobody.example.test for {sandbox}")
    screen.send("y")
    screen.until(f"allowed for {sandbox}: nobody.example.test")
    screen.send("q")
    screen.until(rf"press r and Enter to run it again: {sandbox}: curl")
    screen.until(rf"{sandbox} irons>")
    screen.send(f"egress list --sandbox {sandbox} -o json | grep -c nobody.example.test\r")
    screen.until(rf"\n[1-9]\n{sandbox} irons>")
    screen.send("\x04")
    assert screen.ended() == 0


def test_the_prompt_does_not_bring_up_what_was_taken_down(
    terminal: Open, person: Person, sandbox: str
) -> None:
    """After `local down` the looks of the toolbar leave the backend down; a command that needs it brings it back."""
    screen = terminal()
    screen.until("1 ready")
    screen.send("local down\r")
    screen.until("is down")
    screen.until("not up")
    screen.read(3)
    assert "down" in person.ok("local", "status")
    screen.send("list\r")
    screen.until(rf"{sandbox} +🟢")


def test_a_lock_is_shown_and_asked_for(terminal: Open, person: Person, sandbox: str) -> None:
    """On a terminal `egress lock` shows the difference and what it leaves out, and asks; a no changes nothing, a yes locks."""
    request = (
        "for n in 1 2; do curl -s -m 60 http://web.example.test/; done; curl -s -m 60 http://203.0.113.11/"
    )
    assert person.inside(sandbox, request).returncode == 0
    for answer, mode in (("n", "warn"), ("y", "deny")):
        screen = terminal(*person.program, "egress", "lock", sandbox)
        screen.until(r"left out: 203\.0\.113\.11 \(tried once, a bare address\)")
        screen.until(r"mode: warn \(inherited\) -> deny")
        screen.until(r"\+ allow web\.example\.test")
        screen.until(r"Apply this policy to \S+\?")
        screen.send(f"{answer}\r")
        assert screen.ended() == (0 if answer == "y" else 1)
        assert person.ok("egress", "mode", "--sandbox", sandbox).startswith(mode)
    assert person.run("egress", "check", "web.example.test", "--sandbox", sandbox).returncode == 0
    assert person.run("egress", "check", "203.0.113.11", "--sandbox", sandbox).returncode == 7


def test_xonsh_drives_real_sandboxes(terminal: Open, person: Person, sandbox: str) -> None:
    """The alias lists, captures and enters what is there."""
    xonsh = Path(person.program[0]).with_name("xonsh")
    if not xonsh.exists():
        xonsh = Path(sys.executable).with_name("xonsh")
    (person.home / ".xonshrc").write_text("$PROMPT = 'here> '\n$XONSH_HISTORY_BACKEND = 'dummy'\n")
    screen = terminal(str(xonsh))
    screen.until("here>")
    screen.send("[d['name'] for d in $(@json irons list -o json)]\r")
    screen.until(rf"\['{sandbox}'\]")
    screen.send(f"@{sandbox} r'seq $((1 + 2))' | tac | head -n 1\r")
    screen.until(r"\n3\n")
    screen.send(f"irons ssh {sandbox}\r")
    screen.until(r"irons@\S+:~\$")
    screen.send("exit 4\r")
    screen.until(lambda: screen.line_of_cursor().endswith("here>"))
    screen.send("__xonsh__.last.rtn + 1000\r")
    screen.until(r"\n1004\n")
