"""`exec -o json`, and `exec` in several sandboxes, with OpenSSH's own client and server."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.testing import EXTENSIONS, FakeApi
from irons_plugins.ssh.execute.report import OutputTail

from .conftest import Irons, Sshd, until
from .remote_processes import kill_the_server, running, seconds


@pytest.fixture
def many(into: Irons, sshd: Sshd, fake_api: FakeApi) -> Irons:
    """`irons` with three sandboxes, all of them this machine."""
    for name in ("two", "three"):
        fake_api.add(name)
    state = Path(into.env["XDG_STATE_HOME"]) / "irons" / "ssh" / "identities.json"
    state.write_text(json.dumps({"default": dict.fromkeys(("one", "two", "three"), str(sshd.identity))}))
    return into


def report(irons: Irons, *words: str, **more: Any) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the one object of `exec -o json`; stderr must be empty."""
    done = irons("exec", "one", "-o", "json", *words, **more)
    assert done.stderr == b""
    return done.returncode, json.loads(done.stdout)


def test_a_report_has_all_that_came_of_a_program(into: Irons, fake_api: FakeApi) -> None:
    """Exit code, output and what was refused are in one object, with stdin as ever; stderr has nothing."""
    fake_api.extensions = EXTENSIONS
    code, told = report(into, "--", "sh", "-c", "cat; printf 'ü\\377' >&2; exit 3", stdin=b"text\n")
    assert code == 3
    assert told.pop("seconds") >= 0
    assert told == {
        "name": "one",
        "exit": 3,
        "signal": None,
        "timed_out": False,
        "message": "",
        "stdout": "text\n",
        "stdout_encoding": "utf-8",
        "stdout_cut": False,
        "stderr": base64.b64encode(b"\xc3\xbc\xff").decode(),
        "stderr_encoding": "base64",
        "stderr_cut": False,
        "refused": [],
        "unreachable": [],
        "error": None,
    }


