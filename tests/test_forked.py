"""The tests in forks: each is run once and reported, what a fork does not report is a failure, and an interrupt leaves nothing."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from functools import partial
from pathlib import Path

import pytest

from tests import test_parallel
from tests.background import interruptible
from tests.local.people import eventually
from tests.test_parallel import SLEEPER, is_gone

pytestmark = pytest.mark.process

CONFTEST = """
import os, pytest
pytest_plugins = ["tests.parallel", "tests.forked"]

@pytest.fixture(scope="session")
def room(request):
    made = request.config.rootpath / f"room{os.getpid()}"
    made.mkdir()
    yield made
    # As long as a test with a sandbox takes to take it down, for those who wait for nothing.
    import threading
    threading.Event().wait(1)
    (made / "used").unlink()
    made.rmdir()
"""
MEETING = """
import os, pytest

@pytest.fixture(scope="session")
def of_session(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")

def note(pytestconfig, *words):
    with (pytestconfig.rootpath / "log").open("a") as log:
        print(NAME, os.getpid(), *words, file=log)

def test_meets_the_other(pytestconfig):
    os.close(os.open(pytestconfig.rootpath / "meeting", os.O_WRONLY if NAME == "a" else os.O_RDONLY))
    note(pytestconfig, "meets")

@pytest.mark.parametrize("number", range(3))
def test_writes(number, tmp_path, of_session, pytestconfig):
    (tmp_path / "mine").touch(exist_ok=False)
    note(pytestconfig, tmp_path, of_session)
"""
FAILING = """
import os

def test_fails():
    print("what it", "printed")
    os.write(2, b"what it " + b"wrote")
    assert "what the test" + " has to say" == ""

def test_passes():
    pass
"""
CRASHING = """
import os

def test_passes():
    pass

def test_crashes():
    os.kill(os.getpid(), 9)

def test_is_after_it():
    pass
"""
begun = partial(test_parallel.begun, workers=("--forks=2",))


def ended(place: Path, files: dict[str, str], *words: str) -> tuple[int, str]:
    """Run such tests to their end; the exit code, and what was written."""
    with begun(place, {"conftest.py": CONFTEST, **files}, *words) as process:
        output, _ = process.communicate(timeout=300)
    return process.returncode, output


def test_each_test_is_run_once_and_a_module_in_one_process(tmp_path: Path) -> None:
    """Two modules that wait for one another run in two forks; their directories are their own, fixtures of a session a fork's."""
    os.mkfifo(tmp_path / "meeting")
    files = {f"test_{name}.py": MEETING.replace("NAME", repr(name)) for name in "ab"}
    code, output = ended(tmp_path, files)
    assert (code, "8 passed" in output) == (0, True), output
    rows = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    found: dict[str, list[list[str]]] = defaultdict(list)
    for name, *row in rows:
        found[name].append(row)
    assert {name: len(each) for name, each in found.items()} == {"a": 4, "b": 4}
    pids = [{row[0] for row in each} for each in found.values()]
    assert [len(each) for each in pids] == [1, 1]
    assert not pids[0] & pids[1]
    written = [row[1:] for each in found.values() for row in each if len(row) == 3]
    assert len({own for own, _ in written}) == 6
    assert len({shared for _, shared in written}) == 2


def test_what_fails_is_reported_with_what_it_printed(tmp_path: Path) -> None:
    """As in one process, and the run has failed."""
    code, output = ended(tmp_path, {"test_a.py": FAILING})
    assert code == 1
    assert "1 failed, 1 passed" in output
    for said in ("assert 'what the test has to say' == ''", "what it printed\n", "what it wrote"):
        assert output.count(said) == 1, output


def test_the_first_failure_ends_a_run_that_asks_for_that(tmp_path: Path) -> None:
    """With `-x` the fork runs nothing after it, and what no fork has begun is left."""
    code, output = ended(tmp_path, {"test_a.py": FAILING}, "-x")
    assert code == 1
    assert "stopping after 1 failures" in output
    assert "passed" not in output


def test_tests_of_a_fork_that_crashes_have_failed(tmp_path: Path) -> None:
    """The one that it ran, and those after it in its module, say how it ended; other modules are run."""
    passing = "def test_passes():\n    pass\n"
    code, output = ended(tmp_path, {"test_a.py": CRASHING, "test_b.py": passing})
    assert code == 1
    assert "2 failed, 2 passed" in output
    assert output.count("not reported, and a process that ran tests ended early: SIGKILL") == 2, output


def test_an_error_of_collecting_is_reported(tmp_path: Path) -> None:
    """Then nothing is run."""
    code, output = ended(tmp_path, {"test_a.py": "import no_such_module", "test_b.py": "def test_b(): pass"})
    assert code == 2
    assert "1 error" in output
    assert "passed" not in output


@pytest.mark.parametrize(
    ("number", "everyone"),
    [(signal.SIGINT, True), (signal.SIGHUP, True), (signal.SIGINT, False), (signal.SIGTERM, False)],
    ids=["Ctrl-C", "terminal-lost", "interrupted", "terminated"],
)
def test_an_interrupt_ends_when_every_fork_has_cleaned_up(
    tmp_path: Path, number: signal.Signals, *, everyone: bool
) -> None:
    """Whoever gets the signal, each fork takes its fixtures down, once and in peace, before the run is over."""
    files = {"conftest.py": CONFTEST, "test_a.py": SLEEPER, "test_b.py": SLEEPER}
    with interruptible():
        process = begun(tmp_path, files)
    with process:
        eventually(lambda: len(list(tmp_path.glob("room*/used"))) == 2)
        (os.killpg if everyone else os.kill)(process.pid, number)
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 2, output
    assert not list(tmp_path.glob("room*"))
    assert is_gone(process.pid)
