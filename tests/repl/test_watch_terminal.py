"""The live view on a real terminal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from irons.testing import FakeApi
from tests.repl.asking import end, put
from tests.repl.deciding import decide
from tests.repl.terminal import Terminal

Open = Callable[..., Terminal]


def test_it_shows_what_happens_and_allows_after_asking(terminal: Open, fake: FakeApi) -> None:
    """Events come as they happen; the chosen host is denied and allowed by a key and a yes, and that is undone; q leaves."""
    fake.record("pypi.org", "agent-1", verdict="allowed")
    screen = terminal("audit", "watch")
    before = screen.modes_before
    screen.until(r"▸ \+ pypi\.org")
    fake.record("evil.test", "agent-1", allowed=False, verdict="blocked", reason="no rule allows it")
    screen.until(r"DENIED +agent-1 +evil\.test:443 +no rule allows it")
    screen.until("1 allowed  1 denied")
    screen.until(r"  \? evil\.test")
    screen.until(r"1 undecided")
    screen.send("\x1b[A")
    screen.until(r"▸ \? evil\.test")
    decide(screen, "a", r"allow evil\.test for all sandboxes\?")
    assert "evil.test" not in {rule["pattern"] for rule in fake.rules}
    screen.send("y")
    screen.until(r"allowed for all sandboxes: evil\.test; u undoes it")
    assert fake.rules[-1] == {"pattern": "evil.test", "list": "allow"}
    screen.until(r"▸ \+ evil\.test")
    decide(screen, "d", r"deny evil\.test for all sandboxes\?")
    screen.send("y")
    screen.until("denied for all sandboxes: .*mode warn blocks nothing yet")
    screen.until(r"▸ - evil\.test")
    decide(screen, "u", r"undo: allow evil\.test for all sandboxes, as before\?")
    screen.send("y")
    screen.until("undone for all sandboxes")
    screen.until(r"▸ \+ evil\.test")
    screen.send("q")
    assert screen.ended() == 0
    assert screen.modes() == before
    assert b"\x1b[?1049l" in screen.raw


def test_pasted_text_decides_nothing(terminal: Open, fake: FakeApi) -> None:
    """Neither a bracketed paste nor keys that come all at once change a rule."""
    fake.record("evil.test", "agent-1", allowed=False, verdict="blocked")
    screen = terminal("watch", "agent-1")
    screen.until(r"▸ \? evil\.test")
    screen.read(0.7)
    screen.send("\x1b[200~ay\x1b[201~")
    screen.until("Pasted text does nothing here")
    screen.send("ayyyyjayku" * 3)
    screen.until(lambda: "Pasted text" not in screen.text)
    screen.read(0.7)
    assert fake.sandboxes["agent-1"].rules == []
    assert all(line.startswith("GET ") for line in fake.lines())


def test_counts_grow_while_one_looks(terminal: Open, fake: FakeApi) -> None:
    """A refusal that is repeated after it was shown counts in full: in the totals, in its host's bar, and in the log."""
    folded = fake.record("evil.test", "agent-1", allowed=False, verdict="blocked")
    screen = terminal("watch", "agent-1")
    screen.until("0 allowed  1 denied")
    fake.change(folded, count=5)
    screen.until("0 allowed  5 denied")
    screen.until(r"▸ \? evil\.test +5 ")
    screen.until(r"evil\.test:443 \(5 times\)")


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
def test_every_screen_fits(terminal: Open, fake: FakeApi, columns: int) -> None:
    """Hosts, log, an event as a whole, filter and keys are drawn at each width, and every host can be reached."""
    for number in range(60):
        fake.record(
            f"h{number}.test", "agent-1", allowed=False, verdict="blocked", cause="uncovered", port=8080
        )
    screen = terminal("watch", "agent-1", columns=columns, rows=24)
    screen.until(r"▸ \? h59\.test:8080")
    screen.send("\x1b[F")
    screen.until(r"▸ \? h0\.test:8080")
    screen.send("\r")
    screen.until(r"cause +uncovered")
    screen.until(r"to allow it +irons egress allow")
    screen.send("q")
    screen.until("h0.test:8080")
    screen.send("/h1\r")
    screen.until(lambda: "h19.test:8080" in screen.text and "h59.test:8080" not in screen.text)
    screen.send("\t\x1b[A")
    screen.until(r"log 10/11")
    screen.send("?")
    screen.until("undo the last change")
    screen.send("q")
    screen.until(lambda: "undo the last change" not in screen.text)


