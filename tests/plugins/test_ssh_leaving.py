"""A session on a terminal: it stops, goes on and ends as OpenSSH alone would, and one line is left of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from irons.testing import EXTENSIONS, FakeApi
from irons_plugins.ssh.ending.leaving import told
from irons_plugins.ssh.openssh.attached import run_attached

from .conftest import Irons, until
from .remote_processes import running, seconds

pytestmark = pytest.mark.process

ATTACHED = (
    "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); from irons_plugins.ssh.openssh.attached import run_attached; "
    "sys.exit(run_attached(tuple(sys.argv[1:]), os.environ))"
)


@contextmanager
def attached(script: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a shell script by `run_attached` in a process group of its own."""
    words = [sys.executable, "-c", ATTACHED, "sh", "-c", script]
    with subprocess.Popen(words, process_group=0, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_line() -> None:
    """Durations are rounded down, numbers have their thousands, and only refusals name a command."""
    assert told("alpha", 725, 214, 3) == "12 min, 214 connections, 3 denied: irons audit why alpha"
    assert told("alpha", 59.9, 1, 0) == "59 s, 1 connection"
    assert told("alpha", 7300, 12_345, 1) == "2 h 1 min, 12,345 connections, 1 denied: irons audit why alpha"
    assert told("alpha", 60, -5, 0) == told("alpha", 60, 5, -1) == ""


def on_terminal(into: Irons, *words: str, typed: bytes = b"") -> tuple[int, str]:
    """Run irons on a terminal of its own; return its exit code and all that was shown."""
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen(
            into.argv(*words),
            env=dict(into.env),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        into.started.append(process)
        os.close(theirs)
        os.write(ours, typed)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:
                return process.wait(60), shown.decode(errors="replace")
    finally:
        os.close(ours)


@pytest.mark.needs("root")
def test_leaving_a_shell_says_what_it_tried(into: Irons, fake_api: FakeApi) -> None:
    """After a shell the last line counts what the sandbox tried; a short command, a pipe and a lost connection have none."""
    fake_api.extensions = EXTENSIONS
    into.patient = tuple(f"irons_plugins.ssh.ending.leaving.{name}" for name in ("PATIENCE", "SHORT"))
    fake_api.record("evil.example\x1b[31m", allowed=False, verdict="blocked", count=3)
    code, shown = on_terminal(into, "ssh", "one", typed=b"exit 7\n")
    assert code == 7
    assert re.search(r" (s|min), 0 connections$", shown.rstrip().splitlines()[-1])
    assert "closed" not in shown, "what OpenSSH says of the same"
    code, shown = on_terminal(into, "ssh", "one", "--", "echo short")
    assert (code, shown.splitlines()[0]) == (0, "short")
    assert "connections" not in shown
    assert into("ssh", "one", stdin=b"exit 7\n").stderr == b""
    fake_api.ssh = {**fake_api.ssh, "port": 1}
    code, shown = on_terminal(into, "ssh", "one")
    assert code == 255
    assert "connections" not in shown


@pytest.mark.needs("root")
def test_a_server_that_cannot_count_leaves_no_line(into: Irons) -> None:
    """At a plain v0 server irons becomes OpenSSH, as ever."""
    code, shown = on_terminal(into, "ssh", "one", typed=b"exit 7\n")
    assert code == 7
    assert "connection" not in shown


def test_a_stopped_session_stops_the_job() -> None:
    """Where OpenSSH stops itself (`~^Z`) irons stops too, so that the shell is back; it goes on with it."""
    with attached("kill -STOP $$; exit 3") as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(60) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_session(number: int) -> None:
    """TERM and HUP are OpenSSH's to handle."""
    with attached(f"trap 'exit 9' {number}; echo here; while :; do sleep 0.05; done") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(number)
        assert process.wait(60) == 9


def test_a_signal_while_the_session_starts_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes when the program runs and `Popen` has not returned yet."""

    class Late(subprocess.Popen[bytes]):
        """Returns after a signal has come."""

        def __init__(self, *words: Any, **more: Any) -> None:
            super().__init__(*words, **more)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Late)
    script = "trap 'exit 9' TERM; for _ in 1 2 3 4 5 6 7 8 9; do sleep 1; done"
    assert run_attached(("sh", "-c", script), os.environ) in (9, 143)


def test_a_killed_irons_leaves_no_session() -> None:
    """KILL of irons ends OpenSSH too."""
    nap = seconds()
    with attached(f"echo here; exec sleep {nap}") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.kill()
        until(lambda: not running(nap))
