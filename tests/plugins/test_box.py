"""Sandboxes as objects, `irons.sandbox`: their life, and programs in them. The sandbox is this machine, by a real SSH server."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import irons
from irons.errors import ApiError, Conflict, IronsError, NotFound, TimedOut, UsageError
from irons.testing import EXTENSIONS, FakeApi, faults

from .boxes import Make, names
from .conftest import Irons, until
from .remote_processes import running, seconds


def test_it_lives_as_long_as_the_block(make_box: Make, fake_api: FakeApi) -> None:
    """It is created as asked for, held, ready inside of the block, and gone after it."""
    with make_box("x", mode="warn", allow=["a.example"], memory="2G", labels={"k": "v"}, ttl=60) as box:
        assert (box.name, names(fake_api), box.status().status) == ("x", {"x"}, "ready")
        assert box.id == box.status().id
    assert names(fake_api) == set()
    body = next(call.body for call in fake_api.calls if call.line == "POST /sandboxes")
    assert (body["mode"], body["memory"], body["rm"], body["held"]) == ("warn", 2 << 30, True, True)
    assert [(rule["pattern"], rule["list"]) for rule in body["rules"]] == [("a.example", "allow")]


def test_who_allows_denies_the_rest(make_box: Make, fake_api: FakeApi) -> None:
    """With `allow` and no mode the mode is deny, and a name is found."""
    with make_box(allow=["a.example"], deny=["b.example"]) as box:
        assert names(fake_api) == {box.name}
    body = next(call.body for call in fake_api.calls if call.line == "POST /sandboxes")
    assert (body["mode"], {rule["list"] for rule in body["rules"]}) == ("deny", {"allow", "deny"})


def test_it_is_gone_after_an_error_too(make_box: Make, fake_api: FakeApi) -> None:
    """What the block raises comes out, and the sandbox is destroyed; where that fails, the error has a note of it."""
    with pytest.raises(ZeroDivisionError), make_box("x"):
        _ = 1 / 0
    assert names(fake_api) == set()

    def broken() -> None:
        with make_box("y"):
            fake_api.fail(faults.error(400, "no"), on="DELETE /sandboxes/y", times=50)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        broken()
    assert "y was not destroyed" in caught.value.__notes__[0]
    with fake_api.lock:
        del fake_api.sandboxes["y"]


def test_only_what_it_created_is_destroyed(make_box: Make, fake_api: FakeApi) -> None:
    """A name that is taken is refused, and left; so is another sandbox that took the name in the meantime; `keep` keeps."""
    with pytest.raises(Conflict) as taken, make_box("one"):
        pass
    assert taken.value.hint == "attach=True uses the one that is there"
    with make_box("x"), fake_api.lock:
        fake_api.sandboxes["x"].id = "sb_00000000000000ff"
    with make_box("y", keep=True):
        pass
    assert names(fake_api) == {"x", "y"}
    assert "one" in fake_api.sandboxes


def test_one_that_is_there_is_used_and_left(make_box: Make, fake_api: FakeApi) -> None:
    """`attach` creates, changes and destroys nothing, and refuses what would change it."""
    with make_box("one", attach=True) as box:
        assert box.exec(["true"]).ok
    assert "one" in fake_api.sandboxes
    assert not any(call.method in ("POST", "DELETE") for call in fake_api.calls)
    with pytest.raises(UsageError, match="memory would"), make_box("one", attach=True, memory="1G"):
        pass
    with pytest.raises(UsageError), make_box(attach=True):
        pass
    with pytest.raises(NotFound), make_box("nowhere", attach=True):
        pass


def test_one_that_never_gets_ready_is_gone(make_box: Make, fake_api: FakeApi) -> None:
    """Where it is not ready in time nothing is left of it, with `keep` neither."""
    fake_api.polls = 10_000
    fake_api.extensions = tuple(each for each in EXTENSIONS if each != "status-wait")
    for keep in (False, True):
        with pytest.raises(TimedOut), make_box("x", timeout=0.2, keep=keep):
            pass
    with fake_api.lock:
        assert {each.status for each in fake_api.sandboxes.values() if each.name != "one"} <= {"stopping"}


def test_a_plain_server_has_sandboxes_too(make_box: Make, fake_api: FakeApi) -> None:
    """Where the server knows name and key alone, they are all that is sent, and what goes beyond is refused."""
    fake_api.extensions = ()
    with make_box("x") as box:
        result = box.exec(["echo", "hello"])
        assert (result.stdout, result.refused) == ("hello\n", None)
    body = next(call.body for call in fake_api.calls if call.line == "POST /sandboxes")
    assert body.keys() == {"name", "public_key"}
    with pytest.raises(ApiError), make_box("x", cpus=2):
        pass


def test_wait_is_a_call_of_the_client(fake_api: FakeApi, irons_env: dict[str, str]) -> None:
    """`api.wait` returns once the state is there, and raises where it is not in time."""
    fake_api.add("new", "creating", becomes="ready", polls=3)
    with irons.connect(fake_api.url, env=irons_env) as api:
        assert api.wait("new").status == "ready"
        with pytest.raises(TimedOut):
            api.wait("new", "stopped", timeout=0.1)


def test_a_box_is_forked(make_box: Make, fake_api: FakeApi) -> None:
    """Its copies are boxes that are ready, and outlive the block; a snapshot is what the server tells."""
    with make_box("box") as box:
        assert box.snapshot("clean").name == "clean"
        copies = box.fork("copy", "two")
        assert [(copy.name, copy.status().status) for copy in copies] == [("copy", "ready"), ("two", "ready")]
    assert names(fake_api) == {"copy", "two"}


# Programs


def test_a_program_with_all_that_it_takes(make_box: Make, tmp_path: Path) -> None:
    """Words, stdin, variables, directory, streams and exit code are the program's; output is passed on as it comes."""
    pieces: list[bytes] = []
    with make_box("one", attach=True) as box:
        script = 'cat; printf %s "$TOKEN"; pwd; echo "$1" >&2; exit 7'
        result = box.exec(
            ["sh", "-c", script, "sh", "a  b"],
            stdin="in ",
            env={"TOKEN": "it's\n$x "},
            cwd=str(tmp_path),
            on_stdout=pieces.append,
        )
        assert result.stdout == f"in it's\n$x {tmp_path}\n"
        assert b"".join(pieces).decode() == result.stdout
        assert (result.exit, result.stderr, result.ok, result.signal) == (7, "a  b\n", False, None)
        assert result.refused == result.unreachable == ()
        with pytest.raises(irons.ProgramError, match="exit code 7") as caught:
            result.check()
        assert caught.value.result is result
        assert box.exec(["cat"]).check().stdout == ""
        with (tmp_path / "in").open("w+b") as file:
            file.write(b"\xff\x00")
            file.seek(0)
            told = box.exec(["cat"], stdin=file)
            assert not file.closed
        assert (told.stdout_bytes, told.stdout_encoding) == (b"\xff\x00", "base64")


