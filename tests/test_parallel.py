"""The suite in several processes: what is alone is alone, nothing is lost of what was not tested, and an interrupt leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from tests.background import interruptible
from tests.local.people import eventually
from tests.parallel import unit

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]
CONFTEST = """
import pytest
pytest_plugins = ["tests.parallel", "tests.machine"]

@pytest.fixture(scope="session")
def room(request):
    made = request.config.rootpath / f"room{request.config.workerinput['workerid']}"
    made.mkdir()
    yield made
    # As long as a test with a sandbox takes to take it down, for those who wait for nothing.
    import threading
    threading.Event().wait(WAIT)
    (made / "used").unlink()
    made.rmdir()
"""
SLEEPER = """
import threading

def test_for_ever(room):
    (room / "used").touch()
    threading.Event().wait()
"""
BUSY = """
import pytest, threading, time
from pathlib import Path

@pytest.fixture(autouse=True)
def noted(request):
    began = time.monotonic()
    yield
    with Path("log").open("a") as log:
        worker = request.config.workerinput["workerid"]
        log.write(f"{worker} {request.node.get_closest_marker('alone') is not None} {began} {time.monotonic()}\\n")

@pytest.mark.alone
@pytest.mark.parametrize("number", range(3))
def test_alone(number):
    threading.Event().wait(0.1)

@pytest.mark.parametrize("number", range(5))
def test_beside(number):
    threading.Event().wait(0.1)
"""
REFUSED = """
import pytest, subprocess

@pytest.mark.needs("there-is-no-such-program")
def test_refused():
    raise AssertionError

@pytest.fixture
def started():
    subprocess.run(["no-such-program-either"])

def test_whose_fixture_starts_it(started):
    raise AssertionError

def test_starts_it():
    subprocess.run(["no-such-program-either"])

def test_of_a_file():
    with pytest.raises(FileNotFoundError):
        open("no-such-file")
"""

DYING = """
import os, pytest

@pytest.fixture
def dying():
    yield
    os._exit(1)

def test_fails(dying):
    assert "what the test" + " has to say" == ""
"""


def begun(place: Path, files: Mapping[str, str], *words: str) -> subprocess.Popen[str]:
    """A run of two workers on test modules of its own."""
    (place / "pytest.ini").write_text("[pytest]\n")
    for name, text in files.items():
        (place / name).write_text(text)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("COVERAGE", "PYTEST"))}
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n2",
        "--dist=loadgroup",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xonsh",
        *words,
    ]
    return subprocess.Popen(
        argv,
        cwd=place,
        env={**env, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def run(place: Path, files: Mapping[str, str], *words: str) -> str:
    """Such a run to its end, which must be good; gives what it wrote."""
    with begun(place, files, *words) as process:
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize(
    ("nodeid", "name"),
    [
        ("tests/core/test_text.py::test_a[x]", "tests/core/test_text.py"),
        ("tests/local/test_cells.py::test_a[root-x]", "tests/local/test_cells.py[root]"),
        ("tests/local/test_cells.py::test_a[x-ordinary]", "tests/local/test_cells.py[ordinary]"),
        ("tests/e2e/test_run.py::test_a[user]", "tests/e2e/[user]"),
        ("tests/e2e/test_leaks.py::test_a[user-x]", "tests/e2e/[user]"),
        ("tests/e2e/test_kills.py::test_a[x-root]", "tests/e2e/[root]"),
        ("tests/e2e/test_bad_state.py::test_a[no name]", "tests/e2e/test_bad_state.py"),
        (
            "tests/local/test_engine.py::test_the_engine_conforms_for_root[a]",
            "tests/local/test_engine.py[root]",
        ),
    ],
)
def test_a_unit_is_a_module_for_one_user(nodeid: str, name: str) -> None:
    """What shares fixtures goes to one worker, and what is for root to another than what is for an ordinary user.

    End to end, a user's modules are one unit.
    """
    assert unit(nodeid) == name


def test_what_is_alone_runs_beside_nothing(tmp_path: Path) -> None:
    """While a test that is marked so runs no other does, and all are run."""
    run(tmp_path, {"conftest.py": CONFTEST, **{f"test_{name}.py": BUSY for name in "abcd"}})
    rows = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert {row[0] for row in rows} == {"gw0", "gw1"}
    times = sorted((float(begin), float(end), alone == "True") for _, alone, begin, end in rows)
    assert len(times) == 4 * 8
    for (_, end, alone), (begin, _, next_alone) in pairwise(times):
        assert end <= begin or not (alone or next_alone)


def test_what_any_worker_did_not_test_is_counted_once(tmp_path: Path) -> None:
    """The last lines, and the file, tell of the tests of all workers; what starts a program asks for it by that."""
    files = {"conftest.py": CONFTEST, **{f"test_{name}.py": REFUSED for name in "abc"}}
    output = run(tmp_path, files, f"--untested={tmp_path / 'told'}")
    assert "  3 tests: there-is-no-such-program: not installed: there-is-no-such-program\n" in output
    assert "  6 tests: no-such-program-either: not installed: no-such-program-either\n" in output
    assert "3 passed, 9 skipped" in output
    assert output.endswith((tmp_path / "told").read_text())


def test_a_worker_that_dies_in_a_teardown_has_told_why_its_test_failed(tmp_path: Path) -> None:
    """What fails is reported at once."""
    with begun(tmp_path, {"conftest.py": CONFTEST, "test_a.py": DYING}, "--max-worker-restart=0") as process:
        output, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "AssertionError: assert 'what the test has to say' == ''" in output


@pytest.mark.parametrize(
    ("number", "everyone"),
    [(signal.SIGINT, True), (signal.SIGHUP, True), (signal.SIGINT, False), (signal.SIGTERM, False)],
    ids=["Ctrl-C", "terminal-lost", "interrupted", "terminated"],
)
def test_an_interrupt_ends_when_every_worker_has_cleaned_up(
    tmp_path: Path, number: signal.Signals, *, everyone: bool
) -> None:
    """Whoever gets the signal, each worker takes its fixtures down, once and in peace, before the run is over."""
    files = {"conftest.py": CONFTEST.replace("WAIT", "1"), "test_a.py": SLEEPER, "test_b.py": SLEEPER}
    with interruptible():
        process = begun(tmp_path, files)
    with process:
        eventually(lambda: len(list(tmp_path.glob("room*/used"))) == 2)
        (os.killpg if everyone else os.kill)(process.pid, number)
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 2, output
    assert not list(tmp_path.glob("room*"))
    # What ended last is gone once its parent, or who took it over, has noticed.
    eventually(lambda: is_gone(process.pid))


def is_gone(group: int) -> bool:
    """Tell whether no process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False
