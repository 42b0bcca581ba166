"""The xontrib in a real xonsh on a real terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from irons.client.names import NameCache
from irons.settings.settings import load
from irons.testing import FakeApi
from tests.repl.conftest import KEY
from tests.repl.terminal import Terminal

Open = Callable[..., Terminal]


def test_output_is_captured_piped_and_parsed(xonsh: Open) -> None:
    """`$(…)`, `!(…).returncode`, pipes and `@json` give what a person who uses xonsh expects."""
    screen = xonsh()
    screen.send("irons list -q | grep -c agent\r")
    screen.until(r"\n2\n")
    screen.send("len($(irons list -q).split()) + 1000\r")
    screen.until(r"\n1002\n")
    screen.send("[d['name'] for d in $(@json irons list -o json)]\r")
    screen.until(r"\['agent-1', 'agent-2'\]")
    screen.send("!(irons status nobody).returncode + 2000\r")
    screen.until(r"\n2003\n")
    screen.send("!(irons status agent-1).returncode + 3000\r")
    screen.until(r"\n3000\n")


def test_words_that_make_no_sense_end_with_2(xonsh: Open) -> None:
    """Unknown options and commands are reported at once, by the code that all faces have."""
    screen = xonsh()
    for number, words in enumerate(("--bogus list", "list --bogus", "nosuch", "egress")):
        screen.send(f"!(irons {words}).returncode + {7000 + 10 * number}\r")
        screen.until(rf"\n{7002 + 10 * number}\n")
    screen.send("$(irons --version).split()[0] + '!'\r")
    screen.until("'irons!'")


def test_a_person_gets_a_table_and_a_pipe_lines(xonsh: Open) -> None:
    """At the prompt the output is for a person, in a capture it is tab-separated."""
    screen = xonsh()
    screen.send("irons list\r")
    screen.until(r"NAME +STATE")
    screen.send("repr($(irons list).splitlines()[0])\r")
    screen.until(r"agent-1\\+t\S* ?ready")


def test_words_arrive_as_they_are(xonsh: Open) -> None:
    """What xonsh has quoted is not expanded a second time on its way through the alias."""
    screen = xonsh()
    screen.send("$FOO = 'bar'\r")
    screen.send("irons help r'$FOO ~ 100%24'\r")
    screen.until(re.escape("topic '$FOO ~ 100%24'"))
    screen.send("irons audit egress --follow --verdict r'$FOO'\r")
    screen.until(re.escape("not '$FOO'"))


def test_commands_names_and_domains_are_completed_from_the_cache(
    xonsh: Open, env: dict[str, str], fake: FakeApi
) -> None:
    """Tab completes from what is on hand, with its description, and asks the server nothing itself."""
    settings = load({}, env)
    NameCache.of(settings).replace({"builder-1": "ready", "builder-2": "error"})
    NameCache.of(settings, what="domains").replace({"files.pythonhosted.org": "allowed"})
    screen = xonsh()
    screen.send("$COMPLETIONS_DISPLAY = 'single'\r")
    screen.send("irons plug\t")
    screen.until(r"irons plugins")
    screen.send("\x15irons status b\t")
    screen.until(r"builder-2")
    screen.until(r"error")
    screen.send("\x15irons egress allow fil\t")
    screen.until(r"files\.pythonhosted\.org")
    screen.send("\x15irons list --ou\t")
    screen.until(r"--output")
    assert fake.lines() == []


@pytest.mark.parametrize(
    "line", ["irons start agent-2", "irons audit egress agent-1 -f", "irons create fresh"]
)
def test_ctrl_c_ends_what_waits_and_the_shell_lives(
    xonsh: Open, fake: FakeApi, tmp_path: Path, line: str
) -> None:
    """A command that waits is ended by Ctrl-C with 130."""
    fake.polls = 10**6
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519.pub").write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKZ7 me@here\n")
    screen = xonsh()
    screen.send(f"{line}\r")
    screen.until(lambda: len(fake.lines()) > 1 and screen.runs_a_job())
    screen.send("\x03")
    screen.until(r"interrupted")
    screen.until(lambda: screen.line_of_cursor().endswith("here>"))
    screen.send("__xonsh__.last.rtn + 4000\r")
    screen.until(r"\n4130\n")


def test_ctrl_z_suspends_what_waits(xonsh: Open, fake: FakeApi) -> None:
    """Ctrl-Z stops it, `jobs` lists it, `fg` goes on."""
    screen = xonsh()
    screen.send("irons audit egress agent-1 -f\r")
    screen.until(lambda: len(fake.lines()) > 0 and screen.runs_a_job())
    screen.send("\x1a")
    screen.until(lambda: screen.line_of_cursor().endswith("here>"))
    screen.send("jobs\r")
    screen.until(r"(?i)(stopped|suspended).*irons audit egress")
    screen.send("fg\r")
    fake.record("later.example", "agent-1")
    screen.until("later.example")
    screen.until(screen.runs_a_job)
    screen.send("\x03")
    screen.until(lambda: screen.line_of_cursor().endswith("here>"))


def test_a_follower_ends_with_its_pipe(xonsh: Open, fake: FakeApi) -> None:
    """`irons … --follow | head` ends when head has what it wants."""
    for number in range(5):
        fake.record(f"n{number}.example", "agent-1")
    screen = xonsh()
    screen.send("irons audit egress agent-1 -f | head -n 2\r")
    screen.until("n1.example")
    fake.record("more.example", "agent-1")
    fake.record("more.example", "agent-1")
    screen.until(lambda: screen.line_of_cursor().endswith("here>"))
    assert "n2.example" not in screen.text


def test_ssh_owns_the_terminal(xonsh: Open, tmp_path: Path) -> None:
    """`irons ssh` has the terminal for itself, and its exit code is ssh's own."""
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text('#!/bin/sh\ntest -t 0 && test -t 1 && echo owns-it\nread line\necho "got $line"\nexit 7\n')
    ssh.chmod(0o755)
    screen = xonsh()
    screen.send(f"$PATH.insert(0, {str(ssh.parent)!r})\r")
    screen.send("irons ssh agent-1\r")
    screen.until("owns-it")
    screen.send("hello there\r")
    screen.until("got hello there")
    screen.send("__xonsh__.last.rtn + 5000\r")
    screen.until(r"\n5007\n")


