"""irons inside a container: an ordinary one is refused with the flags it lacks, and with them all of a sandbox's life works."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.containers import DEFAULTS, Yard, flagged

from irons_local.doctor.surroundings import Surroundings

pytestmark = pytest.mark.needs("root", "sandboxes", "networks", "image")
ENGINES = sorted(DEFAULTS)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Yard:
    """A yard with the image."""
    return Yard(tmp_path_factory.mktemp("yard"), archive)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_ordinary_container_is_told_the_flags_it_lacks(yard: Yard, engine: str) -> None:
    """The first `create` there ends with doctor's words and the engine's own command line."""
    yard.clean()
    done = yard.irons(DEFAULTS[engine], "irons create box --key /given/id.pub")
    assert done.returncode == 1
    first, last = (line for line in done.stderr.splitlines() if "egress mode" not in line)
    name = engine.partition(" ")[0]
    assert first.startswith("irons: this machine cannot run sandboxes: namespaces cannot be made")
    assert f"in this container ({name})" in first
    assert last.strip() == Surroundings(name).way_out("/state/irons")
    assert last.strip().startswith(f"{engine} --cap-add SYS_ADMIN --security-opt seccomp=unconfined ")


def test_the_quickstart_ends_there_with_the_flags(yard: Yard) -> None:
    """`make quickstart` in an ordinary container makes nothing, and ends with each failed check and its fix."""
    done = yard.run(DEFAULTS["docker run"], sys.executable, "docs/quickstart.py")
    assert done.returncode == 1
    assert "irons create" not in done.stdout
    assert "user-namespaces: namespaces cannot be made in this container (docker)" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].strip().startswith("docker run --cap-add SYS_ADMIN ")


@pytest.mark.parametrize("engine", ENGINES)
def test_with_the_flags_a_sandbox_lives_there(yard: Yard, engine: str) -> None:
    """Import, create, exec with sudo, audit, save, start and purge all work, and no check of doctor's fails."""
    found = yard.life(flagged(DEFAULTS[engine]))
    assert found.stage == "", found
    assert found.checks == ()


def test_the_documented_flags_are_doctors_own() -> None:
    """docs/local.md names the command lines that doctor gives."""
    text = " ".join((Path(__file__).parents[2] / "docs/local.md").read_text().replace("\\\n", " ").split())
    for engine in ENGINES:
        line = Surroundings(engine.partition(" ")[0]).way_out("/root/.local/state/irons").partition(" …")[0]
        assert line in text
