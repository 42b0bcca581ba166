"""ssh, exec, scp and forward with OpenSSH's own client and server."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest

from irons.testing import EXTENSIONS, FakeApi, Runner
from tests.background import JOBS

from .conftest import Irons, Sshd, until

SECRET = 'it\'s\n a "b" \\ $x `id` ü\n'


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

    monkeypatch.setattr("irons_plugins.ssh.known_hosts.write_whole", full)
    printed = run_irons("ssh", "one", "--command").ok().out
    line = f"{printed.strip()} -i {sshd.identity} echo there"
    done = subprocess.run(["sh", "-c", f"eval {shlex.quote(line)}"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == ((0, b"there\n") if right else (255, b""))


def test_a_wrong_host_key_is_refused(into: Irons, fake_api: FakeApi, sshd: Sshd, tmp_path: Path) -> None:
    """Where the host key is another than the server told, nothing is sent there."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    fake_api.ssh = sshd.address(host_keys=[(tmp_path / "other.pub").read_text().strip()])
    done = into("ssh", "one", "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 255
    assert b"Host key verification failed" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_an_untold_host_key_is_unchecked_and_unsaid(into: Irons, fake_api: FakeApi, sshd: Sshd) -> None:
    """Without a told host key it connects as ever, without a warning; --strict-hostkeys refuses what nobody knows."""
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
    """With `--refused`, stderr ends with what egress refused meanwhile, and the exit code is still ssh's."""
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
    """Words reach the program as they are, whatever a shell would make of them."""
    words = ["a  b", "$HOME", "*", "it's", 'say "hi"', "", "--", "-n", "ü\n", "\\"]
    done = into("exec", "one", "--", "printf", "<%s>", *words)
    assert done.stdout.decode() == "".join(f"<{word}>" for word in words)


@pytest.mark.parametrize("code", [0, 1, 124, 125, 126, 200, 255])
def test_exec_exits_with_the_programs_code(into: Irons, code: int) -> None:
    """The exit code is the program's own, 255 included."""
    done = into("exec", "one", "--", "sh", "-c", f"exit {code}")
    assert (done.returncode, done.stderr) == (code, b"")


def test_a_program_killed_by_a_signal(into: Irons) -> None:
    """A program killed by a signal gives 128 and the signal's number, as in a shell."""
    assert into("exec", "one", "--timeout", "20", "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_exec_of_nothing_there(into: Irons) -> None:
    """A program that is not there is 127, as in a shell."""
    for more in ([], ["--timeout", "20"]):
        done = into("exec", "one", *more, "--", "no-such-program")
        assert done.returncode == 127
        assert b"not found" in done.stderr


def test_exec_writes_nothing_of_its_own_to_stdout(into: Irons) -> None:
    """Whatever format is asked for, stdout is the program's alone."""
    done = into("exec", "one", "-o", "json", "--", "echo", "{}", env={"IRONS_OUTPUT": "json"})
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
    """`--env` sets variables there; their values are in nobody's argument list, and stdin behind them is untouched."""
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
    nap = "86123.5"
    script = f"setsid -f sleep {nap}; (trap '' TERM; sleep {nap}) & exec sleep {nap}"
    done = into("exec", "one", "--timeout", "0.5", "--", "sh", "-c", script)
    assert done.returncode == 124
    assert done.stderr.decode() == "irons: time is up after 0.5 s: all that it started was ended\n"
    assert running(nap) == []


def test_a_timeout_that_is_not_reached(into: Irons) -> None:
    """A program that ends in time leaves no watcher behind."""
    done = into("exec", "one", "--timeout", "86124", "--", "echo", "done")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")
    until(lambda: not running("86124.000"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("way", JOBS)
def test_an_interrupted_exec_leaves_nothing(into: Irons, number: int, way: str) -> None:
    """Ctrl-C, TERM and HUP end the call with 130, and what it started in the sandbox."""
    nap = f"8612{number}.25"
    process = into.start("exec", "one", "--", "sh", "-c", f"setsid -f sleep {nap}; sleep {nap}", way=way)
    until(lambda: len(running(nap)) == 2)
    process.send_signal(number)
    process.communicate(timeout=15)
    assert process.returncode == 130
    assert running(nap) == []


def test_a_connection_that_fails_is_irons_failure(into: Irons, fake_api: FakeApi, sshd: Sshd) -> None:
    """Where OpenSSH can't get there the code is 125, and its words are on one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        fake_api.ssh = {**sshd.address(), "port": taken.getsockname()[1]}
    done = into("exec", "one", "--", "true")
    assert done.returncode == 125
    assert b"Connection refused" in done.stderr


def test_a_connection_that_is_lost_is_irons_failure(into: Irons) -> None:
    """Where the connection breaks off in the middle the code is 125, and never the program's."""
    done = into("exec", "one", "--", "sh", "-c", "kill -9 $PPID; sleep 5")
    assert done.returncode == 125
    assert b"OpenSSH could not run it" in done.stderr


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
        "egress refused 46 connections while it ran:",
        "  again.example:443 (3 times)",
        "  evil.example:443 (3 times): no rule allows evil.example",
        r"  \x1b[31m:22 (40 times)",
        "irons audit why one tells more",
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
    """`forward` opens a port of the loopback address that leads to the sandbox's, until it is interrupted."""
    with HTTPServer(("127.0.0.1", 0), _Hello) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = into.start("forward", "one", f"{port}:{server.server_address[1]}", way=way)
        try:
            until(lambda: _connects(port))
            with urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                assert answer.read() == b"hello"
        finally:
            _interrupt(process)
            server.shutdown()
    assert process.returncode in (130, 255, -signal.SIGINT)


@pytest.mark.parametrize("way", JOBS)
def test_ctrl_c_ends_ssh(into: Irons, way: str) -> None:
    """`ssh`, which runs in the place of irons, ends on SIGINT also where that was ignored when irons began."""
    process = into.start("ssh", "one", "--", "echo here; exec sleep 86128.5", way=way)
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


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=20).close()
    except OSError:
        return False
    return True


def test_forward_of_a_taken_port(into: Irons) -> None:
    """A port that is taken ends it at once, as OpenSSH does."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = into("forward", "one", str(taken.getsockname()[1]))
    assert done.returncode == 255
    assert b"Address already in use" in done.stderr


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
