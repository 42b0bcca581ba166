"""Fixtures of the engine's tests: a directory that every user can enter, and the default image as an archive, made once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machine import Machine


@pytest.fixture(scope="session")
def place_for_all(machine: Machine) -> Iterator[Path]:
    """A directory that every user can enter, on a machine that runs sandboxes."""
    machine.require("root", "sandboxes", "image", "newuidmap", "ip", "runuser")
    made = Path(tempfile.mkdtemp(prefix="irons-engine-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def archive(place_for_all: Path) -> Path:
    """The default image as a tar archive: given, or built here from this machine's package sources."""
    path = place_for_all / "image.tar"
    given = os.environ.get("IRONS_TEST_IMAGE")
    if given:
        shutil.copyfile(given, path)
    else:
        script = (
            "import asyncio, sys\nfrom pathlib import Path\nfrom irons_local.images.catalog import Images\n"
            "async def main():\n    images = Images(Path(sys.argv[1]), Path(sys.argv[2]))\n"
            "    await images.build('built')\n    await images.export('built', Path(sys.argv[3]))\n"
            "    await images.remove('built')\n"
            "asyncio.run(main())"
        )
        words = [
            sys.executable,
            "-c",
            script,
            str(place_for_all / "built"),
            str(place_for_all / "none"),
            str(path),
        ]
        subprocess.run(words, check=True, timeout=600)
        shutil.rmtree(place_for_all / "built")
    path.chmod(0o644)
    return path
