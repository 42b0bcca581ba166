"""Programs run as children, and what is printed of egress after them."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from irons.errors import IronsError, TimedOut
from irons.terminal.streams import Streams
from irons.testing import FakeApi, Runner, faults
from irons_plugins.ssh.ending.log import KEPT, SshLog
from irons_plugins.ssh.openssh.attached import run_attached
from irons_plugins.ssh.openssh.subprocess import _feed, run_piped

pytestmark = pytest.mark.process


def streams(stdin: str = "") -> Streams:
    """Streams that are no files, as the prompt and tests have them."""
    return Streams(io.StringIO(stdin), io.StringIO(), io.StringIO(), {"PATH": os.environ["PATH"]})


def test_streams_that_are_no_files_are_pumped() -> None:
    """Header and stdin reach the program, its stdout and stderr reach the streams."""
    with_text = streams("and the rest ü\n")
    code = run_piped(("sh", "-c", "cat; echo told >&2; exit 3"), with_text, header=b"header, ")
    assert code == 3
    assert with_text.stdout.getvalue() == "header, and the rest ü\n"  # type: ignore[attr-defined]
    assert with_text.stderr.getvalue() == "told\n"  # type: ignore[attr-defined]


def test_a_program_that_does_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that ends without reading its stdin is not a failure."""
    assert run_piped(("true",), streams("x" * 1_000_000), header=b"x" * 1_000_000) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("times", [[0.05], [1e6, 0.1]])
def test_time_runs_out(times: list[float]) -> None:
    """A program that does not end in time is killed, also where its time turns out to be shorter than was thought."""
    began = time.monotonic()
    left = list(times)
    # Neither the program nor the time that was thought of first ends while the test lasts.
    with pytest.raises(TimedOut):
        run_piped(
            ("sleep", "1000000"), streams(), deadline=lambda: began + (left.pop(0) if left[1:] else left[0])
        )


def test_a_log_without_end_takes_no_room() -> None:
    """However much a sandbox makes OpenSSH log, the end of it is kept, fit for a terminal, and it has no name on a disk."""
    with SshLog() as log, Path(log.path).open("wb", buffering=0) as said:
        said.writelines(b"Remote: \x1b]0;owned\x07 " + b"x" * 60_000 + b"\n" for _ in range(100))
        said.write(b"Host key verification failed.\r\n")
    assert not Path(log.path).exists()
    lines = log.lines()
    assert lines[-1] == "Host key verification failed."
    assert sum(map(len, lines)) <= KEPT
    assert "\x1b" not in "".join(lines)


def test_what_is_not_installed_is_said() -> None:
    """A program that is not there is an error that says how to get it."""
    with pytest.raises(IronsError, match="is not installed"):
        run_piped(("no-such-program",), streams())


@pytest.mark.parametrize("script", ["exit 7", "kill -15 $$"])
def test_codes(script: str) -> None:
    """The exit code is the program's; a signal is 128 and its number, from any thread."""
    expected = 7 if "exit" in script else 143
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run_piped(("sh", "-c", script), streams())))
    thread.start()
    thread.join()
    codes.append(run_attached(("sh", "-c", script), os.environ))
    assert codes == [expected, expected]


def test_an_attached_program_takes_ctrl_c() -> None:
    """Ctrl-C is the program's while it has the terminal: it does not begin with SIGINT ignored."""
    script = "import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    assert run_attached((sys.executable, "-c", script), os.environ) == 0


