"""ssh, scp and forward with OpenSSH's own client and server."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest

from irons.testing import EXTENSIONS, FakeApi, Runner
from tests.background import JOBS
from tests.ports import reserved_port

from .conftest import Irons, Sshd, until


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
    _, said = process.communicate(timeout=60)
    assert process.returncode == 4
    assert said.decode().splitlines()[1] == "  evil.example:443"


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


@pytest.fixture
def port() -> Iterator[int]:
    """A port that a forwarding can listen on."""
    with reserved_port() as free:
        yield free


@pytest.mark.parametrize("way", JOBS)
def test_forward_leads_there(into: Irons, port: int, way: str) -> None:
    """`forward` opens a port of the loopback address that leads to the sandbox's, and says so once it does, until interrupted."""
    with HTTPServer(("127.0.0.1", 0), _Hello) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        there = server.server_address[1]
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


def test_forward_of_a_taken_port(into: Irons, port: int) -> None:
    """Where a port is taken it ends at once with 125 and one line, and none is announced."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = taken.getsockname()[1]
        done = into("forward", "one", str(port), str(used))
    assert done.returncode == 125
    assert done.stderr.decode() == f"irons: 127.0.0.1:{used} can't be listened on: it is in use\n"


def test_forward_that_is_lost(into: Irons, fake_api: FakeApi, port: int) -> None:
    """Where the sandbox goes away under it, that is reported, with 125."""
    process = into.start("forward", "one", str(port))
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
