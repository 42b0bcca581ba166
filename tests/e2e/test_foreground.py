"""`irons local up --foreground`, as a service manager runs it: it stays, ends everything when asked to, and fails when the daemon does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from irons_local.linux.namespaces import birth
from tests.background import job
from tests.e2e.lab import Person, eventually
from tests.e2e.test_kills import api_answers, pids


@contextmanager
def staying(person: Person, way: str = "foreground") -> Iterator[subprocess.Popen[str]]:
    """The command, started as a job of this kind, once the backend serves."""
    person.run("local", "down")
    person = replace(person, program=tuple(job(way, person.program)))
    with person.start("local", "up", "--foreground") as process:
        eventually(lambda: api_answers(person), what="the backend to serve")
        yield process
    person.ok("local", "up")


def ended(processes: dict[str, int]) -> bool:
    """Whether none of them is there any more."""
    return all(birth(pid) is None for pid in processes.values())


@pytest.mark.parametrize(
    ("number", "way"),
    [(signal.SIGTERM, "foreground"), (signal.SIGINT, "foreground"), (signal.SIGINT, "background")],
)
def test_told_to_end_it_ends_all_but_the_sandboxes(
    person: Person, sandbox: str, number: signal.Signals, way: str
) -> None:
    """A service manager's signal, and Ctrl-C, end all three processes with exit code 0; the sandbox runs on as it was."""
    boot = "cut -d' ' -f22 /proc/1/stat"
    began = person.inside(sandbox, boot).stdout
    with staying(person, way) as process:
        processes = pids(person)
        # What the test started is nsenter or irons itself, by the one exec after the other.
        os.kill(process.pid, number)
        assert process.wait(timeout=180) == 0
        assert ended(processes)
    assert person.inside(sandbox, boot).stdout == began


def test_a_down_elsewhere_ends_it_in_peace(person: Person) -> None:
    """`irons local down` is not a failure: a service manager does not start it again."""
    with staying(person) as process:
        person.ok("local", "down")
        assert process.wait(timeout=180) == 0


def test_it_shows_the_logs(person: Person) -> None:
    """What the processes log from its start on is on stderr, each line with the name of its process."""
    with staying(person) as process:
        person.ok("local", "down")
        assert process.wait(timeout=180) == 0
        assert process.stderr is not None
        said = process.stderr.read()
        assert re.search(r"^server: .* INFO: irons \S+ serves ", said, re.MULTILINE)


def test_the_keepers_death_is_a_failure(person: Person) -> None:
    """Where the keeper ends by itself so does the command, with 1 and a line that says so: a service manager starts it again."""
    with staying(person) as process:
        os.kill(pids(person)["keeper"], signal.SIGKILL)
        assert process.wait(timeout=180) == 1
        assert process.stderr is not None
        assert "the keeper ended by itself; sandboxes run on" in process.stderr.read()