def test_values_are_in_no_argument_list(make_box: Make) -> None:
    """While a program runs that has a variable, no process of this machine, and so of the sandbox, has its value as a word."""
    secret = f"secret-{os.urandom(8).hex()}"
    words = ["sh", "-c", "echo begun; cat"]
    with make_box("one", attach=True) as box, box.popen(words, env={"TOKEN": secret}) as process:
        assert process.stdout.readline() == b"begun\n"
        held = [path for path in Path("/proc").glob("[0-9]*/cmdline") if secret.encode() in _read(path)]
        assert held == []
        process.stdin.close()
        assert process.wait().ok


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"argv": "ls"}, "as a list"),
        ({"argv": []}, "as a list"),
        ({"argv": ["a\0b"]}, "zero byte"),
        ({"argv": ["ls"], "env": {"A B": "x"}}, "name of a variable"),
        ({"argv": ["ls"], "env": {"A": "\0"}}, "zero byte"),
        ({"argv": ["ls"], "timeout": 0}, "above 0"),
        ({"argv": ["ls"], "timeout": float("nan")}, "above 0"),
        ({"argv": ["ls"], "cwd": "\0"}, "zero byte"),
    ],
)
def test_words_that_are_refused_run_nothing(
    make_box: Make, fake_api: FakeApi, wrong: dict[str, Any], match: str
) -> None:
    """What no program can be given is refused before the server is asked."""
    with make_box("one", attach=True) as box:
        before = len(fake_api.calls)
        with pytest.raises(UsageError, match=match):
            box.exec(**wrong)
        assert len(fake_api.calls) == before


def test_time_runs_out(make_box: Make) -> None:
    """After `timeout` the program and what it started are ended, and the result says so."""
    nap = seconds()
    with make_box("one", attach=True) as box:
        result = box.exec(["sh", "-c", f"sleep {nap}"], timeout=0.3)
    assert (result.exit, result.timed_out) == (124, True)
    until(lambda: not running(nap))


