"""`make tour`'s program for an ordinary user; `test_quickstart.py` runs it for root."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.lab import Person, eventually

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.mark.parametrize("person", ["user"], indirect=True)
def test_the_tour_passes_every_stop_and_leaves_nothing(person: Person, place: Path) -> None:
    """Each stop is printed with its place, in the order of the promise, and the sandbox and the daemon are gone."""
    room = place / "tour"
    shutil.copytree(TOOLS, room / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    python = str(Path(person.program[0]).with_name("python"))
    person.ok("local", "down")
    try:
        done = subprocess.run(
            [*person.lab.enter(user=person.user), python, "-m", "tools.tour"],
            env={**person.env, "PYTHONPATH": str(room)},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        eventually(lambda: not _of_the_tour(), what="its processes to be gone")
    finally:
        person.ok("local", "up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Hello from outside.\n" in done.stdout
    stops = re.findall(r"^ *\d+ +([\d.]+)  (\S+):(\d+)  (\S+)$", done.stdout, re.MULTILINE)
    times = [float(time) for time, *_ in stops]
    assert times == sorted(times)
    names = [name for *_, name in stops]
    promise = ["Journal.open", "judge", "refusal", "Entry.verdict", "dial", "Entry.close", "RunIntake.record"]
    assert [name for name in names if name in promise] == promise
    for _, file, line, name in stops:
        begins = (room / file).read_text().splitlines()[int(line) - 1 : int(line) + 2]
        assert any(f"def {name.rpartition('.')[2]}(" in text for text in begins), (file, line, name)
    assert person.run("status", "tour").returncode == 3


def _of_the_tour() -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if _is_of_the_tour(path)]


def _is_of_the_tour(cmdline: Path) -> bool:
    try:
        return b"tools.tour" in cmdline.read_bytes()
    except OSError:
        return False
