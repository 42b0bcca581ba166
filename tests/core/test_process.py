"""`irons` as a process: exit codes, broken pipes, Ctrl-C, closed streams, full disks, tracebacks and keys."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.background import JOBS, job
from tests.ports import reserved_port

from irons import __version__
from irons.testing import FakeApi, faults

pytestmark = pytest.mark.process

IRONS = [sys.executable, "-m", "irons"]
KEY = "very-secret-key-0123456789"


@pytest.fixture
def env(irons_env: dict[str, str], fake_api: FakeApi) -> dict[str, str]:
    """An environment for processes, whose API is the fake."""
    measured = {key: value for key, value in os.environ.items() if key.startswith("COVERAGE")}
    return {**irons_env, **measured, "IRONS_API_URL": fake_api.url, "PYTHONPATH": ""}


def run(env: dict[str, str], *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run `irons WORDS…` to its end."""
    return subprocess.run(
        [*IRONS, *words], env=env, capture_output=True, text=True, timeout=60, check=False, **more
    )


def test_the_version(env: dict[str, str]) -> None:
    """The version is reported wherever it is asked for, and by the console script too."""
    wanted = f"irons {__version__}\n"
    script = str(Path(sys.executable).with_name("irons"))
    for argv in (
        [*IRONS, "--version"],
        [script, "-V"],
        [*IRONS, "--debug", "--version"],
        [*IRONS, "list", "--version"],
    ):
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == (wanted, "")


def test_head_ends_it_quietly(env: dict[str, str], fake_api: FakeApi) -> None:
    """Whoever reads the first line and goes causes neither a word on stderr nor a failure."""
    for number in range(3000):
        fake_api.add(f"sandbox-{number:05}")
    for words in (
        "list",
        "list -o json",
        "list -o jsonl",
        "list -o table",
        "--help",
        "--version",
        "__complete ''",
    ):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{' '.join(IRONS)} {words} | head -c 1"],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, words
        assert done.stderr == "", words


@pytest.mark.parametrize("words", ["list", "--help", "config path"])
def test_a_full_disk_is_told(env: dict[str, str], fake_api: FakeApi, words: str) -> None:
    """An answer that can't be written is a failure, not half an answer with exit 0."""
    fake_api.add("one")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*IRONS, *words.split()],
            env=env,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(("words", "code"), [("config path", 0), ("no-such-command", 2)])
