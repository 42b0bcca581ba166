"""How the sandbox's part of `exec` tells a death by a signal from an exit code, with the reporter of irons' kit and without."""

from __future__ import annotations

import secrets
import shlex
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from irons_plugins.ssh.execute.remote_script import REPORTER, run_line
from irons_plugins.ssh.openssh.marks import Marks
from tests.background import interruptible
from tests.machine import Machine

pytestmark = pytest.mark.process

TOKEN = "0123456789abcdef" * 2
PERL = "/usr/bin/perl"
"""What the kit's is made of."""

SHELLS = [["dash"], ["bash", "--posix"], ["busybox", "sh"]]
GIVEN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}


class Told(NamedTuple):
    """What came of a program: its streams without the marks, and its end as the sandbox's part reported it."""

    out: str
    err: str
    end: tuple[int, str] | None


def ran(
    *words: str, shell: list[str] = SHELLS[0], reporter: str = PERL, env: Mapping[str, str] = GIVEN
) -> Told:
    """Run a program by the sandbox's part, on this machine."""
    _, *given = shlex.split(run_line(words, token=TOKEN).replace(REPORTER, reporter))
    at = given.index("sh")
    argv = [*given[:at], *shell, *given[at + 1 :]]
    with interruptible():
        done = subprocess.run(
            argv, env=dict(env), stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
        )
    marks = Marks(TOKEN)
    err = marks.feed(done.stderr) + marks.finish()
    # 255 is what OpenSSH says of a connection that was lost.
    assert marks.end is None or min(marks.end.code, 254) == done.returncode
    return Told(done.stdout.decode(), err.decode(), marks.end)


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def shell(request: pytest.FixtureRequest, machine: Machine) -> list[str]:
    """A shell that a sandbox may have as `sh`."""
    words: list[str] = request.param
    machine.require(words[0])
    return words


@pytest.mark.parametrize("number", [1, 2, 3, 6, 8, 9, 11, 13, 14, 15, 34])
def test_each_signal_is_told(shell: list[str], number: int) -> None:
    """INT and PIPE too, of which no shell speaks; and nothing is written next to."""
    assert ran("sh", "-c", f"kill -{number} $$", shell=shell) == ("", "", (128 + number, "yes"))


@pytest.mark.parametrize("code", [0, 1, 126, 130, 137, 141, 255])
def test_a_code_is_no_signal(shell: list[str], code: int) -> None:
    """A program that exits with such a code by itself was killed by nothing."""
    assert ran("sh", "-c", f"exit {code}", shell=shell) == ("", "", (code, "no"))


@pytest.mark.parametrize("reporter", [PERL, "/none"])
def test_what_can_not_be_started_is_told(shell: list[str], reporter: str) -> None:
    """What is not there is 127, what is not a program 126, each in a sentence without a line of the script."""
    absent, directory = (
        ran("no-such-program", shell=shell, reporter=reporter),
        ran("/usr", shell=shell, reporter=reporter),
    )
    assert absent == ("", "irons: there is no program no-such-program in the sandbox\n", (127, "no"))
    assert directory == ("", "irons: /usr cannot be run in the sandbox: permission denied\n", (126, "no"))


@pytest.mark.parametrize("reporter", [PERL, "/none"])
def test_a_search_by_command_line_finds_the_program_alone(shell: list[str], reporter: str) -> None:
    """`pgrep -f` and `pkill -f` in exec do not meet the processes of irons that run them; no word is lost for that."""
    assert ran("pgrep", "-f", secrets.token_hex(16), shell=shell, reporter=reporter) == ("", "", (1, "no"))
    script = 'echo "$1"; env | grep -e IRONS_RUN -e IRONS_WORDS'
    assert (
        ran("/bin/sh", "-c", script, "sh", "a  'b'\nc", shell=shell, reporter=reporter).out == "a  'b'\nc\n"
    )


@pytest.mark.parametrize(
    "env",
    [{}, {"PERL_BADLANG": "1"}, {"LC_ALL": "xx_YY.UTF-8"}, {"token": "mine", "code": "x", "PERL5LIB": "/x"}],
    ids=lambda env: " ".join(env) or "plain",
)
def test_the_program_is_as_without_it(shell: list[str], env: dict[str, str]) -> None:
    """It has the same variables, none of them the script's, and no other descriptor open; nothing complains of a locale."""
    script = "env | grep -v '^_=' | sort; cd /proc/self/fd && echo [0-9]*; grep Sig[BIC] /proc/self/status"
    given = {**GIVEN, **env}
    with_it, without = (
        # By its path: a busybox prefers programs of its own to those of that name.
        ran("/bin/sh", "-c", script, shell=shell, reporter=each, env=given)
        for each in (PERL, "/none")
    )
    assert with_it == without
    assert {f"{name}={value}" for name, value in env.items()} <= set(with_it.out.splitlines())


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "PERL5OPT"])
def test_what_would_change_it_is_left_to_the_program(name: str) -> None:
    """Where a variable would change how the reporter runs, it is not used, and the sentence says no more than is known."""
    told = ran("sh", "-c", "kill -INT $$", env={**GIVEN, name: "-Mnothing" if "OPT" in name else "/none.so"})
    assert told.end == (130, "maybe")


def test_a_reporter_that_is_killed_is_no_end_of_the_program() -> None:
    """Then what the shell reports counts."""
    assert ran("sh", "-c", "kill -KILL $PPID").end == (137, "yes")
