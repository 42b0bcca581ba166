"""What the gate of coverage uses: data that a kill cut short cannot fail the run, nor hide what others covered."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

PROGRAM = Path(__file__).with_name("whole_data.py")


def unwritten(path: Path) -> None:
    """Nothing was written yet."""
    path.write_bytes(b"")


def without_tables(path: Path) -> None:
    """The database was made, its tables not."""
    path.unlink()
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE other (a)")
    made.close()


def half(path: Path) -> None:
    """The latter half is missing."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def torn(path: Path) -> None:
    """One page in the middle was never written: reading it begins well."""
    with sqlite3.connect(path) as made:
        (page,) = made.execute("SELECT rootpage FROM sqlite_master WHERE name = 'line_bits'").fetchone()
        (size,) = made.execute("PRAGMA page_size").fetchone()
    made.close()
    data = bytearray(path.read_bytes())
    data[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(data)


def test_data_cut_short_is_left_out(tmp_path: Path) -> None:
    """Of four damaged files and two whole ones, the two are combined and reported, and the run goes on."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    env["COVERAGE_FILE"] = str(tmp_path / "data")

    def python(*words: str) -> str:
        return subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=env, check=True, capture_output=True, text=True
        ).stdout

    for number in range(6):
        (tmp_path / f"m{number}.py").write_text("a = 1\n" * (number + 1))
        python("-m", "coverage", "run", "--parallel-mode", "--include", "m*.py", f"m{number}.py")
    made = sorted(tmp_path.glob("data.*"))
    assert len(made) == 6
    for damage, path in zip((unwritten, without_tables, half, torn), made, strict=False):
        damage(path)
    assert python(str(PROGRAM), *map(str, made)).startswith("Left out 4 of 6 files")
    assert sorted(tmp_path.glob("data.*")) == made[4:]
    python("-m", "coverage", "combine", "--quiet")
    assert python("-m", "coverage", "report").count("100%") == 3
    assert python(str(PROGRAM)) == ""
