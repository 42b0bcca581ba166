"""start, stop, wait, destroy, status and list."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import pytest

from irons.testing import FakeApi, Runner, faults
from tests.background import JOBS
from tests.shown import Shown

from .conftest import Irons, until


@pytest.mark.parametrize(("command", "state"), [("start", "ready"), ("stop", "stopped")])
def test_a_state_that_is_there_already_is_a_success(
    run_irons: Runner, fake_api: FakeApi, command: str, state: str
) -> None:
    """`start` of a ready sandbox and `stop` of a stopped one succeed, though the server calls it a conflict."""
    fake_api.add("one", state)
    assert run_irons(command, "one").ok().out.endswith(f"one is {state}\n")


def test_a_conflict_that_is_one(run_irons: Runner, fake_api: FakeApi) -> None:
    """`start` of a sandbox that can't be started is a conflict."""
    fake_api.add("one", "error")
    fake_api.fail(faults.error(409, "it is broken"), on="POST")
    done = run_irons("start", "one")
    assert (done.code, done.err.splitlines()[0]) == (5, "irons: it is broken")


@pytest.mark.parametrize(("command", "state"), [("start", "starting"), ("stop", "stopping")])
def test_async(run_irons: Runner, fake_api: FakeApi, command: str, state: str) -> None:
    """With `--async` the state of the moment is the answer."""
    fake_api.add("one", "stopped" if command == "start" else "ready")
    assert run_irons(command, "one", "--async", "-o", "json").ok().json()["status"] == state


@pytest.mark.parametrize(
    "fault",
    [
        faults.error(500),
        faults.html(),
        faults.cut_json(),
        faults.broken_off(),
        faults.dropped(),
        faults.too_many("30"),
    ],
    ids=["500", "html", "cut", "broken off", "dropped", "429"],
)
def test_failed_polls_are_survived(run_irons: Runner, fake_api: FakeApi, fault: faults.Fault) -> None:
    """A poll that fails, in any way, is followed by another."""
    fake_api.add("one", "stopped")
    fake_api.fail(fault, on="GET /sandboxes/one", times=3)
    assert run_irons("start", "one", "--wait-timeout", "20").ok().out == "🟢 one is ready\n"


