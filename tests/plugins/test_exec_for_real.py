"""exec with OpenSSH's own client and server: words, variables, streams, exit codes, and what is told of refusals."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from irons.testing import EXTENSIONS, FakeApi

from .conftest import Irons

SECRET = 'it\'s\n a "b" \\ $x `id` ü\n'


def test_exec_keeps_words_apart(into: Irons) -> None:
    """Words reach the program as they are, no matter what a shell would make of them."""
    words = ["a  b", "$HOME", "*", "it's", 'say "hi"', "", "--", "-n", "ü\n", "\\"]
    done = into("exec", "one", "--", "printf", "<%s>", *words)
    assert done.stdout.decode() == "".join(f"<{word}>" for word in words)


@pytest.mark.parametrize("code", [0, 1, 124, 125, 126, 200, 255])
def test_exec_exits_with_the_programs_code(into: Irons, code: int) -> None:
    """The exit code is the program's own, 255 included."""
    done = into("exec", "one", "--", "sh", "-c", f"exit {code}")
    assert (done.returncode, done.stderr) == (code, b"")


@pytest.mark.parametrize(
    ("words", "code"),
    [(("sh", "-c", "trap '' PIPE; while echo x; do :; done; exit 7"), 7), (("yes", "x"), 141)],
)
def test_a_program_whose_output_nobody_reads_any_more(into: Irons, words: tuple[str, ...], code: int) -> None:
    """Its exit code is its own, as after `| head -1`; nothing is reported to have been killed."""
    process = into.start("exec", "one", "--", *words)
    assert process.stdout is not None
    assert process.stdout.readline() == b"x\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(60) == code


@pytest.mark.parametrize("script", ["echo x", "echo x; sleep 1; echo y"])
def test_a_program_whose_output_finds_no_room(into: Irons, script: str) -> None:
    """Output that cannot be written is a failure, also of a program that succeeded, and the reason is reported."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            into.argv("exec", "one", "--", "sh", "-c", script),
            env=dict(into.env),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 125
    assert re.fullmatch(
        r"irons: what the program wrote can't be written to stdout \(No space left on device\); it ended with code \d+\n",
        done.stderr.decode(),
    )


def test_output_goes_to_a_file(into: Irons, tmp_path: Path) -> None:
    """All of it, after what is there, byte for byte."""
    path = tmp_path / "out"
    with path.open("wb") as file:
        file.write(b"before ")
        file.flush()
        argv = into.argv("exec", "one", "--", "sh", "-c", "head -c 1000000 /dev/zero; printf '\\377'; exit 3")
        done = subprocess.run(argv, env=dict(into.env), stdout=file, timeout=60, check=False)
    assert done.returncode == 3
    assert path.read_bytes() == b"before " + bytes(1_000_000) + b"\xff"


def test_exec_of_nothing_there(into: Irons) -> None:
    """A program that is not there is 127, as in a shell, and one that is not executable 126; irons says so in its own words."""
    for more in ([], ["--timeout", "1h"]):
        done = into("exec", "one", *more, "--", "no-such-program")
        assert done.returncode == 127
        assert done.stderr == b"irons: there is no program no-such-program in the sandbox\n"
        done = into("exec", "one", *more, "--", "/etc/passwd", "x")
        assert done.returncode == 126
        assert done.stderr == b"irons: /etc/passwd cannot be run in the sandbox: permission denied\n"


def test_words_beyond_one_argument(into: Irons) -> None:
    """Words travel up to the system's own limits: more of them than the kernel takes in one argument, and each byte as it is."""
    words = ["it's", "a\nb", "ü", "", *("x" * 99 for _ in range(3000)), "y" * 120_000]
    script = 'printf "%s|" "$#" "$1" "$2" "$3" "$4"; for last; do :; done; printf %s "$last" | wc -c; cat'
    done = into("exec", "one", "--", "sh", "-c", script, "sh", *words, stdin=b"the rest")
    assert done.stdout.decode() == "3005|it's|a\nb|ü||120000\nthe rest"


def test_words_of_quotes(into: Irons) -> None:
    """What is many times as long in a shell's quotes arrives all the same."""
    done = into("exec", "one", "--", "sh", "-c", 'printf %s "$1$2" | wc -c', "sh", "'" * 50_000, "' " * 4000)
    assert done.stdout.strip() == b"58000"


def test_what_no_argument_list_holds_is_irons_failure(into: Irons) -> None:
    """A program that the kernel refuses to start there has the shell's own code, with its reason."""
    script = "a=$(printf %0131072d 0); exec true $a"
    done = into("exec", "one", "--", "sh", "-c", script)
    assert done.returncode in (2, 126)
    assert b"Argument list too long" in done.stderr


