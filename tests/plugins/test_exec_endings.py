"""How a program that exec runs ends, with OpenSSH's own client and server: signals, time, memory, and connections that fail."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import IO

import pytest

from irons.testing import EXTENSIONS, FakeApi
from tests.background import JOBS
from tests.ports import reserved_port

from .conftest import Irons, Sshd, until
from .remote_processes import kill_the_server, running, seconds

ENDING = (
    "irons_plugins.ssh.execute.time_limit.ENDING",
    "irons_plugins.ssh.execute.time_limit.LATE",
    "irons_plugins.ssh.execute.program.ENDING",
)
"""How long the sandbox may take to end what runs there, and to say so."""

_OUT_OF_REACH = r"""#!/bin/sh
# In place of OpenSSH: the program begins, says no more, and no other connection is made.
case "$*" in
  *irons-exec*) printf '\0irons %s began\n' "$(printf %s "$*" | grep -o '[0-9a-f]\{32\}' | head -n 1)" >&2 && exec sleep 600 ;;
esac
exit 255
"""


def _fifo(into: Irons) -> Path:
    fifo = Path(into.env["HOME"]) / "go"
    os.mkfifo(fifo)
    return fifo


@pytest.mark.parametrize(("number", "more"), [(6, []), (9, ["--timeout", "1h"]), (34, [])])
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


def test_a_timeout_ends_all_that_was_started(into: Irons) -> None:
    """On timeout everything that the program started is ended, daemons that left its session included; the code is 124."""
    nap = seconds()
    into.patient = ENDING
    script = f"setsid -f sleep {nap}; (trap '' TERM; sleep {nap}) & exec sleep {nap}"
    done = into("exec", "one", "--timeout", "0.5", "--", "sh", "-c", script)
    assert done.returncode == 124
    assert done.stderr.decode() == "irons: timed out after 0.5 s: all that it started was ended\n"
    assert running(nap) == []


def test_a_timeout_where_the_sandbox_is_out_of_reach(into: Irons, tmp_path: Path) -> None:
    """What ran out of time is not said to have ended where the sandbox can't be reached to end it; the code stays 124."""
    (tmp_path / "bin").mkdir()
    openssh = tmp_path / "bin/ssh"
    openssh.write_text(_OUT_OF_REACH)
    openssh.chmod(0o755)
    env = {"PATH": f"{openssh.parent}:{into.env['PATH']}"}
    done = into("exec", "one", "--timeout", "0.1", "--", "true", env=env)
    assert done.returncode == 124
    sentence = "timed out after 0.1 s: the sandbox could not be reached to end what runs there"
    assert done.stderr.decode() == f"irons: {sentence}\n"


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
    into.patient = ENDING
    nap = seconds()
    process = into.start("exec", "one", "--", "sh", "-c", f"setsid -f sleep {nap}; sleep {nap}", way=way)
    until(lambda: len(running(nap)) == 2)
    fake_api.record("evil.example", allowed=False, verdict="blocked")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"evil.example:443" in said
    assert b"could not be reached" not in said
    assert running(nap) == []


def test_ctrl_c_of_a_terminal_ends_an_exec(into: Irons) -> None:
    """A terminal sends Ctrl-C to OpenSSH's client too, which may end first, while the kept connection holds its pipes."""
    nap = seconds()
    words = into.argv("exec", "one", "--", "sh", "-c", f"sleep {nap}")
    with subprocess.Popen(
        words, env=dict(into.env), start_new_session=True, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        until(lambda: running(nap))
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
    assert b"interrupted" in said
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
    with reserved_port() as port:
        fake_api.ssh = {**sshd.address(), "port": port}
        done = into("exec", "one", "--", "true")
    assert done.returncode == 125
    assert b"Connection refused" in done.stderr


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
