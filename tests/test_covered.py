"""What the gate of coverage uses: every process counts, however it ends, and one that is killed spoils nothing."""

from __future__ import annotations

import marshal
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import covered
from tests.covered import ROOT, install, pair, remove, union

pytestmark = pytest.mark.process

PROGRAM = Path(covered.__file__)
SOURCE = """
import os, signal, sys, threading

def last():
    return 1

def comes_back():
    last()

def in_a_thread():
    thread = threading.Thread(target=last)
    thread.start()
    thread.join()

def leaves():
    last()
    os._exit(0)

def is_terminated():
    last()
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()

def becomes_another():
    last()
    os.execv("/bin/true", ["true"])

def becomes_another_by_environment():
    last()
    os.execve("/bin/true", ["true"], {})

def begins_by_exec():
    if "again" not in sys.argv:
        os.execve(sys.executable, [*sys.orig_argv, "again"], {})
    last()

def in_a_fork():
    pid = os.fork()
    if not pid:
        last()
        return
    os.waitpid(pid, 0)
    os.kill(os.getpid(), signal.SIGKILL)
"""
LAST = SOURCE.splitlines().index("    return 1") + 1


def python(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter without what measures the process that calls it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    return subprocess.run(
        [sys.executable, *words], env={**kept, **env}, cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", [line[4:-3] for line in SOURCE.splitlines()[6:] if line.startswith("def ")])
def test_a_process_counts_however_it_ends(tmp_path: Path, name: str) -> None:
    """What it ran last is in its piece, and the lines that it did not run are not."""
    for directory in ("packages", "pieces", "sources"):
        (tmp_path / directory).mkdir()
    source = tmp_path / "sources" / "ends.py"
    source.write_text(SOURCE)
    install(tmp_path / "packages", (f"{tmp_path}/sources/",))
    begin = f"import site, sys; site.addsitedir('{tmp_path}/packages'); sys.path.append('{tmp_path}/sources')"
    done = python("-SIc", f"{begin}; import ends; ends.{name}()", COVERAGE_PIECES=str(tmp_path / "pieces"))
    assert done.stderr == ""
    assert done.returncode == {"is_terminated": -signal.SIGTERM, "in_a_fork": -signal.SIGKILL}.get(name, 0)
    ran, cut = union((tmp_path / "pieces").iterdir())
    assert cut == 0
    assert set(ran) == {str(source)}
    lines = {abs(line) for packed in ran[str(source)] for line in pair(packed)}
    assert LAST in lines
    assert len(lines) < len(SOURCE.splitlines())


def test_what_is_installed_is_removed(tmp_path: Path) -> None:
    """Nothing of it stays in the virtual environment."""
    install(tmp_path)
    assert list(tmp_path.iterdir())
    remove(tmp_path)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_a_piece_cut_short_is_left_out(tmp_path: Path) -> None:
    """Of a whole piece and three damaged ones the whole one counts, and sources that no process ran are reported too."""
    whole = marshal.dumps({str(ROOT / "core/irons/version.py"): (1 << 56 | 1 | 1 << 28,)})
    pieces = {"whole": whole, "empty": b"", "half": whole[: len(whole) // 2], "torn": b"\xff" * len(whole)}
    (tmp_path / "pieces").mkdir()
    for name, data in pieces.items():
        (tmp_path / "pieces" / name).write_bytes(data)
    file = str(tmp_path / "data")
    combined = python(str(PROGRAM), "combine", str(tmp_path / "pieces"), COVERAGE_FILE=file)
    assert combined.stdout == "Coverage of 1 processes; 3 more were killed while they wrote theirs.\n"
    only = "--include=core/irons/version.py,core/irons/__main__.py"
    report = python("-m", "coverage", "report", only, COVERAGE_FILE=file).stdout
    shown = {words[0]: words[-1] for line in report.splitlines() if (words := line.split())}
    assert shown["core/irons/__main__.py"] == "0%"
    assert shown["core/irons/version.py"] != "0%"