def test_one_sandbox_is_watched_from_within_the_prompt(terminal: Open, fake: FakeApi) -> None:
    """`watch` in the prompt shows the sandbox in use, allows for it alone, and gives the prompt back."""
    screen = terminal()
    screen.until("irons>")
    screen.send("use agent-1; watch\r")
    screen.until("No connections yet")
    fake.record("a.example", "agent-2")
    fake.record("b.example", "agent-1", allowed=False, port=22)
    screen.until(r"▸ \? b\.example:22")
    assert "a.example" not in screen.text
    decide(screen, "a", r"allow b\.example:22 for agent-1\?")
    screen.send("y")
    screen.until("allowed for agent-1: b.example:22")
    assert fake.sandboxes["agent-1"].rules == [{"pattern": "b.example:22", "list": "allow"}]
    screen.send("\x03")
    screen.until("agent-1 irons>")
    screen.send("!echo alive\r")
    screen.until(r"\nalive")


def test_the_picture_can_be_held(terminal: Open, fake: FakeApi) -> None:
    """Space holds the picture while events are counted on, and lets it go."""
    screen = terminal("watch")
    screen.until("No connections yet")
    screen.send(" ")
    screen.until("paused")
    fake.record("a.example", "agent-1")
    screen.read(0.5)
    assert "a.example" not in screen.text
    screen.send(" ")
    screen.until("a.example")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_killed_view_gives_the_terminal_back(terminal: Open, number: int) -> None:
    """However the view ends, settings and screen are what they were."""
    screen = terminal("watch")
    before = screen.modes_before
    screen.until("No connections yet")
    assert screen.modes() != before
    os.kill(screen.pid, number)
    screen.ended()
    screen.until(lambda: screen.modes() == before and screen.raw.endswith(b"\x1b[?25h"))
    assert b"\x1b[?1049l" in screen.raw


@pytest.mark.parametrize("asked", ["", "before", "now"])
@pytest.mark.parametrize("on", ["on", "off"])
def test_a_killed_view_shows_the_title_again_that_it_had_kept(
    terminal: Open, fake: FakeApi, asked: str, on: str
) -> None:
    """Where it keeps none, by the setting or since nothing is asked any more, the one that the shell may have kept stays with the shell."""
    fake.mode = "ask"
    screen = terminal("watch", env={"IRONS_TERMINAL_TITLE": on})
    screen.until("No connections yet")
    kept = on == "on" and asked != ""
    if asked:
        put(fake, "new")
        screen.until(r"new\.example")
        screen.until(lambda: screen.raw.count(b"\x1b[22;2t") == kept)
    if asked == "before":
        end(fake, "new")
        screen.until(r"is not asked any more")
        screen.until(lambda: screen.raw.count(b"\x1b[23;2t") == kept)
    os.kill(screen.pid, signal.SIGKILL)
    screen.ended()
    screen.until(lambda: screen.raw.endswith(b"\x1b[?25h") and b"\x1b[?1049l" in screen.raw)
    assert screen.raw.count(b"\x1b[23;2t") == kept


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_view_and_the_prompt_around_it(terminal: Open, number: int) -> None:
    """The view restores the terminal when its program is signalled to end."""
    screen = terminal()
    before = screen.modes_before
    screen.until("0 denied")
    screen.send("watch\r")
    screen.until("No connections yet")
    os.kill(screen.pid, number)
    assert screen.ended() == 128 + number
    screen.until(lambda: screen.modes() == before)


def test_ctrl_z_suspends_the_view(terminal: Open, fake: FakeApi) -> None:
    """The shell that started it has the terminal until `fg`, which goes on."""
    screen = terminal(argv=["bash", "--norc", "--noprofile", "-i"], env={"PS1": "here> "})
    screen.until("here>")
    screen.send("irons watch\r")
    screen.until("No connections yet")
    screen.send("\x1a")
    screen.until(lambda: screen.line_of_cursor().endswith("here>"))
    screen.send("jobs\r")
    screen.until(r"Stopped +irons watch")
    screen.send("fg\r")
    fake.record("later.example", "agent-1")
    screen.until(r"▸ .* later\.example|▸ +later\.example")
    screen.send("q")
    screen.until(lambda: screen.line_of_cursor().endswith("here>"))
    screen.send("exit\r")
    assert screen.ended() == 0


def test_a_narrow_view_and_no_colour(terminal: Open, fake: FakeApi) -> None:
    """In 40 columns everything is there; without colour no colour codes are sent."""
    fake.record("a-very-long-host-name.department.example.com", "agent-1", allowed=False)
    screen = terminal("watch", columns=40, rows=12, env={"NO_COLOR": "1"})
    screen.until("1 denied")
    screen.until("DENIED")
    screen.resize(100, 20)
    screen.until(r"a-very-long-host-name\.department\.example\.com:443")
    assert b"\x1b[31m" not in screen.raw
    assert b"\x1b[0;31m" not in screen.raw


def test_no_such_sandbox_is_an_error(terminal: Open) -> None:
    """The view closes with exit code 3 and one line."""
    screen = terminal("watch", "nobody")
    assert screen.ended() == 3
    assert "nobody" in screen.text


@pytest.mark.process
def test_without_a_terminal_it_says_what_to_use() -> None:
    """For programs `audit egress --follow` is named."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "irons", "watch"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--follow -o jsonl" in done.stderr