def test_a_slow_server_does_not_hold_up_the_deadline(
    run_irons: Runner, fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll that hangs ends with the wait's own time limit."""
    monkeypatch.setattr("irons.client.following.waiting.LEAST", 0.1)
    fake_api.add("one", "stopped")
    fake_api.fail(faults.held(threading.Event()), on="GET /sandboxes/one", times=9)
    done = run_irons("start", "one", "--wait-timeout", "0.2")
    assert done.code == 6
    assert "the last poll" in done.err


def test_a_wait_ends_in_time(run_irons: Runner, fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come to pass in time is exit code 6, and says how to go on waiting."""
    # The time is up between two polls, not in one that stood still.
    monkeypatch.setattr("irons.client.following.waiting.LEAST", 600.0)
    fake_api.add("one", "stopped")
    fake_api.polls = 10_000
    done = run_irons("start", "one", "--wait-timeout", "0.3")
    assert done.code == 6
    assert done.err == (
        "irons: one is not ready after 0.3 s; it is starting\n  irons wait one --for ready goes on waiting\n"
    )


def test_the_setting_says_how_long(run_irons: Runner, fake_api: FakeApi) -> None:
    """Without the flag, the setting holds."""
    fake_api.add("one", "stopped")
    fake_api.polls = 10_000
    assert run_irons("start", "one", env={"IRONS_WAIT_TIMEOUT": "0.2"}).code == 6


def test_an_error_state_ends_a_wait_with_its_reason(run_irons: Runner, fake_api: FakeApi) -> None:
    """A sandbox in `error` fails the wait at once, in the server's words, made fit for a terminal."""
    fake_api.add("one", "error", metadata={"reason": "no \x1b[31mimage\nthere"})
    done = run_irons("wait", "one")
    assert done.code == 1
    assert done.err.splitlines() == [
        r"irons: one is in the state error: no \x1b[31mimage\nthere",
        "  irons status one shows all that is known; irons start one tries again, irons destroy one removes it",
    ]


def test_an_error_of_the_machine_ends_with_the_line_that_fixes_it(
    run_irons: Runner, fake_api: FakeApi
) -> None:
    """Where the server knows a fix it is on a line of its own, the last one."""
    why = "it did not start; crun is not installed; to fix it: apt-get install crun"
    fake_api.add("one", "error", metadata={"reason": why})
    first, last = run_irons("wait", "one").err.splitlines()
    assert first == "irons: one is in the state error: it did not start; crun is not installed"
    assert last == "  apt-get install crun"


def test_waiting_for_error(run_irons: Runner, fake_api: FakeApi) -> None:
    """Who waits for `error` gets it as a success."""
    fake_api.add("one", "error")
    assert run_irons("wait", "one", "--for", "error").ok().out == "🔴 one is error\n"


def test_waiting_for_several(run_irons: Runner, fake_api: FakeApi) -> None:
    """`wait` takes several names and prints each as it comes to pass."""
    fake_api.add("one", "creating", becomes="ready", polls=3)
    fake_api.add("two", "ready")
    assert run_irons("wait", "one", "two", "-o", "plain").ok().lines == ["🟢 one is ready", "🟢 two is ready"]


def test_a_wait_for_nobody(run_irons: Runner, fake_api: FakeApi) -> None:
    """A sandbox that is not there is not waited for."""
    assert run_irons("wait", "one").code == 3


def test_a_key_that_does_not_open_ends_a_wait(run_irons: Runner, fake_api: FakeApi) -> None:
    """Authentication is not a matter of patience."""
    fake_api.add("one", "creating")
    fake_api.fail(faults.error(401, "bad key"), on="GET /sandboxes/one")
    done = run_irons("wait", "one")
    assert done.code == 4
    assert "IRONS_API_KEY" in done.err


def test_the_spinner_is_a_terminals_alone(run_irons: Runner, fake_api: FakeApi) -> None:
    """On a terminal's stderr a spinner shows state and seconds, and leaves nothing behind; elsewhere there is none."""
    fake_api.add("one", "creating", becomes="ready", polls=10**6)
    ready = Shown(
        r"one: creating, waiting for ready [0-9]+s",
        lambda: setattr(fake_api.sandboxes["one"], "polls", 1),
    )
    shown = run_irons("wait", "one", tty=True, stderr=ready).ok().err
    assert ready.happened
    assert shown.endswith("\r\x1b[K")
    fake_api.add("two", "creating", becomes="ready", polls=3)
    assert run_irons("wait", "two").ok().err == ""


@pytest.mark.parametrize("way", JOBS)
def test_ctrl_c_ends_a_wait_at_once(irons_process: Irons, fake_api: FakeApi, way: str) -> None:
    """Ctrl-C in the middle of a wait is exit code 130, within a moment, in a script's background job too."""
    fake_api.add("one", "creating")
    process = irons_process.start("wait", "one", way=way)
    until(lambda: len(fake_api.lines()) > 2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.decode() == "irons: interrupted\n"


# destroy


def test_destroy_asks_on_a_terminal(run_irons: Runner, fake_api: FakeApi) -> None:
    """On a terminal `destroy` asks first, and anything but yes leaves everything as it is."""
    fake_api.add("one", "stopped")
    assert run_irons("destroy", "one", tty=True, stdin="\n").code == 1
    assert "one" in fake_api.sandboxes
    done = run_irons("destroy", "one", tty=True, stdin="y\n").ok()
    assert "Destroy one for good? [y/N] " in done.err
    assert fake_api.sandboxes == {}


def test_a_yes_also_stops(run_irons: Runner, fake_api: FakeApi) -> None:
    """The question says that a sandbox runs, and after yes it is stopped first."""
    fake_api.add("one", "ready")
    assert run_irons("destroy", "one", tty=True, stdin="\n").code == 1
    assert fake_api.sandboxes["one"].status == "ready"
    done = run_irons("destroy", "one", tty=True, stdin="y\n").ok()
    assert "Stop and destroy one for good? [y/N] " in done.err
    assert fake_api.sandboxes == {}


@pytest.mark.parametrize("words", [[], ["--no-input"]])
def test_destroy_never_asks_without_a_terminal(
    run_irons: Runner, fake_api: FakeApi, words: list[str]
) -> None:
    """Without a terminal, or with --no-input, it goes ahead."""
    fake_api.add("one", "stopped")
    run_irons("destroy", "one", *words, stdin_tty=bool(words), stderr_tty=True).ok()
    assert fake_api.sandboxes == {}


def test_force_stops_first(run_irons: Runner, fake_api: FakeApi) -> None:
    """`--force` stops a running sandbox, waits for it, and destroys it; it does not ask."""
    fake_api.add("one", "ready")
    run_irons("destroy", "one", "--force", tty=True).ok()
    assert fake_api.lines() == [
        "GET /sandboxes/one",
        "POST /sandboxes/one/stop",
        "GET /sandboxes/one",
        "GET /sandboxes/one",
        "DELETE /sandboxes/one",
    ]


def test_force_waits_for_one_that_is_stopping(run_irons: Runner, fake_api: FakeApi) -> None:
    """`--force` waits for a sandbox that is on its way down already."""
    fake_api.add("one", "stopping", becomes="stopped", polls=3)
    run_irons("destroy", "one", "--force").ok()
    assert fake_api.lines()[-1] == "DELETE /sandboxes/one"
    assert len(fake_api.calls) > 3


def test_force_stops_one_that_became_ready_meanwhile(run_irons: Runner, fake_api: FakeApi) -> None:
    """`--force` on a sandbox still being made, ready by the time it is to go, stops it and destroys it."""
    fake_api.add("one", "creating", becomes="ready", polls=1)
    run_irons("destroy", "one", "--force").ok()
    assert fake_api.sandboxes == {}


def test_a_running_sandbox_says_how(run_irons: Runner, fake_api: FakeApi) -> None:
    """Without `--force` a running sandbox is a conflict that names the way."""
    fake_api.add("one", "ready")
    done = run_irons("destroy", "one")
    assert done.code == 5
    assert "irons destroy one --force" in done.err


def test_each_is_tried_and_the_worst_code_counts(run_irons: Runner, fake_api: FakeApi) -> None:
    """Of several names each is tried; the exit code is the greatest of theirs."""
    fake_api.add("running", "ready")
    fake_api.add("fine", "stopped")
    done = run_irons("destroy", "running", "missing", "fine")
    assert done.code == 5
    assert done.out == "fine is destroyed\n"
    assert done.err.splitlines() == [
        "irons: running: sandbox running is running",
        "irons: missing: there is no sandbox missing",
        "irons: 2 of 3 sandboxes were not destroyed",
        "  irons destroy running --force stops it first",
    ]
    assert list(fake_api.sandboxes) == ["running"]
    as_json = run_irons("destroy", "running", "missing", "-o", "json")
    assert (as_json.code, as_json.out, as_json.error()["exit"]) == (5, "", 5)


def test_destroy_as_json(run_irons: Runner, fake_api: FakeApi) -> None:
    """In JSON each sandbox that is no more is a row; one that is named twice is destroyed once."""
    fake_api.add("one", "stopped")
    fake_api.add("two", "stopped")
    done = run_irons("destroy", "one", "two", "one", "-o", "json").ok()
    assert done.json() == [{"name": "one", "status": "destroyed"}, {"name": "two", "status": "destroyed"}]


# status and list


@pytest.mark.parametrize(
    ("state", "circle"),
    [
        ("running", "🟢"),
        ("ready", "🟢"),
        ("creating", "🟡"),
        ("starting", "🟡"),
        ("stopping", "🟠"),
        ("stopped", "🟠"),
        ("error", "🔴"),
        ("hibernating", "⚪"),
    ],
)
def test_circles(run_irons: Runner, fake_api: FakeApi, state: str, circle: str) -> None:
    """Each state has its circle; one that irons does not know has a white one."""
    fake_api.add("one", state)
    assert f"state\t{state}\n" in run_irons("status", "one").ok().out, "a field for programs"
    assert f"state:   {circle} {state}\n" in run_irons("status", "one", tty=True).ok().out
    assert f"{circle} {state}" in run_irons("list", tty=True).ok().out


def test_status_on_a_terminal(run_irons: Runner, fake_api: FakeApi) -> None:
    """`status` shows name, state, id, times in this machine's zone, and metadata by its keys."""
    fake_api.add("one", metadata={"image": "debian", "ssh_port": "2201"})
    done = run_irons("status", "one", tty=True, env={"TZ": "UTC"}).ok()
    assert done.lines == [
        "name:     one",
        "state:    🟢 ready",
        "id:       sb_0000000000000001",
        f"created:  {done.lines[3].split()[1]}",
        f"updated:  {done.lines[4].split()[1]}",
        "image:    debian",
        "ssh port: 2201",
    ]


def test_the_mode_ask_in_words_of_v0(run_irons: Runner, fake_api: FakeApi) -> None:
    """A server that says `deny` and `ask` is in mode ask, which is one word to a person."""
    fake_api.add("one", metadata={"egress": "deny", "mode": "deny", "ask": "true"})
    assert run_irons("status", "one").ok().lines[-1] == "egress\task (its own mode)"


def test_status_is_readable(run_irons: Runner, fake_api: FakeApi) -> None:
    """Sizes have units, what is used and what does not hold stands next to its limit; JSON has the exact numbers."""
    metadata = {
        "image": "debian",
        "mode": "deny",
        "memory": "536870912",
        "memory_used": "2101248",
        "disk": "10737418240",
        "disk_note": "not enforced: no quota",
        "processes": "unlimited",
        "note_of_theirs": "1048576",
        "egress": "deny",
    }
    fake_api.add("one", metadata=metadata)
    lines = run_irons("status", "one").ok().lines
    assert [line.split("\t") for line in lines[5:]] == [
        ["image", "debian"],
        ["egress", "deny (its own mode)"],
        ["memory", "512 MiB (2 MiB used)"],
        ["disk", "10 GiB (not enforced: no quota)"],
        ["processes", "unlimited"],
        ["note of theirs", "1048576"],
    ]
    told = run_irons("status", "one", "-o", "json").ok().json()["metadata"]
    sizes = {"memory": 536870912, "memory_used": 2101248, "disk": 10737418240}
    assert told == metadata | sizes


def test_counts_and_sizes_are_numbers_in_json(run_irons: Runner, fake_api: FakeApi) -> None:
    """What is a number is one, also with a fraction; a word in its place, and what is not counted, stay texts."""
    metadata = {"cpus": "0.5", "ssh_port": "2201", "processes": "unlimited", "image": "12", "oom_kills": "²"}
    fake_api.add("one", metadata=metadata)
    told = run_irons("status", "one", "-o", "json").ok().json()["metadata"]
    assert told == {**metadata, "cpus": 0.5, "ssh_port": 2201}
    assert run_irons("list", "-o", "json").ok().json()[0]["metadata"] == told
    assert run_irons("start", "one", "-o", "json").ok().json()["metadata"] == told
    assert json.loads(run_irons("wait", "one", "-o", "jsonl").ok().out)["metadata"] == told
    assert "cpus\t0.5" in run_irons("status", "one").ok().out


def test_status_as_json(run_irons: Runner, fake_api: FakeApi) -> None:
    """In JSON times are UTC and keys stay what they are."""
    fake_api.add("one", metadata={"image": "debian"})
    assert run_irons("status", "one", "-o", "json").ok().json() == {
        "name": "one",
        "status": "ready",
        "id": "sb_0000000000000001",
        "created_at": "2026-02-19T16:00:00Z",
        "updated_at": "2026-02-19T16:00:01Z",
        "metadata": {"image": "debian"},
        "labels": {},
        "ttl": None,
        "idle_stop": None,
        "ends_at": None,
        "ends_in": None,
        "ends_by": "",
        "ends_with": "",
        "note": "",
    }


def test_status_of_nobody(run_irons: Runner, fake_api: FakeApi) -> None:
    """A sandbox that is not there is exit code 3, as one JSON object where JSON was asked for."""
    done = run_irons("status", "one", "-o", "json")
    assert (done.code, done.out, done.error()["code"]) == (3, "", "not-found")


def test_hostile_answers_stay_text(run_irons: Runner, fake_api: FakeApi) -> None:
    """Escape sequences, newlines and bidi marks in what a server tells never reach the terminal as such."""
    evil = "\x1b]0;x\x07\r\nready\u202e\u2066"
    fake_api.add("one", evil, metadata={"k\x1b[2J": f"v{evil}"}, created_at=evil)
    for words in (["status", "one"], ["list"], ["status", "one", "-o", "json"], ["list", "-o", "jsonl"]):
        for tty in (True, False):
            done = run_irons(*words, tty=tty).ok()
            assert not set("\x1b\x07\r\u202e\u2066") & set(done.out + done.err), words


def test_an_empty_list_is_said(run_irons: Runner, fake_api: FakeApi) -> None:
    """Without sandboxes a person gets a line about it on stderr; stdout stays empty, and JSON is an empty list."""
    done = run_irons("list", tty=True).ok()
    assert (done.out, done.err) == ("", "There are no sandboxes; irons create NAME makes one.\n")
    assert run_irons("list", "-o", "json").ok().json() == []


def test_names_alone(run_irons: Runner, fake_api: FakeApi) -> None:
    """`-q` prints names, one a line, on a terminal too; `ls` is `list`."""
    fake_api.add("one")
    fake_api.add("two", "stopped")
    assert run_irons("ls", "-q", tty=True).ok().out == "one\ntwo\n"
    assert run_irons("list").ok().lines[1].startswith("two\tstopped\t")


def test_a_server_without_a_list(run_irons: Runner, fake_api: FakeApi) -> None:
    """Where the server has no list, the names that this client has used are listed, and stderr reports it."""
    fake_api.has_list = False
    fake_api.add("one")
    fake_api.add("two", "stopped")
    run_irons("status", "two").ok()
    run_irons("ssh", "one", "--command").ok()
    done = run_irons("list", "-q").ok()
    assert done.out == "one\ntwo\n"
    assert done.err == "this server has no list of sandboxes: these are the ones this client has used\n"
    run_irons("destroy", "two").ok()
    assert run_irons("list", "-q").ok().out == "one\n"


def test_what_is_gone_is_not_completed(run_irons: Runner, fake_api: FakeApi) -> None:
    """A sandbox that the server no longer knows leaves the names on hand."""
    fake_api.has_list = False
    fake_api.add("one")
    run_irons("status", "one").ok()
    fake_api.sandboxes.clear()
    assert run_irons("status", "one").code == 3
    assert run_irons("list", "-q").ok().out == ""


def test_no_files_outside_the_home(run_irons: Runner, fake_api: FakeApi, tmp_path: Path) -> None:
    """Everything that irons keeps is below the XDG directories, readable by its owner alone."""
    fake_api.add("one")
    run_irons("status", "one").ok()
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)


def test_a_server_that_can_holds_its_answer(run_irons: Runner, own_api: FakeApi) -> None:
    """The server of irons is asked once more, and answers when the sandbox is there; nothing is polled."""
    own_api.add("one", "creating", becomes="ready", polls=10_000)
    run_irons("wait", "one").ok()
    asked = [call for call in own_api.calls if call.line == "GET /sandboxes/one"]
    assert len(asked) <= 4
    assert "wait" in asked[-1].query
