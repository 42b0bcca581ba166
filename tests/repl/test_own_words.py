"""What the prompt answers itself: its directory, screen, history and variables, and the ways out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from irons.host import PluginHost
from irons.terminal.streams import Streams
from irons_repl.run.running import Leave, LineRunner
from irons_repl.run.session import ShellSession


@dataclass
class Typed:
    """A session, and what its lines printed."""

    session: ShellSession
    out: io.StringIO
    err: io.StringIO

    def run(self, line: str) -> int:
        """Run a line and return its exit code."""
        return LineRunner(self.session).run(line)


@pytest.fixture
def typed(home_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Typed]:
    """A session in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    out, err = io.StringIO(), io.StringIO()
    session = ShellSession(PluginHost(env={"IRONS_PLUGINS": ""}), Streams(io.StringIO(), out, err, home_env))
    yield Typed(session, out, err)
    session.close()


@pytest.mark.process
def test_cd_is_for_commands_programs_and_files(typed: Typed, tmp_path: Path) -> None:
    """`cd` changes where files of commands and programs are; `cd -` goes back and says where; alone it goes home."""
    (tmp_path / "sub dir").mkdir()
    assert typed.run("cd 'sub dir' && plugins > here && !test -s here") == 0
    assert (tmp_path / "sub dir" / "here").exists()
    assert typed.run("cd -; !test -d 'sub dir'") == 0
    assert typed.out.getvalue() == f"{tmp_path}\n"
    assert typed.run("cd 'sub dir'; cd; !test -d 'sub dir'") == 0, "the home is above it here"
    assert typed.session.env["PWD"] == str(tmp_path)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("cd nowhere", 1, "nowhere: No such file or directory"),
        ("cd a b", 2, "one directory"),
        ("cd -", 2, "no directory to go back to"),
        ("!cd src", 2, "use cd without the !"),
        ("!export A=1", 2, "use export without the !"),
        ("!umask 077", 2, "join it to the command that needs it"),
        ("exit x", 2, "'x' is not an exit code (0 to 255)"),
        ("quit 256", 2, "'256' is not an exit code"),
        ("exit 1 2", 2, "'1 2' is not an exit code"),
        ("history 1 2", 2, "a number or a text"),
        ("clear all", 2, "clear takes nothing"),
        ("export", 2, "export takes NAME=VALUE"),
        ("export A-B=1", 2, "'A-B' is not the name of a variable"),
        ("export A", 2, "no one to ask"),
        ("unset", 2, "unset takes the name"),
    ],
)
def test_what_cannot_be_done_says_what_can(typed: Typed, line: str, code: int, said: str) -> None:
    """Each slip has its sentence and its exit code, and the prompt stays."""
    assert typed.run(line) == code
    assert said in typed.err.getvalue()


@pytest.mark.process
def test_a_shell_command_that_does_more_than_change_its_shell_runs(typed: Typed) -> None:
    """`!cd x && make` is fine: what follows the change needs it."""
    assert typed.run("!cd / && test -d usr") == 0


@pytest.mark.parametrize(("line", "code"), [("exit", 0), ("quit 3", 3), ("exit 255", 255)])
def test_the_ways_out_have_exit_codes(typed: Typed, line: str, code: int) -> None:
    """Without a code it is 0."""
    with pytest.raises(Leave) as left:
        typed.run(line)
    assert left.value.code == code


@pytest.mark.process
def test_history_shows_the_last_lines_or_those_with_a_text(typed: Typed) -> None:
    """It writes where output goes, and nothing in it moves the cursor."""
    typed.session.history = lambda: ["list", "egress list", "!printf \x1b[2J", "status"]
    assert typed.run("history 2") == 0
    assert typed.out.getvalue() == "!printf \\x1b[2J\nstatus\n"
    assert typed.run("history list | grep -c list > count") == 0
    assert Path("count").read_text() == "2\n"
    assert typed.run("history 99 | wc -l | grep -qw 4") == 0


@pytest.mark.process
def test_variables_are_for_commands_and_programs(typed: Typed) -> None:
    """`export` sets them in this prompt alone, `unset` removes them."""
    assert typed.run("export MINE='a b' OTHER=; !test \"$MINE\" = 'a b' && test -z \"$OTHER\"") == 0
    assert typed.run("exec box --env MISSING -- true") == 125
    assert "export MISSING=… sets it" in typed.err.getvalue()
    assert typed.run('unset MINE; !test -z "$MINE"') == 0


@pytest.mark.parametrize("name", ["cd", "clear", "exit", "export", "history", "quit", "unset"])
def test_each_has_its_help(typed: Typed, name: str) -> None:
    """`help NAME`, `? NAME` and `NAME --help` say what it takes."""
    assert typed.run(f"help {name}; ? {name}; {name} --help") == 0
    first, second, third = typed.out.getvalue().splitlines()
    assert first == second == third
    assert first.startswith(name)


def test_a_program_of_this_machine_is_pointed_at(typed: Typed, tmp_path: Path) -> None:
    """A word that is a program, and no command, says how to run it; what is no program says nothing of the sort."""
    program = tmp_path / "frobnicate"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    typed.session.env["PATH"] = str(tmp_path)
    assert typed.run("frobnicate --all 'two words'") == 2
    assert "!frobnicate --all 'two words' runs it in your shell" in typed.err.getvalue()
    assert typed.run("frobnicates") == 2
    assert "!frobnicates" not in typed.err.getvalue()
    program.rename(tmp_path / "git")
    assert typed.run("git status") == 2
    assert "did you mean" not in typed.err.getvalue().splitlines()[-1], "`config get` is near, and not meant"


def test_the_prompts_own_sentences_need_no_word_irons(typed: Typed) -> None:
    """What an empty answer advises can be typed as it stands."""
    from irons.testing import EXTENSIONS, FakeApi

    with FakeApi(extensions=EXTENSIONS) as api:
        typed.session.env["IRONS_API_URL"] = api.url
        assert typed.run("list -o table") == 0
    said = typed.out.getvalue() + typed.err.getvalue()
    assert "create NAME makes one" in said
    assert "irons create" not in said