def test_what_was_refused_is_in_the_result(make_box: Make, fake_api: FakeApi) -> None:
    """Refusals of while the program ran come as rows."""
    with make_box("one", attach=True) as box, box.popen(["sh", "-c", "echo begun; cat"]) as process:
        assert process.stdout.readline() == b"begun\n"
        fake_api.record("evil.example", allowed=False, verdict="blocked", reason="no rule allows it")
        process.stdin.close()
        result = process.wait()
    assert result.refused is not None
    assert [tuple(each) for each in result.refused] == [("evil.example", 443, "no rule allows it", 1)]


def test_only_the_end_of_much_is_kept(make_box: Make) -> None:
    """A result has the last bytes of a stream, and says that others are missing."""
    with make_box("one", attach=True) as box:
        result = box.exec(["sh", "-c", "head -c 100000 /dev/zero; echo end"], keep=10)
    assert (result.stdout, result.stdout_cut) == ("\0" * 6 + "end\n", True)


def test_a_callers_error_ends_the_program(make_box: Make) -> None:
    """What a callback raises comes out of `exec`, and the program has been ended."""
    nap = seconds()

    def refuse(data: bytes) -> None:
        raise ZeroDivisionError(data)

    with make_box("one", attach=True) as box, pytest.raises(ZeroDivisionError):
        box.exec(["sh", "-c", f"echo begun; exec sleep {nap}"], on_stdout=refuse)
    until(lambda: not running(nap))


def test_a_process_is_killed_and_left(make_box: Make) -> None:
    """`kill` ends what runs, also while no one reads what it writes; so does leaving it; `wait` has a limit."""
    nap = seconds()
    with make_box("one", attach=True) as box:
        process = box.popen(["sh", "-c", f"sleep {nap} & exec cat /dev/zero"])
        with process:
            assert process.stdout.read(1) == b"\0"
            assert process.poll() is None
            with pytest.raises(TimedOut):
                process.wait(0.1)
            process.kill()
            assert process.wait().exit == 143
            until(lambda: not running(nap))
        with box.popen(["sleep", nap]):
            until(lambda: running(nap))
        until(lambda: not running(nap))
        out, err = box.popen(["sh", "-c", "cat; echo err >&2"]).communicate(b"x" * 300_000)
        assert (len(out), err) == (300_000, b"err\n")


def test_a_lost_sandbox_is_an_error(make_box: Make, fake_api: FakeApi) -> None:
    """Where OpenSSH can't get there the call raises, and so do `wait` and `poll` of a process."""
    with make_box("one", attach=True) as box:
        with fake_api.lock:
            fake_api.ssh = {**fake_api.ssh, "port": 1}
        with pytest.raises(IronsError, match="SSH to one failed"):
            box.exec(["true"])
        process = box.popen(["true"])
        with pytest.raises(IronsError), process:
            process.wait()


def test_ctrl_c_ends_the_program_and_destroys_the_sandbox(
    make_box: Make, fake_api: FakeApi, into: Irons
) -> None:
    """A program that uses the library and is interrupted leaves neither a process nor a sandbox; SIGTERM stays its own."""
    nap = seconds()
    assert isinstance(make_box, partial)
    code = (
        "import irons, signal\n"
        # Coverage, where it is on, handles SIGTERM.
        "before = signal.getsignal(signal.SIGTERM)\n"
        "with irons.sandbox('x') as box:\n"
        "    assert signal.getsignal(signal.SIGTERM) == before\n"
        f"    box.exec(['sleep', '{nap}'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**make_box.keywords["env"]}, stderr=subprocess.PIPE
    )
    into.started.append(process)
    until(lambda: running(nap))
    process.send_signal(2)
    _, said = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in said
    until(lambda: not running(nap))
    assert names(fake_api) == set()


@pytest.mark.parametrize("late", ["POST /sandboxes", "GET /sandboxes/x/egress/mode"])
@pytest.mark.parametrize("keep", [False, True], ids=["removed", "kept"])
def test_ctrl_c_while_it_is_created_leaves_no_sandbox(
    make_box: Make, fake_api: FakeApi, into: Irons, late: str, *, keep: bool
) -> None:
    """An interrupt between the request for a sandbox and its being ready leaves none, though the server answers only later."""
    assert isinstance(make_box, partial)
    # It is never ready, so that the interrupt comes before that.
    fake_api.polls = 1_000_000
    fake_api.extensions = tuple(each for each in EXTENSIONS if each != "status-wait")
    fake_api.fail(faults.slow(1), on=late)
    process = subprocess.Popen(
        [sys.executable, "-c", f"import irons\nwith irons.sandbox('x', keep={keep}): pass"],
        env={**make_box.keywords["env"]},
        stderr=subprocess.PIPE,
    )
    into.started.append(process)
    until(lambda: late in fake_api.lines())
    process.send_signal(2)
    _, said = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in said
    assert names(fake_api) == set()