def test_no_stdin_leaves_the_list_of_a_loop(into: Irons) -> None:
    """With `-n` the program's stdin is empty, and a loop that reads a list goes through all of it; --no-input does not imply it."""
    irons = shlex.join(into.argv("exec", "one", "--no-input"))
    for more, rounds in (("-n", "a b c"), ("", "a")):
        loop = f"while read -r x; do {irons} {more} -- sh -c 'cat >/dev/null; echo \"$0\"' $x; done"
        done = subprocess.run(
            ["sh", "-c", loop], input=b"a\nb\nc\n", env=dict(into.env), capture_output=True, check=True
        )
        assert done.stdout.decode().split() == rounds.split()


def test_exec_writes_nothing_of_its_own_to_stdout(into: Irons) -> None:
    """No matter what format is set for all commands, stdout is the program's alone; only an option of the call asks for a report."""
    done = into("exec", "one", "--", "echo", "{}", env={"IRONS_OUTPUT": "json"})
    assert (done.returncode, done.stdout) == (0, b"{}\n")


def test_exec_has_no_terminal(into: Irons) -> None:
    """No PTY is made."""
    assert into("exec", "one", "--", "tty").stdout == b"not a tty\n"


def test_streams_pass_through(into: Irons) -> None:
    """stdin, stdout and stderr are the program's, byte for byte."""
    data = bytes(range(256)) * 400
    done = into("exec", "one", "--", "sh", "-c", "cat; echo told >&2", stdin=data)
    assert done.stdout == data
    assert done.stderr == b"told\n"


@pytest.mark.parametrize("more", [[], ["--timeout", "1h"]])
def test_variables_travel_on_stdin(into: Irons, more: list[str], tmp_path: Path) -> None:
    """`--env` sets variables there; their values are in no one's argument list, and stdin after them is untouched."""
    seen = tmp_path / "seen"
    script = f'cat /proc/[0-9]*/cmdline >{seen} 2>/dev/null; printf %s "$TOKEN"; cat'
    done = into(
        *("exec", "one", "--env", "TOKEN", "--env", "EMPTY", *more, "--", "sh", "-c", script),
        stdin=b"the rest",
        env={"TOKEN": SECRET, "EMPTY": ""},
    )
    assert done.stdout.decode() == SECRET + "the rest"
    assert SECRET.encode() not in seen.read_bytes()
    assert b"irons-exec" in seen.read_bytes()


def test_a_large_variable(into: Irons) -> None:
    """A variable of many kilobytes arrives whole."""
    done = into(
        "exec", "one", "--env", "BIG", "--", "sh", "-c", 'printf %s "$BIG" | wc -c', env={"BIG": "x" * 60_000}
    )
    assert done.stdout.strip() == b"60000"


def test_the_working_directory(into: Irons, tmp_path: Path) -> None:
    """`--workdir` is where the program starts; one that is not there is irons' own failure."""
    place = tmp_path / "it's -here"
    place.mkdir()
    assert into("exec", "one", "--workdir", str(place), "--", "pwd").stdout.decode() == f"{place}\n"
    done = into("exec", "one", "--workdir", "/nowhere", "--", "pwd")
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"/nowhere" in done.stderr


def test_what_was_refused_is_said(into: Irons, fake_api: FakeApi) -> None:
    """At the end stderr says what egress refused while it ran: hosts, ports, counts, reasons, and where to look closer.

    What was refused before is left out, and its repeats are not.
    """
    fake_api.extensions = EXTENSIONS
    fake_api.record("before.example", allowed=False, verdict="blocked")
    again = fake_api.record("again.example", allowed=False, verdict="blocked", count=2)
    fifo = Path(into.env["HOME"]) / "go"
    os.mkfifo(fifo)
    process = into.start("exec", "one", "--", "sh", "-c", f"echo started; read -r line <{fifo}; exit 7")
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    for _ in range(3):
        fake_api.record(
            "evil.example", allowed=False, verdict="blocked", reason="no rule allows evil.example"
        )
    with fake_api.lock:
        again["count"] = 5
    fake_api.record("fine.example", verdict="allowed")
    fake_api.record(
        "asked.example",
        allowed=False,
        verdict="blocked",
        protocol="ask",
        cause="asked",
        reason="asked by the agent",
    )
    fake_api.record("would.example", verdict="warn")
    fake_api.record("\x1b[31m", allowed=False, verdict="blocked", port=22, count=40)
    fifo.write_text("go\n")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 7
    assert said.decode().splitlines() == [
        "egress denied 46 connections while it ran:",
        "  again.example:443 (3 times)",
        "  evil.example:443 (3 times): no rule allows evil.example",
        r"  \x1b[31m:22 (40 times)",
        "the agent made 1 request for a person while it ran:",
        "  asked.example:443: asked by the agent",
        "irons audit why one shows more",
    ]
