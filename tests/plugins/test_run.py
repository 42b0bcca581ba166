"""`run`: a sandbox for one program, which is removed no matter what happens. The sandbox is this machine, by a real SSH server."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from irons.errors import UsageError
from irons.testing import EXTENSIONS, FakeApi, Runner, faults
from irons_plugins.run.transfer import wanted
from tests.repl.terminal import Terminal

from .conftest import Irons, Sshd, until
from .remote_processes import running, seconds
from .test_exec_endings import ENDING


@pytest.fixture
def runs(into: Irons, fake_api: FakeApi, sshd: Sshd) -> Irons:
    """`irons` against a server of irons' own kind, with the key that opens this machine."""
    fake_api.extensions = EXTENSIONS
    into.env = {**into.env, "IRONS_PUBLIC_KEY": f"{sshd.identity}.pub"}
    return into


def left(api: FakeApi) -> list[str]:
    """The sandboxes that `run` made and that are there."""
    with api.lock:
        return [name for name in api.sandboxes if name.startswith("run-")]


def modes(api: FakeApi) -> list[str]:
    """The modes that sandboxes were created with."""
    return [call.body["mode"] for call in api.calls if call.line == "POST /sandboxes"]


@pytest.mark.parametrize("code", [0, 7, 255])
def test_it_ends_with_the_programs_code_and_leaves_nothing(runs: Irons, fake_api: FakeApi, code: int) -> None:
    """stdin, stdout and stderr are the program's; the sandbox is gone afterwards, also where the program failed."""
    done = runs("run", "--", "sh", "-c", f"cat; echo told >&2; exit {code}", stdin=b"in")
    assert (done.returncode, done.stdout) == (code, b"in")
    assert b"told\n" in done.stderr
    assert left(fake_api) == []
    body = next(call.body for call in fake_api.calls if call.line == "POST /sandboxes")
    assert body["held"] is True
    assert any(call.line.endswith("/hold") for call in fake_api.calls)


def test_one_object_for_programs(runs: Irons, fake_api: FakeApi, tmp_path: Path) -> None:
    """`-o json` is the object of `exec`, with what became of the sandbox and what was fetched."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "out").write_text("result")
    bring = ("--bring", f"{tmp_path}/there/out", "--into", f"{tmp_path}/here")
    done = runs("run", "-o", "json", *bring, "--", "sh", "-c", "echo hello; exit 3")
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit"], told["stdout"], told["refused"]) == (3, 3, "hello\n", [])
    assert told["kept"] is False
    assert told["brought"] == [{"path": f"{tmp_path}/there/out", "files": 1, "bytes": 6, "left_out": {}}]
    assert (tmp_path / "here" / "out").read_text() == "result"
    assert left(fake_api) == []


def test_a_result_that_is_not_there(runs: Irons, fake_api: FakeApi, tmp_path: Path) -> None:
    """Where the program succeeded it is irons' failure; where it failed its own code stays."""
    bring = ("--bring", "/nowhere/out", "--into", str(tmp_path))
    done = runs("run", *bring, "--", "true")
    assert done.returncode == 125
    assert b"/nowhere/out: there is no such file" in done.stderr
    assert done.stderr.count(b"there is no such file in") == 1
    done = runs("run", *bring, "--bring", "/nowhere/more", "--", "true")
    assert done.stderr.count(b"there is no such file in") == 2
    done = runs("run", *bring, "--", "sh", "-c", "exit 4")
    assert (done.returncode, done.stderr.count(b"there is no such file in")) == (4, 1)
    told = json.loads(runs("run", "-o", "json", *bring, "--", "true").stdout)
    assert (told["exit"], "no such file" in told["error"]["message"]) == (125, True)
    assert left(fake_api) == []


def test_keep_keeps(runs: Irons, fake_api: FakeApi) -> None:
    """With `--keep` the sandbox stays and is held by no one."""
    done = runs("run", "--keep", "--", "true")
    assert done.returncode == 0
    (name,) = left(fake_api)
    assert f"{name} is kept: irons ssh {name}" in done.stderr.decode()
    body = next(call.body for call in fake_api.calls if call.line == "POST /sandboxes")
    assert "held" not in body


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupted_run_leaves_nothing(runs: Irons, fake_api: FakeApi, number: int, code: int) -> None:
    """Ctrl-C, TERM and HUP end the program and destroy the sandbox."""
    nap = seconds()
    runs.patient = ENDING
    process = runs.start("run", "--", "sh", "-c", f"sleep {nap}; true")
    until(lambda: running(nap))
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"could not be reached" not in said
    assert running(nap) == []
    assert left(fake_api) == []


