"""What start-up costs, counted in instructions where that can be done: the same on a busy machine as on a quiet one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.process

PROGRAM = Path(__file__).parents[2] / "bench" / "startup.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The benchmark, as a module."""
    spec = spec_from_file_location("startup", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["startup"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.needs("valgrind", optional=True)
def test_no_start_takes_more_instructions_than_its_bar(bench: ModuleType, tmp_path: Path) -> None:
    """`--version`, `--help` and a completion stay below so many times the bare interpreter's instructions."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "IRONS_PLUGINS": ""}
    wanted = [case for case in bench.cases("http://127.0.0.1:1") if not case.bar or case.bar <= 8]
    for case in wanted:
        subprocess.run(case.argv, env=env, check=True, stdout=subprocess.DEVNULL)  # leaves compiled modules
    counted = {case.name: bench.instructions(case, env) for case in wanted}
    for case in wanted:
        if case.bar:
            assert counted[case.name] / counted[bench.BARE.name] <= case.bar, counted
    # The same environment: what its .pth files cost counts on both sides.
    assert counted["irons --help"] / counted["python -c pass"] <= 3.5, counted


def test_the_benchmark_measures_every_case() -> None:
    """The program runs through, with a row for each case, no matter what the machine makes of the bars."""
    done = subprocess.run(
        [sys.executable, PROGRAM, "--runs", "2", "--no-valgrind"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    for name in (
        "python -I -S -c pass",
        "irons --version",
        "irons --help",
        "irons __complete ''",
        "irons status NAME",
    ):
        assert f"\n{name}" in done.stdout
