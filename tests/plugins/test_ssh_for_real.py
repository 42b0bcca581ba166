"""ssh, exec, scp and forward with OpenSSH's own client and server."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import IO
from urllib.request import urlopen

import pytest

from irons.testing import EXTENSIONS, FakeApi, Runner
from tests.background import JOBS

from .conftest import Irons, Sshd, until

SECRET = 'it\'s\n a "b" \\ $x `id` ü\n'


def seconds() -> str:
    """Return how long a `sleep` takes that no other test has, nor another run of this one: its processes are found by it."""
    return str(1_000_000 + secrets.randbelow(10**9))


def running(token: str) -> list[str]:
    """Return the processes whose command line has a token."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if token.encode() in words:
            found.append(path.parent.name)
    return found


# ssh


def test_ssh_runs_a_line(into: Irons) -> None:
    """`ssh NAME -- LINE` gives the line to the shell there, with its streams and its exit code."""
    done = into("ssh", "one", "--", "cat; echo $((1+1)) >&2; exit 3", stdin=b"hello")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"hello", b"2\n")


def test_the_printed_command_runs_as_it_is(into: Irons) -> None:
    """What `--command` prints runs in a shell by `$(...)` and by eval, and gets there."""
    printed = into("ssh", "one", "--command").stdout.decode()
    for line in (f"$(printf %s {shlex.quote(printed)}) echo there", f"{printed.strip()} echo there"):
        done = subprocess.run(["sh", "-c", line], env=dict(into.env), capture_output=True, check=True)
        assert done.stdout == b"there\n"