def test_a_report_of_what_egress_did(into: Irons, fake_api: FakeApi) -> None:
    """What was refused and what was not reached while it ran is listed as data."""
    fake_api.extensions = EXTENSIONS
    nap = seconds()
    process = into.start("exec", "one", "-o", "jsonl", "--", "sh", "-c", f"exec sleep {nap}")
    until(lambda: running(nap))
    fake_api.record("evil.example", allowed=False, verdict="blocked", reason="no rule")
    fake_api.record("down.example", verdict="allowed", outcome="unreached", ended="refused", port=80)
    (pid,) = (int(each) for each in running(nap))
    os.kill(pid, signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    told = json.loads(out)
    assert (process.returncode, told["exit"], told["signal"]) == (137, 137, 9)
    assert told["message"] == "killed by signal 9 (KILL)"
    assert told["refused"] == [{"host": "evil.example", "port": 443, "reason": "no rule", "count": 1}]
    assert told["unreachable"] == [{"host": "down.example", "port": 80, "reason": "refused", "count": 1}]


def test_a_report_where_irons_failed(into: Irons) -> None:
    """A lost connection and time that ran out have a report, too, with the output so far."""
    code, told = report(into, "--", "sh", "-c", f"echo before{kill_the_server(seconds())}")
    assert (code, told["exit"]) == (125, 125)
    # What the server had not passed on when it was killed is lost with it.
    assert told["stdout"] in ("", "before\n")
    assert told["error"] == {
        "code": "failed",
        "message": "the connection to one was lost",
        "hint": "",
        "exit": 125,
    }
    for limit in (0.5, 5, 50):
        script = f"echo before; sleep {seconds()}"
        code, told = report(into, "--timeout", str(limit), "--", "sh", "-c", script)
        assert (code, told["timed_out"]) == (124, True)
        # The time may be up before a busy machine has run the program at all.
        if told["stdout"]:
            break
    assert told["stdout"] == "before\n"


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_captured_output_is_bounded(pieces: list[bytes]) -> None:
    """The end is kept, in bounded memory; it is text exactly where it is UTF-8, from the first whole character on."""
    kept = OutputTail(16)
    for piece in pieces:
        kept(piece)
    whole = b"".join(pieces)
    told = kept.output()
    assert told.cut == (len(whole) > 16)
    if told.encoding == "base64":
        assert base64.b64decode(told.text) == whole[-16:]
    else:
        assert whole.endswith(told.text.encode())
        assert len(told.text.encode()) > min(len(whole), 16) - 4


def test_a_character_that_is_cut() -> None:
    """Where the beginning is left out, half a character of it is, too."""
    kept = OutputTail(4)
    kept("aüüü".encode())
    kept("€".encode())
    assert kept.output() == ("€", "utf-8", True)


# Several


def test_exec_in_several(many: Irons) -> None:
    """It runs at once in all; each line has its sandbox's name before it, and the worst code is the call's."""
    script = 'echo "out $0"; printf "err" >&2; [ ! -e "$1" ]'
    done = many("exec", "one", "two", "three", "one", "--", "sh", "-c", script, "x", "/")
    assert done.returncode == 1
    assert sorted(done.stdout.decode().splitlines()) == ["one: out x", "three: out x", "two: out x"]
    lines = done.stderr.decode().splitlines()
    assert sorted(lines[:-1]) == ["one: err", "three: err", "two: err"]
    assert lines[-1] == "irons: exit codes of 3 of 3 sandboxes: one (1), three (1), two (1)"


def test_exec_in_several_whose_output_finds_no_room(many: Irons) -> None:
    """Where stdout takes no more, each says why, and none is a success."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            many.argv("exec", "one", "two", "--", "echo", "hi"),
            env=dict(many.env),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 125
    assert sorted(done.stderr.decode().splitlines()[:-1]) == [
        f"{name}: irons: what the program wrote can't be written to stdout (No space left on device); it ended with code 0"
        for name in ("one", "two")
    ]


def test_exec_in_several_is_parallel(many: Irons, tmp_path: Path) -> None:
    """Programs that wait for one another meet: none waits for another to end."""
    (place := tmp_path / "met").mkdir()
    script = 'touch "$1/$$"; while [ "$(ls "$1" | wc -l)" != 3 ]; do sleep 0.1; done'
    done = many("exec", "one", "two", "three", "--timeout", "300", "--", "sh", "-c", script, "sh", str(place))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_exec_in_several_where_some_fail(many: Irons, fake_api: FakeApi) -> None:
    """One that can't be reached does not keep the others from running; its reason has its name."""
    fake_api.sandboxes["two"].status = "stopped"
    done = many("exec", "one", "two", "nobody", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (125, b"one: ran\n")
    lines = done.stderr.decode().splitlines()
    assert "two: irons: sandbox two is stopped" in lines
    assert any(line.startswith("nobody: irons: ") for line in lines)
    assert lines[-1] == "irons: exit codes of 2 of 3 sandboxes: nobody (125), two (125)"


def test_a_report_of_a_program_that_was_not_started(into: Irons) -> None:
    """Where there is no way in, the answer is the same object, on stdout, with the reason."""
    done = into("exec", "nobody", "-o", "json", "--", "true")
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (125, b"")
    assert (told["name"], told["exit"], told["stdout"], told["refused"]) == ("nobody", 125, "", None)
    assert told["error"]["code"] == "not-found"
    assert told["message"] == told["error"]["message"] != ""


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_reports_of_several(many: Irons, form: str) -> None:
    """One object for each sandbox: an array, or lines as they end."""
    done = many("exec", "one", "two", "nobody", "-o", form, "--", "echo", "ran")
    told = (
        json.loads(done.stdout)
        if form == "json"
        else [json.loads(line) for line in done.stdout.decode().splitlines()]
    )
    found = {each["name"]: (each["exit"], each["stdout"]) for each in told}
    assert found == {"one": (0, "ran\n"), "two": (0, "ran\n"), "nobody": (125, "")}
    assert (done.returncode, done.stderr) == (125, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_exec_in_several_leaves_nothing(many: Irons, number: int) -> None:
    """Ctrl-C, TERM and KILL end what runs in all of them."""
    nap = seconds()
    process = many.start("exec", "one", "two", "three", "--", "sh", "-c", f"exec sleep {nap}")
    until(lambda: len(running(nap)) == 3)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    until(lambda: not running(nap))