def test_what_is_typed_ahead_is_left(tmp_path: str) -> None:
    """What is on stdin after the program's end is not read."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "w") as typed:
        call = Streams(stdin, io.StringIO(), io.StringIO(), {"PATH": os.environ["PATH"]})
        assert run_piped((sys.executable, "-c", "input()"), call, header=b"for it\n") == 0
        typed.write("for the prompt\n")
        typed.flush()
        assert stdin.readline() == "for the prompt\n"


def test_keys_that_the_shell_took_hold_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys may be there when a terminal is looked at, and be read by its shell before this call comes to its foreground: it ends all the same."""
    ours, theirs = os.openpty()
    over, told = os.pipe()
    reading, writing = os.pipe()
    taken = threading.Event()

    def shell(descriptor: int) -> bool:
        if not taken.is_set():
            assert os.read(descriptor, 100) == b"fg\n"
            taken.set()
        return True

    monkeypatch.setattr("irons_plugins.ssh.openssh.subprocess._may_read", shell)
    feeder = threading.Thread(
        target=_feed, args=(os.fdopen(writing, "wb"), b"", theirs, io.StringIO(), over), daemon=True
    )
    feeder.start()
    os.write(ours, b"fg\n")
    assert taken.wait(60)
    os.close(told)
    feeder.join(60)
    assert not feeder.is_alive()
    for descriptor in (ours, theirs, over, reading):
        os.close(descriptor)


# What egress refused


@pytest.fixture
def own(own_api: FakeApi) -> FakeApi:
    """A server of irons' own kind whose sandbox's SSH does not answer."""
    own_api.add("one")
    own_api.ssh = {**own_api.ssh, "port": 1}
    return own_api


def test_many_refusals_are_summed_up(run_irons: Runner, own: FakeApi) -> None:
    """Ten hosts are named, the rest counted."""
    for number in range(12):
        own.record(f"h{number}.example", allowed=False, verdict="blocked", port=None)
    own.fail(faults.Fault(200, b'{"events": []}'), on="GET /sandboxes/one/audit")
    said = run_irons("ssh", "one", "--refused", "--", "true").err.splitlines()
    assert said[0] == "egress denied 12 connections while it ran:"
    assert said[1] == "  h0.example"
    assert said[-2:] == ["  and 2 more", "irons audit why one shows more"]


def test_what_reached_no_server_is_summed_up(run_irons: Runner, own: FakeApi) -> None:
    """Connections that were let through in vain are listed as refusals are, with how they ended."""
    own.record("before.example", verdict="allowed", outcome="unreached", ended="unreachable: refused")
    own.fail(faults.Fault(200, b'{"events": [], "page_token": 1}'), on="GET /sandboxes/one/audit")
    for _ in range(2):
        own.record("down.example", verdict="allowed", outcome="unreached", ended="unreachable: refused")
    own.record("up.example", verdict="allowed", outcome="reached")
    assert run_irons("ssh", "one", "--refused", "--", "true").err.splitlines()[:3] == [
        "egress let 2 connections through that reached no server:",
        "  down.example:443 (2 times): unreachable: refused",
        "irons audit why one shows more",
    ]


def test_a_server_that_can_not_say(run_irons: Runner, own: FakeApi) -> None:
    """Where the log can't be read at the end, that is reported; where not even its mark could be had, nothing is."""
    own.fail(faults.slow(0), on="GET /sandboxes/one/audit")
    own.fail(faults.error(500, "down"), on="GET /sandboxes/one/audit")
    assert run_irons("ssh", "one", "--refused", "--", "true").err == (
        "irons: egress denials cannot be shown: down\n"
    )
    own.fail(faults.error(500, "down"), on="GET /sandboxes/one/audit")
    assert run_irons("ssh", "one", "--refused", "--", "true").err == ""


def test_what_could_not_be_recorded_is_said(run_irons: Runner, own: FakeApi) -> None:
    """Refusals that no record tells of are counted from where the command began."""
    own.unrecorded = [{"sandbox_name": "one", "sandbox_id": "sb_1", "count": 3}]
    before = b'{"events": [], "unrecorded": [{"sandbox_name": "one", "count": 2}]}'
    own.fail(faults.Fault(200, before), on="GET /sandboxes/one/audit")
    assert run_irons("ssh", "one", "--refused", "--", "true").err == (
        "irons: 1 attempt of one was refused and not recorded: the disk that holds the audit log is full\n"
    )
    assert run_irons("ssh", "one", "--refused", "--", "true").err == ""