def test_a_full_pipe_that_does_not_block_is_waited_for(env: dict[str, str], words: str, code: int) -> None:
    """Where another process has set a pipe so, and its reader is slow, an answer and an error are whole all the same."""
    wanted = subprocess.run([*IRONS, *words.split()], env=env, capture_output=True, timeout=60, check=False)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(writing, b"." * 4096)
    with os.fdopen(reading, "rb") as pipe:
        with subprocess.Popen([*IRONS, *words.split()], env=env, stdout=writing, stderr=writing) as process:
            os.close(writing)
            _until(lambda: _waits_for_room(process.pid) or process.poll() is not None)
            assert process.poll() is None
            out = pipe.read()
        assert process.returncode == wanted.returncode == code
    assert out[filled:] == wanted.stdout + wanted.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(env: dict[str, str], fake_api: FakeApi, closed: str) -> None:
    """A stream that was closed before the start is done without."""
    fake_api.add("one")
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(IRONS)} list {closed}"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("way", JOBS)
def test_ctrl_c_ends_a_call_at_once(env: dict[str, str], fake_api: FakeApi, way: str) -> None:
    """SIGINT while a server is slow gives 130, one line, and no traceback; also where it was ignored to begin with."""
    # The server never answers, and the call would wait for longer than the test lasts.
    fake_api.fail(faults.held(threading.Event()), times=9)
    env["IRONS_READ_TIMEOUT"] = "3600"
    process = subprocess.Popen(
        job(way, [*IRONS, "list"]), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _until(lambda: fake_api.calls)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == ("", "irons: interrupted\n")


def test_ctrl_c_on_the_way_out_changes_no_exit_code(env: dict[str, str]) -> None:
    """A shell may pass on a Ctrl-C that the terminal has sent too: what comes when the code is decided does nothing."""
    code = (
        "import atexit, os, signal, sys\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "from irons.__main__ import main\n"
        "sys.exit(main())"
    )
    argv = [sys.executable, "-c", code, "config", "get", "nothing"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def _waits_for_room(pid: int) -> bool:
    """Tell whether a process sleeps in poll or select; where the kernel does not say in what, whether it sleeps."""
    with contextlib.suppress(OSError):
        place = Path(f"/proc/{pid}/wchan").read_text()
        if place != "0":
            return "poll" in place or "select" in place
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def _until(holds: Callable[[], object], seconds: float = 200.0) -> None:
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        pause.wait(0.02)


def test_an_unreachable_server_is_told_in_time(env: dict[str, str]) -> None:
    """A port where no one listens gives exit 6 within the connect timeout, which is longer than the test lasts."""
    env["IRONS_CONNECT_TIMEOUT"] = "3600"
    with reserved_port() as port:
        env["IRONS_API_URL"] = f"http://127.0.0.1:{port}"
        done = run(env, "list")
    assert done.returncode == 6
    assert done.stdout == ""
    assert env["IRONS_API_URL"] in done.stderr
    assert "IRONS_API_URL" in done.stderr


def test_a_socket_that_is_not_there_is_told(env: dict[str, str], tmp_path: Path) -> None:
    """A unix socket that no one serves gives exit 6 too."""
    done = run({**env, "IRONS_API_URL": f"unix://{tmp_path}/none.sock"}, "list")
    assert done.returncode == 6
    assert "did not answer" in done.stderr


@pytest.mark.parametrize("place", ["flag", "variable", "file"])
def test_debug_tells_requests_and_never_the_key(env: dict[str, str], fake_api: FakeApi, place: str) -> None:
    """`--debug` prints method, URL, status, time and the id that was sent to stderr; the key is nowhere, not even where it is refused."""
    fake_api.key = KEY
    fake_api.add("one")
    words = ["--debug", "status", "one"]
    if place == "flag":
        words += ["--api-key", KEY]
    elif place == "variable":
        env["IRONS_API_KEY"] = KEY
    else:
        path = Path(env["XDG_CONFIG_HOME"]) / "irons" / "config.toml"
        path.parent.mkdir(parents=True)
        path.write_text(f'api_key = "{KEY}"\n')
    done = run(env, *words)
    assert done.returncode == 0, done.stderr
    assert f"GET {fake_api.url}/sandboxes/one 200 " in done.stderr
    shown = re.search(r" ms, request ([0-9a-f]{16})$", done.stderr.rstrip())
    assert shown is not None
    assert {call.headers["X-Irons-Request"] for call in fake_api.calls} == {shown[1]}
    fake_api.key = "another"
    refused = run(env, *words)
    assert refused.returncode == 4
    assert "Traceback" in refused.stderr
    for outcome in (done, refused):
        assert "very-secret" not in outcome.stdout + outcome.stderr


def test_a_traceback_is_told_only_when_asked_for(env: dict[str, str], tmp_path: Path) -> None:
    """Something that breaks inside is one line and a hint; with `--debug` the traceback comes first."""
    (tmp_path / "irons_broken.py").write_text(
        "from irons import Command, hookimpl\n"
        "@hookimpl\n"
        "def irons_commands():\n"
        "    return [Command(('broken',), 'Break.', 'irons_broken:run')]\n"
        "def run(ctx):\n"
        "    raise ValueError('deep\\x1b inside')\n"
    )
    info = tmp_path / "irons_broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: irons-broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[irons]\nbroken = irons_broken\n")
    env |= {"PYTHONPATH": str(tmp_path), "IRONS_PLUGINS": "broken"}
    done = run(env, "broken")
    assert done.returncode == 1
    assert done.stderr == (
        "irons: plugin broken, command broken: ValueError: deep\\x1b inside\n"
        "  the fault is in irons-broken 1; run it again with --debug for the traceback\n"
    )
    assert run(env, "broken", "--debug").stderr.startswith("Traceback")
    assert "error" in run(env, "broken", "-o", "json").stderr


def test_output_without_an_encoding_for_it(env: dict[str, str], fake_api: FakeApi) -> None:
    """A terminal that knows ASCII alone gets signs that stand for irons' own, and escapes of all else, not a traceback."""
    fake_api.add("one", metadata={"image": "größe"})
    done = run({**env, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}, "status", "one", "-o", "table")
    assert done.returncode == 0
    assert "state:   * ready\n" in done.stdout
    assert "image:   gr\\xf6\\xdfe\n" in done.stdout
    done = run({**env, "PYTHONIOENCODING": "latin-1", "LC_ALL": "C"}, "--help")
    assert done.stdout.startswith("usage: irons COMMAND ... [options]\n")


def test_without_words_and_without_a_terminal(env: dict[str, str]) -> None:
    """`irons` in a pipe runs the lines it is given; with nothing to read it shows its help."""
    assert run(env, stdin=subprocess.DEVNULL).stdout.startswith("usage: irons ")


def test_another_program_takes_this_ones_place(
    env: dict[str, str], fake_api: FakeApi, tmp_path: Path
) -> None:
    """A command that becomes another program ends with that program's code; where there is none, one line reports it."""
    fake_api.add("one")
    fake = tmp_path / "bin" / "ssh"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexit 41\n")
    fake.chmod(0o755)
    assert run({**env, "PATH": f"{fake.parent}:{env['PATH']}"}, "ssh", "one").returncode == 41
    done = run({**env, "PATH": str(tmp_path)}, "ssh", "one")
    assert done.returncode in (1, 125)
    assert "ssh" in done.stderr
    assert "Traceback" not in done.stderr
