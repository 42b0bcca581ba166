"""The suite itself on a machine that refuses things: nothing fails, and the last lines say what was not tested and why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.needs("root", "user-namespaces", "networks")

# Tests of every kind: those that make users, cells, networks and images, and those that need nothing of the machine.
SUBSET = (
    "tests/local/test_cells.py",
    "tests/local/test_doctor.py",
    "tests/local/test_engine_failures.py",
    "tests/local/test_host_network.py",
    "tests/local/test_image.py",
    "tests/local/test_image_archives.py",
    "tests/local/test_link.py",
    "tests/local/test_readiness.py",
    "tests/local/gateway/test_nflog.py",
    "tests/plugins/test_removal.py",
    "tests/core/test_settings.py",
)


def _suite(*words: str, refused: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run part of the suite on such a machine."""
    pytest_words = [sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", *words]
    return subprocess.run(
        [sys.executable, "-m", "tests.refusing", *refused, "--", *pytest_words],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def test_without_user_namespaces_nothing_fails_and_the_end_says_what_was_left_out() -> None:
    """What needs neither users nor namespaces is tested; the rest is skipped with doctor's words, counted at the end."""
    done = _suite(*SUBSET, refused=("--no-user-namespaces", "--read-only-etc"))
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    before, heading, last = done.stdout.partition("Not tested, because this machine refuses it:\n")
    assert heading
    counts = before.splitlines()[-1]
    assert re.search(r"[0-9]{3} passed, [0-9]+ skipped", counts), counts
    assert all(re.match(r"  [0-9]+ tests?: ", line) for line in last.splitlines()), last
    assert re.search(
        r" tests: user-namespaces: user namespaces are switched off; .*max_user_namespaces", last
    )
    assert re.search(r" tests: users: /etc is not writable", last)


def test_without_the_right_to_make_networks_nothing_fails() -> None:
    """In an ordinary container, which may not make namespaces of any kind, those tests are left out too."""
    done = _suite(
        "tests/local/gateway/test_nflog.py",
        "tests/local/test_host_network.py",
        refused=("--no-admin", "--no-user-namespaces"),
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert "tests: networks: network and mount namespaces cannot be made" in done.stdout


def test_where_all_is_required_what_is_refused_fails() -> None:
    """With `--require all`, as CI runs it, a machine that refuses something cannot pass."""
    words = ("--require", "all", "tests/local/test_image_archives.py", "-k", "root_file_system or bad_input")
    done = _suite(*words, refused=("--no-user-namespaces",))
    assert done.returncode == 1, done.stdout
    assert "this machine refuses what the test needs (user-namespaces: " in done.stdout
    assert "1 passed" in done.stdout


def test_what_was_not_tested_is_left_in_a_file_too(tmp_path: Path) -> None:
    """`make check` prints it after all that follows the tests."""
    told = tmp_path / "untested"
    words = ("--untested", str(told), "tests/local/test_image_archives.py", "-k", "root_file_system")
    done = _suite(*words, refused=("--no-user-namespaces",))
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(told.read_text())
    assert "1 test: user-namespaces: " in told.read_text()
