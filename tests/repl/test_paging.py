"""Long answers of the prompt, page by page."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from irons.host import PluginHost
from irons.settings.settings import load
from irons.testing import FakeApi
from irons_repl.run.paging import may_be_long, pager_of
from tests.repl.terminal import Terminal

Open = Callable[..., Terminal]


@pytest.fixture
def pager(tmp_path: Path) -> str:
    """A pager that marks the beginning, shows three lines, and waits for Enter."""
    program = tmp_path / "pager"
    program.write_text(
        '#!/bin/sh\nprintf "page of %s\\n" "$LESS"\nhead -n 3\nread -r _ < /dev/tty\necho read\n'
    )
    program.chmod(0o755)
    return str(program)


def at_prompt(screen: Terminal, shown: str = "") -> None:
    """Wait until something is shown and the prompt is back, whether or not the line below it is drawn yet."""
    screen.until(lambda: shown in screen.text and screen.line_of_cursor() == "irons>")


def test_an_answer_longer_than_the_screen_goes_through_the_pager(
    terminal: Open, fake: FakeApi, pager: str
) -> None:
    """`$PAGER` shows it, the rest is dropped where the person has read enough, and the prompt is back with the command's code."""
    for number in range(40):
        fake.add(f"box-{number:02}")
    screen = terminal(env={"PAGER": pager}, rows=20)
    screen.until("irons>")
    screen.send("list\r")
    screen.until(r"page of FRX\nNAME")
    assert "box-39" not in screen.text
    screen.send("\r")
    at_prompt(screen, "\nread\n")
    for line, shown in (
        ("list | tail -n 1", "box-39"),
        ("status box-07", "name:    box-07"),
        ("list -q > names; status box-08", "name:    box-08"),
    ):
        screen.send(f"clear; {line}\r")
        at_prompt(screen, shown)
        assert "page of" not in screen.text
    screen.send("clear; help\r")
    screen.until("page of FRX")
    screen.send("\r")
    at_prompt(screen)


def test_the_setting_turns_the_pager_off(terminal: Open, fake: FakeApi, pager: str) -> None:
    """With `off` everything is shown at once; a pager that is not installed is done without too."""
    for number in range(40):
        fake.add(f"box-{number:02}")
    for env in ({"IRONS_PAGER": "off", "PAGER": pager}, {"PAGER": "no-such-pager"}, {"PAGER": "cat"}):
        screen = terminal(env=env, rows=20)
        screen.until("irons>")
        screen.send("list -q\r")
        screen.until(r"box-39\nirons>")
        assert "page of" not in screen.text
        screen.send("\x04")
        screen.ended()


@pytest.mark.skipif(shutil.which("less") is None, reason="needs less")
def test_less_shows_a_long_answer(terminal: Open, fake: FakeApi) -> None:
    """It shows the first page and leaves it on the screen; q is enough."""
    for number in range(40):
        fake.add(f"box-{number:02}")
    screen = terminal(env={"PAGER": "less"}, rows=20)
    screen.until("irons>")
    screen.send("list -q\r")
    screen.until(r"box-1\d\n:")
    assert "box-39" not in screen.text
    screen.send("q")
    screen.until(lambda: screen.line_of_cursor().endswith("irons>"))


@pytest.mark.parametrize(
    ("env", "pager"),
    [
        ({}, "less"),
        ({"PAGER": "less -S"}, "less -S"),
        ({"PAGER": "less", "IRONS_PAGER": "more"}, "more"),
        ({"IRONS_PAGER": "off", "PAGER": "less"}, ""),
        ({"PAGER": ""}, ""),
        ({"PAGER": "cat"}, ""),
        ({"PAGER": "absent"}, ""),
        ({"PAGER": "'"}, ""),
    ],
)
def test_which_pager(env: dict[str, str], pager: str, tmp_path: Path) -> None:
    """The setting comes before `$PAGER`, and that before `less`; what is not installed is none."""
    for name in ("less", "more"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    env |= {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    assert pager_of(load({}, env), env) == pager


@pytest.mark.parametrize(
    ("words", "long"),
    [
        ("help", True),
        ("create --help", True),
        ("irons list", True),
        ("audit egress", True),
        ("audit egress --follow", False),
        ("exec box -- make", False),
        ("ssh box", False),
        ("watch", False),
        ("create box", False),
        ("clear", False),
        ("nosuch", False),
    ],
)
def test_only_answers_at_once_are_paged(words: str, long: bool) -> None:
    """What runs with the terminal, waits or follows is never paged."""
    assert may_be_long(words.split(), PluginHost(env={"IRONS_PLUGINS": ""}).tree) is long