def test_a_killed_run_lets_go_of_its_sandbox(runs: Irons, fake_api: FakeApi) -> None:
    """After KILL nothing holds the sandbox: destroying it is the server's business, which a test of its own holds."""
    nap = seconds()
    process = runs.start("run", "--", "sh", "-c", f"sleep {nap}; true")
    until(lambda: running(nap))
    until(lambda: any(call.line.endswith("/hold") for call in fake_api.calls))
    process.kill()
    process.communicate(timeout=60)
    until(lambda: not running(nap))
    with fake_api.lock:
        assert [sandbox.held for sandbox in fake_api.sandboxes.values() if sandbox.name != "one"] == [True]


def test_a_sandbox_that_fails_to_start_is_irons_failure(runs: Irons, fake_api: FakeApi) -> None:
    """Where the sandbox can't be made the code is 125, and nothing is left."""
    fake_api.fail(faults.error(503, "no room"), on="POST /sandboxes", times=50)
    done = runs("run", "--", "true")
    assert done.returncode == 125
    assert b"no room" in done.stderr
    assert left(fake_api) == []


def test_hosts_mean_deny(runs: Irons, fake_api: FakeApi) -> None:
    """With `--allow` and no mode the sandbox is made in `deny`."""
    assert runs("run", "--allow", "example.com", "--", "true").returncode == 0
    body = next(call.body for call in fake_api.calls if call.line == "POST /sandboxes")
    assert body["mode"] == "deny"
    assert body["rules"] == [{"pattern": "example.com", "list": "allow"}]


def test_nobody_is_asked_without_a_terminal(runs: Irons, fake_api: FakeApi) -> None:
    """In CI `--mode ask` makes a sandbox in `deny`, and a line says so once."""
    done = runs("run", "--mode", "ask", "--", "true")
    assert (done.returncode, done.stderr.count(b"the mode is deny and not ask")) == (0, 1)
    assert modes(fake_api) == ["deny"]


def test_a_person_at_a_terminal_is_asked(runs: Irons, fake_api: FakeApi) -> None:
    """At a terminal the sandbox of `--mode ask` is in that mode."""
    with Terminal(runs.argv("run", "--mode", "ask", "--", "true"), {**runs.env, "TERM": "xterm"}) as screen:
        assert screen.ended() == 0
    assert modes(fake_api) == ["ask"]


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "--timeout", "0s", "--", "true"],
        ["run", "--env", "TOKEN=x", "--", "true"],
        ["run", "--with", "/", "--", "true"],
        ["run", "--with", "/nowhere", "--", "true"],
        ["run", "--with", ".", "--with-all", ".", "--", "true"],
        ["run", "--bring", "a/../../b", "--", "true"],
        ["run", "--into", "/nowhere", "--", "true"],
    ],
    ids=" ".join,
)
def test_what_is_asked_for_is_checked_first(run_irons: Runner, own: FakeApi, words: list[str]) -> None:
    """A call that can't be carried out makes no sandbox."""
    assert run_irons(*words).code == 125
    assert not any(call.line == "POST /sandboxes" for call in own.calls)


def test_an_older_server_is_refused(run_irons: Runner, fake_api: FakeApi) -> None:
    """A server that would not end the sandbox with its client is not asked to make one; with --keep it may."""
    done = run_irons("run", "--", "true")
    assert done.code == 125
    assert "ends a sandbox with its client" in done.err
    assert not any(call.line == "POST /sandboxes" for call in fake_api.calls)


def test_where_results_land() -> None:
    """A relative path lands at the same place, any other under its last name."""
    assert wanted("dist/a")[1:4] == ("", "dist/a", ("dist", "a"))
    assert wanted("./dist/")[1:4] == ("", "dist", ("dist",))
    assert wanted(".")[1:4] == ("", ".", ())
    assert wanted("/var/log/x.log")[1:4] == ("/var/log", "x.log", ("x.log",))
    assert wanted("/etc")[1:4] == ("/", "etc", ("etc",))
    assert wanted("~/out")[1:4] == ("~", "out", ("out",))
    for text in ("", "/", "~", "~/", "..", "a/..", "a\0b"):
        with pytest.raises(UsageError):
            wanted(text)
