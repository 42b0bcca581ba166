"""`ssh --env` and `--workdir`, and `~` in the latter for exec too: what travels, by which way, and what begins there."""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.testing import FakeApi, Runner
from irons_plugins.ssh.connect.workdir import GO_TO, Workdir, workdir_of
from irons_plugins.ssh.execute.start_script import START
from irons_plugins.ssh.session import carried, send_options, session_line

from .conftest import Irons, Sshd

SHELLS = [
    pytest.param(words, marks=pytest.mark.needs(words[0]))
    for words in (["dash"], ["bash"], ["busybox", "sh"])
]
SECRET = 'it\'s\n a "b" \\ $x `id` ü\n'


# What is started


@pytest.mark.process
@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_a_program_that_does_not_start(shell: list[str], tmp_path: Path) -> None:
    """No matter what shell it is, no line of the script is in the reason; what starts keeps its streams and its variables."""
    (tmp_path / "there").write_text('#!/bin/sh\ncat; echo "$rest $name" >&2; exit 9\n')
    (tmp_path / "there").chmod(0o755)
    (tmp_path / "text").write_text("echo never\n")
    (tmp_path / "text").chmod(0o644)
    (tmp_path / "directory").mkdir()

    def started(*words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [*shell, "-c", f'{START}start "$@"', "irons-test", *words],
            cwd=tmp_path,
            env={"PATH": f"/nowhere:{tmp_path}:/usr/bin:/bin", "rest": "a:b", "name": "c"},
            input="in\n",
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    assert started("there") == started("./there", "x") == (9, "in\n", "a:b c\n")
    for name in ("gone", "./gone"):
        assert started(name) == (127, "", f"irons: there is no program {name} in the sandbox\n")
    for name in ("text", "./text", "./directory"):
        assert started(name)[:2] == (126, "")
        assert started(name)[2] == f"irons: {name} cannot be run in the sandbox: permission denied\n"


# The working directory


@pytest.mark.process
@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_a_tilde_is_the_home_directory_there(shell: list[str], tmp_path: Path) -> None:
    """`~`, `~/DIR` and `~USER` are home directories of the sandbox; all else is a path, none of it is shell text."""
    (tmp_path / "a b").mkdir()
    (tmp_path / "-x").mkdir()

    def place(*words: str) -> str:
        done = subprocess.run(
            [*shell, "-c", f'{GO_TO}start_in "$1" "$2"; pwd', "sh", *words],
            cwd=tmp_path,
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "CDPATH": "/usr"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            assert (done.returncode, done.stdout) == (125, "")
            assert done.stderr == f"irons: there is no directory {words[0]} in the sandbox\n"
        return done.stdout.rstrip("\n")

    assert place("~", "") == place("", "") == str(tmp_path)
    assert place("~/a b", "") == place("a b", "") == f"{tmp_path}/a b"
    assert place("-x", "") == f"{tmp_path}/-x"
    assert place("~root", "") == pwd.getpwnam("root").pw_dir
    assert place("/nowhere", "~/a b") == f"{tmp_path}/a b"
    for none in (
        "/nowhere",
        "~/nothing",
        "~nobody-of-that-name",
        "~$(touch pwned)",
        "~/$(touch pwned)",
        "lib",
    ):
        assert place(none, "") == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["-x", "a b"]


def test_what_a_shell_made_of_a_tilde_is_tried_below_the_home_there() -> None:
    """A path below the home directory here is also tried below the one there; no other path is."""
    env = {"HOME": "/home/me"}
    assert workdir_of("/home/me/work", env) == ("/home/me/work", "~/work")
    assert workdir_of("/home/me", env) == ("/home/me", "~")
    assert workdir_of("/home/meow", env) == ("/home/meow", "")
    assert workdir_of("~/app", env) == ("~/app", "")
    assert workdir_of("/srv", {"HOME": "/"}) == workdir_of("/srv", {}) == ("/srv", "")
    assert workdir_of(None, env) == ("", "")


def test_exec_starts_at_home(into: Irons, sshd: Sshd) -> None:
    """`exec --workdir '~'` is the home directory there, and so is what a shell here makes of `~`."""
    assert into("exec", "one", "--workdir", "~", "--", "pwd").stdout.decode() == f"{sshd.home}\n"
    other = into("exec", "one", "--workdir", f"{into.env['HOME']}/..//nothing", "--", "pwd")
    assert other.returncode == 125


# Variables


def test_a_session_has_its_variables_and_its_directory(into: Irons, tmp_path: Path) -> None:
    """Values arrive whole, under their own names alone, and stdin is the session's from its first byte."""
    variables = {"TOKEN": SECRET, "EMPTY": "", "BIG": "x" * 60_000}
    names = [word for name in variables for word in ("--env", name)]
    script = 'printf "%s|%s|%s|" "$TOKEN" "${EMPTY-unset}" "${#BIG}"; pwd; env | grep -c LC_IRONS; cat'
    done = into(
        *("ssh", "one", *names, "--workdir", str(tmp_path), "--", script), stdin=b"the rest", env=variables
    )
    assert done.stderr == b""
    assert done.stdout.decode() == f"{SECRET}||60000|{tmp_path}\n0\nthe rest"


def test_a_kept_connection_takes_no_variable_away(into: Irons) -> None:
    """After `exec`, which may leave a connection that sends no variables, a session has its own all the same."""
    assert into("exec", "one", "--", "true").returncode == 0
    done = into("ssh", "one", "--env", "TOKEN", "--", 'echo "$TOKEN"', env={"TOKEN": "x"})
    assert (done.returncode, done.stdout) == (0, b"x\n"), done.stderr


def test_words_keep_apart_and_a_shell_is_a_login_shell(into: Irons) -> None:
    """Several words are a program and its arguments, one is a line, none is the login shell."""
    env = {"TOKEN": "x"}
    words = ["a  b", "$HOME", "*", "it's", "", "-n"]
    done = into("ssh", "one", "--env", "TOKEN", "--", "printf", "<%s>", *words, env=env)
    assert done.stdout.decode() == "".join(f"<{word}>" for word in words)
    line = into("ssh", "one", "--workdir", "~", "--", "echo $((1+1)); exit 3")
    assert (line.returncode, line.stdout) == (3, b"2\n")
    shell = into("ssh", "one", "--env", "TOKEN", stdin=b'echo "$TOKEN"; ps -o args= -p $$; exit 4\n', env=env)
    assert shell.returncode == 4
    assert shell.stdout.split(b"\n")[0] == b"x"
    assert b" -l" in shell.stdout


def test_no_value_is_in_an_argument_list(into: Irons, tmp_path: Path) -> None:
    """Neither here nor there any process has the value among its words, while the session runs."""
    marker, seen = "marker-5b1f9d", tmp_path / "seen"
    script = f'cat /proc/[0-9]*/cmdline >{seen} 2>/dev/null; test -n "$TOKEN"'
    done = into("ssh", "one", "--env", "TOKEN", "--", script, env={"TOKEN": marker})
    assert done.returncode == 0, done.stderr
    assert b"LC_IRONS_TOKEN" in seen.read_bytes()
    assert marker.encode() not in seen.read_bytes()


def test_only_what_is_named_travels(run_irons: Runner, one: FakeApi) -> None:
    """The command line names the variables; their values are in OpenSSH's environment alone."""
    program = (
        run_irons("ssh", "one", "--env", "TOKEN", "--", "id", env={"TOKEN": "hush", "LC_X": "y"}).ok().program
    )
    assert program is not None
    assert program.env is not None
    assert program.env["LC_IRONS_TOKEN"] == "hush"
    assert [word for word in program.argv if "SendEnv" in word] == ["SendEnv=LC_IRONS_TOKEN"]
    assert "hush" not in " ".join(program.argv)
    plain = run_irons("ssh", "one", "--", "id").ok().program
    assert plain is not None
    assert "SendEnv" not in " ".join(plain.argv)


@pytest.mark.parametrize("command", ["ssh", "exec"])
def test_a_value_on_the_command_line_is_refused(run_irons: Runner, one: FakeApi, command: str) -> None:
    """KEY=VALUE is an error that says why and does not repeat the value; so is a name that is not set or not valid."""
    done = run_irons(command, "one", "--env", "TOKEN=hush", "--", "id")
    assert done.code == 125
    assert "argument list" in done.err
    assert "export TOKEN=…, then --env TOKEN" in done.err
    assert "hush" not in done.err
    assert run_irons(command, "one", "--env", "NOT_SET", "--", "id").code == 125
    assert run_irons(command, "one", "--env", "a;b", "--", "id").code == 125
    assert one.calls == []


def test_a_printed_command_has_no_variables(run_irons: Runner, one: FakeApi) -> None:
    """`--command` with `--env` is refused, as the line would hold the value; with `--workdir` it is printed."""
    done = run_irons("ssh", "one", "--command", "--env", "TOKEN", env={"TOKEN": "hush"})
    assert done.code == 125
    assert "hush" not in done.err
    printed = shlex.split(run_irons("ssh", "one", "--command", "--workdir", "~/app").ok().out)
    assert "-t" in printed
    assert printed[-1].startswith("exec sh -c ")


def test_the_servers_command_keeps_its_place(run_irons: Runner, one: FakeApi) -> None:
    """What a v0 server runs in place of a shell runs with the variables and in the directory."""
    one.ssh = {**one.ssh, "command": "tmux attach"}
    program = run_irons("ssh", "one", "--workdir", "/srv").ok().program
    assert program is not None
    assert shlex.split(program.argv[-1])[-3:] == ["line", "", "tmux attach"]


@pytest.mark.process
@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_a_server_that_takes_no_variables_is_named(shell: list[str]) -> None:
    """Where the SSH server dropped a variable the program is not run; stderr names the variable and the fix."""
    done = subprocess.run(
        [*shell, "-c", session_line(("echo", "ran"), "", ("TOKEN",), Workdir())],
        env={"PATH": os.environ["PATH"], "HOME": "/"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert "TOKEN" in done.stderr
    assert "AcceptEnv LC_*" in done.stderr


@pytest.mark.process
@given(value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
def test_any_value_arrives_as_it_is(value: str) -> None:
    """A value is data to the script, no matter what characters it has."""
    done = subprocess.run(
        ["sh", "-c", session_line(("printenv", "K"), "", ("K",), Workdir())],
        env={"PATH": os.environ["PATH"], "HOME": "/", **carried({"K": value})},
        capture_output=True,
        check=True,
    )
    assert done.stdout == f"{value}\n".encode()
    assert send_options(("K",)) == (("SendEnv", "LC_IRONS_K"),)