@pytest.mark.parametrize("right", [True, False])
def test_a_host_key_that_a_full_disk_cannot_keep_is_checked(
    run_irons: Runner,
    fake_api: FakeApi,
    sshd: Sshd,
    tmp_path: Path,
    right: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where known_hosts cannot be written for lack of room, OpenSSH gets the keys another way, and refuses others."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")]
    subprocess.run(words, check=True)
    other = (tmp_path / "other.pub").read_text().strip()
    fake_api.add("one")
    fake_api.ssh = sshd.address(host_keys=[other, sshd.host_key] if right else [other])

    def full(path: Path, _text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("irons_plugins.ssh.connect.known_hosts.write_whole", full)
    printed = run_irons("ssh", "one", "--command").ok().out
    line = f"{printed.strip()} -i {sshd.identity} echo there"
    done = subprocess.run(["sh", "-c", f"eval {shlex.quote(line)}"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == ((0, b"there\n") if right else (255, b""))


def test_a_wrong_host_key_is_refused(into: Irons, fake_api: FakeApi, sshd: Sshd, tmp_path: Path) -> None:
    """Where the host key is another than the server sent, nothing is sent there."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    fake_api.ssh = sshd.address(host_keys=[(tmp_path / "other.pub").read_text().strip()])
    done = into("ssh", "one", "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 255
    assert b"Host key verification failed" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_an_untold_host_key_is_unchecked_and_unsaid(into: Irons, fake_api: FakeApi, sshd: Sshd) -> None:
    """Without a host key of the server it connects as ever, without a warning; --strict-hostkeys refuses what no one knows."""
    fake_api.ssh = sshd.address()
    done = into("ssh", "one", "--", "echo there")
    assert (done.stdout, done.stderr) == (b"there\n", b"")
    assert into("ssh", "one", "--strict-hostkeys", "--", "echo there").returncode == 255


def test_no_variable_and_no_agent_travels(into: Irons) -> None:
    """The server accepts every variable and the agent; none is sent."""
    agent = {"SSH_AUTH_SOCK": "/tmp/agent.sock", "LC_SECRET": "x", "LANG": "C.UTF-8"}
    done = into("ssh", "one", "--", "env", env=agent)
    assert b"SECRET" not in done.stdout
    assert b"SSH_AUTH_SOCK" not in done.stdout


def test_what_was_refused_on_request(into: Irons, fake_api: FakeApi) -> None:
    """With `--refused`, stderr ends with what egress refused while it ran, and the exit code is still ssh's."""
    fake_api.extensions = EXTENSIONS
    fifo = Path(into.env["HOME"]) / "go"
    os.mkfifo(fifo)
    process = into.start("ssh", "one", "--refused", "--", f"echo started; read -r line <{fifo}; exit 4")
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    fake_api.record("evil.example", allowed=False, verdict="blocked")
    fifo.write_text("go\n")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 4
    assert said.decode().splitlines()[1] == "  evil.example:443"


# exec


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


@pytest.mark.parametrize(("number", "more"), [(6, []), (9, ["--timeout", "20"]), (34, [])])
def test_a_program_killed_by_a_signal(into: Irons, number: int, more: list[str]) -> None:
    """A program killed by a signal gives 128 and the signal's number, and one sentence that names it."""
    done = into("exec", "one", *more, "--", "sh", "-c", f"kill -{number} $$")
    name = {34: "RTMIN"}.get(number) or signal.Signals(number).name.removeprefix("SIG")
    assert done.returncode == 128 + number
    assert done.stderr.decode() == f"irons: killed by signal {number} ({name})\n"


@pytest.mark.parametrize("number", [2, 13])
def test_a_signal_that_a_shell_does_not_report(into: Irons, number: int) -> None:
    """Where the shell there does not report a signal, the sentence says no more than is known."""
    done = into("exec", "one", "--", "sh", "-c", f"kill -{number} $$")
    assert done.returncode == 128 + number
    assert re.fullmatch(
        rf"irons: exit code {128 + number}: killed by signal {number} \(\w+\), or the program's own code\n",
        done.stderr.decode(),
    )


@pytest.mark.parametrize("code", [137, 254])
def test_a_code_that_looks_like_a_signal(into: Irons, code: int) -> None:
    """A program that exits with such a code by itself was killed by nothing, and nothing is reported."""
    done = into("exec", "one", "--", "sh", "-c", f"exit {code}")
    assert (done.returncode, done.stderr) == (code, b"")


def test_a_program_that_kills_the_shell_around_it(into: Irons) -> None:
    """That is what is reported, and nothing of the output; the program is ended, since no one waits for it any more."""
    token = seconds()
    done = into("exec", "one", "--", "sh", "-c", f"kill -TERM $PPID; exec sleep {token}")
    assert not running(token)
    assert done.returncode == 125
    assert done.stderr == b"irons: the shell that ran the program in one was killed\n"


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


def _fifo(into: Irons) -> Path:
    fifo = Path(into.env["HOME"]) / "go"
    os.mkfifo(fifo)
    return fifo


@pytest.mark.parametrize(
    ("script", "code", "sentence"),
    [
        ("kill -9 $$", 137, "out of memory: the sandbox's limit is 512 MiB"),
        ("exit 3", 3, "a process was ended, out of memory: the sandbox's limit is 512 MiB"),
        ("exit 0", 0, ""),
    ],
)
def test_a_program_that_takes_too_much_memory(
    into: Irons, fake_api: FakeApi, script: str, code: int, sentence: str
) -> None:
    """Where the control group counted a kill while it ran, that is the reason, with the limit."""
    fake_api.ssh |= {"oom_kills": 1, "memory": 512 << 20}
    fifo = _fifo(into)
    process = into.start("exec", "one", "--", "sh", "-c", f"echo started; read -r line <{fifo}; {script}")
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    fake_api.ssh["oom_kills"] = 2
    fifo.write_text("go\n")
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said.decode() == (f"irons: {sentence}\n" if sentence else "")


def test_exec_of_nothing_there(into: Irons) -> None:
    """A program that is not there is 127, as in a shell, and one that is not executable 126; irons says so in its own words."""
    for more in ([], ["--timeout", "20"]):
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


@pytest.mark.parametrize("more", [[], ["--timeout", "20"]])
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


def test_a_timeout_ends_all_that_was_started(into: Irons) -> None:
    """On timeout everything that the program started is ended, daemons that left its session included; the code is 124."""
    nap = seconds()
    script = f"setsid -f sleep {nap}; (trap '' TERM; sleep {nap}) & exec sleep {nap}"
    done = into("exec", "one", "--timeout", "0.5", "--", "sh", "-c", script)
    assert done.returncode == 124
    assert done.stderr.decode() == "irons: timed out after 0.5 s: all that it started was ended\n"
    assert running(nap) == []


def test_a_timeout_that_is_not_reached(into: Irons) -> None:
    """A program that ends in time leaves no watcher behind."""
    limit = seconds()
    done = into("exec", "one", "--timeout", limit, "--", "echo", "done")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")
    until(lambda: not running(f"{limit}.000"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("way", JOBS)
def test_an_interrupted_exec_leaves_nothing(into: Irons, fake_api: FakeApi, number: int, way: str) -> None:
    """Ctrl-C, TERM and HUP end the call with 130, 143 and 129, and what it started; what was refused is reported there too."""
    fake_api.extensions = EXTENSIONS
    nap = seconds()
    process = into.start("exec", "one", "--", "sh", "-c", f"setsid -f sleep {nap}; sleep {nap}", way=way)
    until(lambda: len(running(nap)) == 2)
    fake_api.record("evil.example", allowed=False, verdict="blocked")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"evil.example:443" in said
    # On a busy machine the time for it may not do, and is not reported as done; the sandbox's part ends it then.
    if b"could not be reached" not in said:
        assert running(nap) == []
    until(lambda: not running(nap))


def test_nohup_is_meant(into: Irons) -> None:
    """A call that began with HUP ignored, as by nohup, goes on after it."""
    fifo = _fifo(into)
    words = into.argv("exec", "one", "--", "sh", "-c", f"echo started; read -r line <{fifo}; exit 5")
    argv = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *words]
    with subprocess.Popen(argv, env=dict(into.env), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.send_signal(signal.SIGHUP)
        fifo.write_text("go\n")
        assert process.wait(60) == 5


@pytest.mark.parametrize(("stdin", "more"), [("-n", []), ("full", ["--timeout", "20m"])])
def test_a_killed_exec_leaves_nothing(into: Irons, tmp_path: Path, more: list[str], stdin: str) -> None:
    """KILL ends the call without a chance to tidy up: what it ran ends all the same, and no temporary file is left."""
    nap = seconds()
    place = tmp_path / "temporary"
    place.mkdir()
    script = f"setsid -f sleep {nap}; trap '' TERM; sleep {nap}"
    flags = ["-n"] if stdin == "-n" else []
    with subprocess.Popen(
        into.argv("exec", "one", *flags, *more, "--", "sh", "-c", script),
        env={**into.env, "TMPDIR": str(place)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        until(lambda: len(running(nap)) == 2)
        if stdin == "full":
            until(lambda: _is_full(process.stdin))
        process.kill()
        process.stdin.close()
        process.wait(60)
        until(lambda: not running(nap))
        # The pipe has an end: nothing of the call holds it.
        assert process.stdout is not None
        assert process.stdout.read() == b""
    assert list(place.iterdir()) == []


def _is_full(pipe: IO[bytes] | None) -> bool:
    """Fill a pipe; true once nothing goes in any more, where no one reads at the other end."""
    assert pipe is not None
    try:
        for _ in range(64):
            os.write(pipe.fileno(), bytes(65536))
    except BlockingIOError:
        return True
    return False


def test_a_connection_that_fails_is_irons_failure(into: Irons, fake_api: FakeApi, sshd: Sshd) -> None:
    """Where OpenSSH can't get there the code is 125, and its words are on one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        fake_api.ssh = {**sshd.address(), "port": taken.getsockname()[1]}
    done = into("exec", "one", "--", "true")
    assert done.returncode == 125
    assert b"Connection refused" in done.stderr


def kill_the_server(nap: str) -> str:
    """Return the lines of a program that kills the SSH server's process above it, and sleeps so long."""
    return f"""
at=$PPID
while read -r _ name _ parent _ </proc/$at/stat; do
  case $name in "(sshd"*) kill -9 "$at"; exec sleep {nap} ;; esac
  at=$parent
done"""


@pytest.mark.parametrize(
    ("then", "sentence"),
    [
        ("", "the connection to one was lost"),
        ("stopped", "the connection to one was lost: one is stopped"),
        ("gone", "the connection to one was lost: one was destroyed"),
    ],
)
def test_a_connection_that_is_lost_is_irons_failure(
    into: Irons, fake_api: FakeApi, then: str, sentence: str
) -> None:
    """Where the connection breaks off the code is 125, the sentence says why, and what was refused is reported as ever."""
    fake_api.extensions = EXTENSIONS
    fifo, nap = _fifo(into), seconds()
    script = f"echo started; read -r line <{fifo}{kill_the_server(nap)}"
    process = into.start("exec", "one", "--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    if then == "stopped":
        fake_api.sandboxes["one"].status = "stopped"
    elif then == "gone":
        del fake_api.sandboxes["one"]
    else:
        fake_api.record("evil.example", allowed=False, verdict="blocked")
    fifo.write_text("go\n")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 125
    lines = said.decode().splitlines()
    assert lines[-1] == f"irons: {sentence}"
    if not then:
        assert lines[1] == "  evil.example:443"
    until(lambda: not running(nap))


def test_a_shell_that_is_killed(into: Irons) -> None:
    """Where the shell that waits for the program is killed, that is irons' failure, and the program is ended."""
    nap = seconds()
    script = f"read -r _ _ _ shell _ </proc/$PPID/stat; kill -9 $shell; exec sleep {nap}"
    done = into("exec", "one", "--", "sh", "-c", script)
    assert done.returncode == 125
    assert done.stderr.decode() == "irons: the shell that ran the program in one was killed\n"
    until(lambda: not running(nap))


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
    fake_api.record("would.example", verdict="warn")
    fake_api.record("\x1b[31m", allowed=False, verdict="blocked", port=22, count=40)
    fifo.write_text("go\n")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 7
    assert said.decode().splitlines() == [
        "egress denied 46 connections while it ran:",
        "  again.example:443 (3 times)",
        "  evil.example:443 (3 times): no rule allows evil.example",
        r"  \x1b[31m:22 (40 times)",
        "irons audit why one shows more",
    ]


# scp and forward


def test_scp_both_ways(into: Irons, tmp_path: Path) -> None:
    """Files and directories go in and come out."""
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "sub").mkdir(parents=True)
    (here / "sub" / "a: b").write_text("text")
    assert into("scp", "-r", str(here), f"one:{there}").returncode == 0
    assert (there / "sub" / "a: b").read_text() == "text"
    assert into("scp", f"one:{there}/sub/a: b", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_text() == "text"


def test_scp_of_nothing(into: Irons, tmp_path: Path) -> None:
    """A file that is not there is scp's own failure, with its code."""
    done = into("cp", f"one:{tmp_path}/nothing", str(tmp_path))
    assert done.returncode == 1
    assert b"No such file" in done.stderr


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Keep quiet."""


@pytest.mark.parametrize("way", JOBS)
def test_forward_leads_there(into: Irons, way: str) -> None:
    """`forward` opens a port of the loopback address that leads to the sandbox's, and says so once it does, until interrupted."""
    with HTTPServer(("127.0.0.1", 0), _Hello) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        port, there = _free_port(), server.server_address[1]
        process = into.start("forward", "one", f"{port}:{there}", way=way)
        try:
            assert process.stderr is not None
            assert process.stderr.readline().decode() == f"127.0.0.1:{port} leads to port {there} of one\n"
            with urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                assert answer.read() == b"hello"
        finally:
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=60)
            server.shutdown()
    assert (process.returncode, out) == (130, b"")
    assert said.endswith(b"irons: interrupted\n")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@pytest.mark.parametrize("way", JOBS)
def test_ctrl_c_ends_ssh(into: Irons, way: str) -> None:
    """`ssh`, which runs in the place of irons, ends on SIGINT also where that was ignored when irons began."""
    process = into.start("ssh", "one", "--", "echo here; exec sleep 1000", way=way)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    _interrupt(process)
    assert process.returncode in (130, 255, -signal.SIGINT)


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """Send SIGINT until OpenSSH ends: it may miss one that comes just before it waits for its connections."""

    def ended() -> bool:
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    until(ended)
    process.communicate(timeout=60)


def test_forward_of_a_taken_port(into: Irons) -> None:
    """Where a port is taken it ends at once with 125 and one line, and none is announced."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = into("forward", "one", str(_free_port()), str(port))
    assert done.returncode == 125
    assert done.stderr.decode() == f"irons: 127.0.0.1:{port} can't be listened on: it is in use\n"


def test_forward_that_is_lost(into: Irons, fake_api: FakeApi) -> None:
    """Where the sandbox goes away under it, that is reported, with 125."""
    process = into.start("forward", "one", str(_free_port()))
    assert process.stderr is not None
    assert b"leads to" in process.stderr.readline()
    fake_api.sandboxes["one"].status = "stopped"
    for session in _sessions_of(process.pid):
        os.kill(session, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 125
    assert said.decode().splitlines()[-1] == "irons: the connection to one was lost: one is stopped"


def _sessions_of(pid: int) -> list[int]:
    """Return the ssh processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.needs("root")
def test_a_person_gets_a_terminal(into: Irons) -> None:
    """On a terminal, ssh has one at the other end too; the exit code is the remote command's."""
    import pty

    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            into.argv("ssh", "one", "--", "tty && exit 5"),
            env=dict(into.env),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        shown = b""
        while b"/dev/pts/" not in shown:
            shown += os.read(ours, 1024)
        assert process.wait(60) == 5
    finally:
        os.close(ours)