def test_xonsh_variables_are_settings(xonsh: Open, env: dict[str, str], fake: FakeApi) -> None:
    """What is set in xonsh alone is seen by commands in its process, in processes of their own, and by Python; types hold."""
    url, key = env.pop("IRONS_API_URL"), env.pop("IRONS_API_KEY")
    screen = xonsh()
    screen.send(f"$IRONS_API_URL = {url!r}; $IRONS_API_KEY = {key!r}\r")
    screen.send("irons list -q | grep -c agent\r")
    screen.until(r"\n2\n")
    screen.send(
        "irons wait agent-1 --for ready; from irons import connect; [s.name for s in connect().list()]\r"
    )
    screen.until(r"\['agent-1', 'agent-2'\]")
    screen.send("$IRONS_CONNECT_TIMEOUT = '7'; $IRONS_CONNECT_TIMEOUT\r")
    screen.until(r"\n7\.0\n")
    screen.send("__xonsh__.env.get_docs('IRONS_PROFILE').doc\r")
    screen.until("profile of irons' configuration")
    assert KEY not in screen.text.replace(f"$IRONS_API_KEY = {KEY!r}", "")
    assert "GET /sandboxes" in fake.lines()


def test_use_chooses_the_sandbox_and_the_prompt_field_shows_it(xonsh: Open, env: dict[str, str]) -> None:
    """`irons use` sets $IRONS_SANDBOX, commands mean it, and {irons} tells profile, sandbox and mode from the cache."""
    NameCache.of(load({}, env), what="facts").replace({"mode": "warn"})
    screen = xonsh()
    screen.send("$PROMPT = '{irons}> '\r")
    screen.until(lambda: screen.line_of_cursor() == "default warn (log only)>")
    screen.send("irons use agent-2\r")
    screen.until(lambda: screen.line_of_cursor().startswith("default agent-2 "))
    screen.send("irons status\r")
    screen.until("stopped")
    screen.send("irons use --none\r")
    screen.until(lambda: screen.line_of_cursor() == "default warn (log only)>")


def test_the_prompt_field_shows_the_mode_of_the_sandbox_in_use(
    xonsh: Open, env: dict[str, str], fake: FakeApi
) -> None:
    """Where all others are closed and the one in use is open it says open, in red, and the other way round; also at once after a change."""
    fake.mode = "deny"
    fake.sandboxes["agent-2"].mode = "warn"
    settings = load({}, env)
    NameCache.of(settings).replace({"agent-1": "ready", "agent-2": "stopped"})
    NameCache.of(settings, what="facts").replace({"mode": "deny", "mode/agent-2": "warn"})
    screen = xonsh()

    def shows(field: str) -> str:
        """Wait for the field, and return the colour of its mode."""
        screen.until(lambda: screen.line_of_cursor() == f"{field}>")
        row = screen.screen.cursor.y
        return str(screen.screen.buffer[row][len(field) - 2].fg)

    screen.send("$PROMPT = '{irons}> '\r")
    screen.until(lambda: screen.line_of_cursor() == "default deny (agent-2: warn)>")
    row = screen.screen.buffer[screen.screen.cursor.y]
    assert row[len("default ")].fg == "green"
    assert "red" in str(row[len("default deny (")].fg)
    screen.send("$IRONS_SANDBOX = 'agent-2'\r")
    assert "red" in shows("default agent-2 warn (log only)")
    screen.send("$IRONS_SANDBOX = 'agent-1'\r")
    assert shows("default agent-1 deny") == "green"
    screen.send("irons egress mode warn\r")
    assert "red" in shows("default agent-1 warn (log only)")
    assert (fake.mode, fake.sandboxes["agent-1"].mode) == ("deny", "warn")
    screen.send("del $IRONS_SANDBOX\r")

    def old() -> bool:
        """Make what is on hand old, again where a process that asks the server was just on its way."""
        os.utime(NameCache.of(settings, what="facts").path, (0, 0))
        screen.send("\r")
        screen.read(1)
        return re.search(r"default deny, \d+ d", screen.text) is not None

    screen.until(old)


