"""Lines that no one types, in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from irons.testing import FakeApi

pytestmark = pytest.mark.process

Run = Callable[..., "subprocess.CompletedProcess[str]"]
IRONS = [sys.executable, "-m", "irons"]


@pytest.fixture
def run(env: dict[str, str], tmp_path: Path) -> Run:
    """Run `irons WORDS…` with text on stdin."""

    def ran(*words: str, script: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*IRONS, *words],
            input=script,
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return ran


def test_a_script_on_stdin_stops_at_the_first_failure(run: Run) -> None:
    """No prompt, each line in turn, and the exit code of the one that failed."""
    done = run(script="# a script\nlist -q\nuse agent-2; status -o json\nstatus nobody\nlist -q\n")
    assert done.returncode == 3
    assert done.stdout.splitlines()[:2] == ["agent-1", "agent-2"]
    assert len(done.stdout.splitlines()) == 3
    assert '"name": "agent-2"' in done.stdout
    assert "nobody" in done.stderr
    assert "irons>" not in done.stdout + done.stderr


def test_a_script_that_ends_well_ends_with_0(run: Run) -> None:
    """Also without a last line end, and with `exit` in it."""
    assert run(script="list -q").returncode == 0
    assert run(script="list -q\nexit 4\nstatus nobody\n").returncode == 4


def test_lines_given_as_an_option_run(run: Run) -> None:
    """`shell -c` runs its lines, and its commands read stdin."""
    done = run(
        "shell", "-c", "list -q | head -n 1 && !cat\nuse agent-1\nstatus -o json", script="from stdin\n"
    )
    assert done.returncode == 0
    assert done.stdout.startswith("agent-1\nfrom stdin\n{")
    assert run("shell", "-c", "status nobody; list").returncode == 3
    assert run("shell", "-c", "status 'nobody").returncode == 2


def test_a_script_is_not_eaten_by_its_commands(run: Run) -> None:
    """What a command reads is not the rest of the script."""
    done = run(script="!cat\nlist -q | cat\n!echo last\n")
    assert done.stdout == "agent-1\nagent-2\nlast\n"


def test_output_comes_in_order(run: Run) -> None:
    """What commands print and what programs print is not mixed up."""
    done = run(script="list -q\n!echo middle\nlist -q\n")
    assert done.stdout == "agent-1\nagent-2\nmiddle\nagent-1\nagent-2\n"


def test_options_hold_for_every_line(run: Run, env: dict[str, str], fake: FakeApi) -> None:
    """The API's URL and the format given before the script hold in it."""
    url = env.pop("IRONS_API_URL")
    done = run("--api-url", url, "-o", "json", script="list\n")
    assert done.returncode == 0
    assert done.stdout.startswith("[")
    assert run("--debug", "--api-url", url, "shell", "-c", "list").stderr.count("GET ") == 1
    assert all(call.headers.get("Authorization", "").startswith("Bearer ") for call in fake.calls)


def test_lines_are_answered_as_they_come(env: dict[str, str]) -> None:
    """A program that drives irons by a pipe gets each answer before it sends the next line."""
    with subprocess.Popen(
        IRONS, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for name in ("agent-1", "agent-2"):
            process.stdin.write(f"status {name} -o json\n")
            assert f'"name": "{name}"' in process.stdout.readline()
        process.stdin.close()
    assert process.returncode == 0


def test_nothing_on_stdin_gives_help(env: dict[str, str]) -> None:
    """With neither a person nor lines there, irons says what it can do."""
    done = subprocess.run(
        IRONS, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "Daily use:" in done.stdout


def test_a_line_of_a_million_characters_is_one_error(run: Run) -> None:
    """Length alone breaks nothing."""
    for line in ("x" * 1_000_000, "status " + "y" * 1_000_000, "'" * 999_999, "list " + "-" * 1_000_000):
        done = run(script=f"{line}\nlist\n")
        assert done.returncode == 2
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert len(done.stderr) < 5000


def test_nul_and_control_characters_are_one_error(run: Run) -> None:
    """They are refused at their column and shown as escapes."""
    done = run(script="status \x00x\x1b[2J\n")
    assert done.returncode == 2
    assert "control character" in done.stderr
    assert "\x1b" not in done.stderr
