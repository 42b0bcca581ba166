"""The namespace engine for real: conformance and attacks, as root and as an ordinary user made by the test."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.engine_attacks import ATTACKS
from tests.local.engine_layers import LAYERS
from tests.users import change_users

from irons_local.engines.conformance import CHECKS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

Results = dict[str, str]


def _run(words: list[str], env: dict[str, str], directory: Path, archive: Path) -> Results:
    with (
        (directory.parent / f"{directory.name}.said").open("w+") as said,
        subprocess.Popen(
            [*words, "-P", "-m", "tests.local.engine_run", str(directory / "work"), str(archive)],
            env=env,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as running,
    ):
        assert running.stdin is not None
        assert running.stdout is not None
        try:
            told = running.stdout.read()
        finally:
            # It takes its sandboxes down first where it is not done yet.
            running.stdin.close()
            running.wait(300)
        said.seek(0)
        assert running.returncode == 0, said.read()
    results: Results = json.loads(told)
    assert list(directory.iterdir()) == [directory / "work"]
    return results


def _copy_sources(place_for_all: Path) -> str:
    """Copy what the program needs to where everybody can read it; gives its PYTHONPATH."""
    sources = place_for_all / "sources"
    if not sources.exists():
        for package in ("core/irons", "core/irons_policy", "plugins/irons_local", "plugins/irons_plugins"):
            shutil.copytree(ROOT / package, sources / Path(package).name)
        found = importlib.util.find_spec("pluggy")
        assert found is not None
        assert found.origin is not None
        shutil.copytree(Path(found.origin).parent, sources / "pluggy")
        (sources / "tests" / "local").mkdir(parents=True)
        for path in HERE.glob("engine_*.py"):
            shutil.copyfile(path, sources / "tests" / "local" / path.name)
        for path in [sources, *sources.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    return str(sources)


def _env(home: Path, pythonpath: str) -> dict[str, str]:
    return {
        "HOME": str(home),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": pythonpath,
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.fixture(scope="module")
def as_root(place_for_all: Path, archive: Path) -> Results:
    """What every check reported when root ran it."""
    home = place_for_all / "root"
    home.mkdir(mode=0o700)
    # In place, where coverage is gathered; an ordinary user may not be able to look there.
    measured = {key: value for key, value in os.environ.items() if key.startswith("COVERAGE_")}
    return _run([sys.executable], {**_env(home, str(ROOT)), **measured}, home, archive)


@pytest.fixture(scope="module")
def user() -> Iterator[str]:
    """An ordinary user with subordinate ids, who is gone afterwards."""
    # Another run of these tests may be going on: the name is this run's own.
    name = f"irons-engine{os.getpid()}"
    change_users("useradd", "--no-create-home", "--shell", "/bin/sh", name)
    try:
        yield name
    finally:
        change_users("userdel", name)


@pytest.fixture(scope="module")
def as_user(place_for_all: Path, archive: Path, user: str) -> Results:
    """What every check reported when an ordinary user ran it."""
    home = place_for_all / "user"
    home.mkdir(mode=0o700)
    shutil.chown(home, user, user)
    become = ["runuser", "-u", user, "--"]
    return _run([*become, _python_for(become)], _env(home, _copy_sources(place_for_all)), home, archive)


def _python_for(become: list[str]) -> str:
    """A Python that the user may execute; the tests' own may lie where only root can look."""
    for path in (sys.executable, *(f"/usr/bin/python3.{minor}" for minor in (14, 13, 12, 11))):
        words = [*become, path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        if Path(path).exists() and subprocess.run(words, check=False, capture_output=True).returncode == 0:
            return path
    pytest.fail("an ordinary user has no Python 3.11 here")


NAMES = [*CHECKS, *ATTACKS, *LAYERS, "nothing_is_left", "no_image_is_left"]


@pytest.mark.e2e
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("name", NAMES)
def test_the_engine_conforms_for_root(name: str, as_root: Results) -> None:
    """Each conformance check and each attack from inside, run by root."""
    assert as_root[name] == ""


@pytest.mark.e2e
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("name", NAMES)
def test_the_engine_conforms_for_an_ordinary_user(name: str, as_user: Results) -> None:
    """Each conformance check and each attack from inside, run by an ordinary user."""
    assert as_user[name] == ""