def test_bare_irons_opens_the_prompt_and_gives_the_shell_back(xonsh: Open) -> None:
    """The prompt runs inside xonsh; Ctrl-D leads back."""
    screen = xonsh()
    before = screen.modes()
    screen.send("irons\r")
    screen.until("irons>")
    screen.send("status agent-1\r")
    # Keys typed before the prompt is back meet the terminal's own line editing, which would keep Ctrl-D.
    screen.until(r"updated: .*\nirons>")
    screen.send("\x04")
    screen.until(lambda: screen.line_of_cursor().endswith("here>"))
    screen.send("1 + 6000\r")
    screen.until(r"\n6001\n")
    screen.until(lambda: screen.modes() == before)


def test_nothing_named_irons_is_in_the_namespace(xonsh: Open) -> None:
    """A Python name would shadow the alias."""
    screen = xonsh()
    screen.send("'irons' in __xonsh__.ctx, 'irons' in globals()\r")
    screen.until(r"\(False, False\)")


def test_it_unloads_without_a_trace_and_loads_again(xonsh: Open) -> None:
    """Aliases, completer, variables, field and modules are gone after unloading, and back after loading."""
    screen = xonsh()
    look = (
        "import sys; look = lambda: (sorted(__xonsh__.aliases), list(__xonsh__.completers), "
        "sorted(__xonsh__.env['PROMPT_FIELDS']), sorted(__xonsh__.env._vars), "
        "[m for m in sys.modules if m.startswith('irons_repl')])\r"
    )
    screen.send(look)
    screen.send("with_it = look()\r")
    screen.send("xontrib unload irons\r")
    screen.send("without = look()\r")
    screen.send("[irons for part in without for irons in part if 'irons' in irons.lower()]\r")
    screen.until(r"\n\[\]\n")
    screen.send("[len(a) > len(b) for a, b in zip(with_it, without)]\r")
    screen.until(r"\[True, True, True, True, True\]")
    screen.send("xontrib load irons\r")
    screen.send("look()[:4] == with_it[:4], 'again'\r")
    screen.until(r"\(True, 'again'\)")
    screen.send("irons list -q\r")
    screen.until(r"\nagent-1\nagent-2\n")


def test_third_party_commands_run_and_complete(xonsh: Open, env: dict[str, str], tmp_path: Path) -> None:
    """A plugin that is installed is there in xonsh too."""
    place = tmp_path / "site"
    (place / "irons_greet-1.dist-info").mkdir(parents=True)
    (place / "irons_greet-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: irons-greet\nVersion: 1\n"
    )
    (place / "irons_greet-1.dist-info" / "entry_points.txt").write_text("[irons]\ngreet = irons_greet\n")
    (place / "irons_greet.py").write_text(
        "from irons import Arg, Command, hookimpl\n"
        "@hookimpl\n"
        "def irons_commands():\n"
        "    return [Command(('greetings',), 'Greet.', 'irons_greet:greet', (Arg('name'),))]\n"
        "def greet(ctx, *, name):\n"
        "    return f'hello {name}'\n"
    )
    env["PYTHONPATH"] = str(place)
    screen = xonsh()
    screen.send("irons greet\t")
    screen.until("irons greetings")
    screen.send("\x15irons greetings you | cat\r")
    screen.until(r"\nhello you\n")


def test_aliases_of_the_configuration_run_and_complete(
    xonsh: Open, env: dict[str, str], tmp_path: Path
) -> None:
    """`[aliases]` are commands in xonsh too, and complete as what they stand for."""
    config = tmp_path / "config" / "irons" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[aliases]\nlookup = "status -o json"\n')
    NameCache.of(load({}, env)).replace({"agent-1": "ready"})
    screen = xonsh()
    screen.send("irons look\t")
    screen.until("irons lookup")
    screen.send("ag\t")
    screen.until("irons lookup agent-1")
    screen.send("\r")
    screen.until(r'"name": "agent-1"')


def test_a_broken_configuration_breaks_nothing(xonsh: Open, tmp_path: Path) -> None:
    """Completion and the prompt field live with it; commands say what is wrong."""
    config = tmp_path / "config" / "irons" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[nonsense\n")
    screen = xonsh()
    screen.send("$PROMPT = '{irons}> '\r")
    screen.until("configuration broken>")
    screen.send("irons plug\t")
    screen.until("irons plugins")
    screen.send("\x15irons list\r")
    screen.until(r"n\s*o\s*t\s*T\s*O\s*M\s*L")  # the line breaks where the path ends
