"""What the benchmarks of real sandboxes use: the lab of the end-to-end tests, and someone who uses irons on its host.

The lab's host and internet are network namespaces of the benchmark's own, so no packet leaves the machine, and
everything is gone when the benchmark ends, however it ends.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from tests.e2e.lab import LAB_NEEDS, Lab, Person, make_lab
from tests.machine import Machine

ROOT = Path(__file__).parent.parent.parent
_IMAGE_WITHIN = 600.0


class Stage(NamedTuple):
    """The network, and root's irons on its host, with an image and a daemon that runs."""

    lab: Lab
    person: Person

    def running(self) -> list[tuple[str, int]]:
        """The daemon's processes, each with its name: keeper, server, nursery, and gateway once for each worker."""
        rows = json.loads(self.person.ok("local", "status", "-o", "json"))
        return [(row["process"], row["pid"]) for row in rows if row["pid"]]

    def init_of(self, sandbox: str) -> int:
        """Process 1 of a running sandbox, as the machine numbers it."""
        return int(self.status(sandbox)["metadata"]["pid"])

    def status(self, sandbox: str) -> dict[str, Any]:
        """What `irons status` says of a sandbox."""
        told: dict[str, Any] = json.loads(self.person.ok("status", sandbox, "-o", "json"))
        return told

    @contextmanager
    def api(self) -> Iterator[httpx.Client]:
        """The daemon's own API, without the command line around it."""
        transport = httpx.HTTPTransport(uds=str(self.person.home / "run/irons/api.sock"), verify=False)
        with httpx.Client(transport=transport, base_url="http://irons", timeout=30) as client:
            yield client


@contextmanager
def stage() -> Iterator[Stage]:
    """Make the lab and someone in it; take all down again.

    Raises:
        SystemExit: this machine lacks something; says what.
    """
    lack = Machine(strict=False).lack(*LAB_NEEDS, "sandboxes", "image")
    if lack:
        raise SystemExit(f"this benchmark runs real sandboxes: {lack}")
    place = Path(tempfile.mkdtemp(prefix="irons-bench-"))
    place.chmod(0o755)
    try:
        image = _image(place)
        with make_lab(place) as lab:
            person = Person(lab, _home(place), (sys.executable, "-m", "irons"))
            try:
                person.ok("local", "image", "import", str(image), "--as", "debian", timeout=_IMAGE_WITHIN)
                person.ok("local", "up")
                yield Stage(lab, person)
            finally:
                person.run("local", "uninstall", "--purge", "--yes", timeout=300)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _home(place: Path) -> Path:
    home = place / "home"
    for directory in (home, home / "run", home / ".ssh", home / ".config", home / ".config/irons"):
        directory.mkdir(mode=0o700)
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / ".ssh/id_ed25519")]
    subprocess.run(words, check=True)
    return home


def _image(place: Path) -> Path:
    """The image file that `IRONS_TEST_IMAGE` names; else the default image, built from the machine's package mirrors."""
    ready = os.environ.get("IRONS_TEST_IMAGE")
    if ready:
        return Path(ready)
    builder = place / "builder"
    builder.mkdir()
    taken_over = {"HOME": str(builder), "XDG_RUNTIME_DIR": "", "XDG_STATE_HOME": ""}
    env = {**os.environ, **taken_over, "IRONS_CONFIG": str(builder / "none.toml")}
    tar = place / "image.tar"
    print("building the default image …", file=sys.stderr)
    for words in (["build"], ["export", str(tar)]):
        argv = [sys.executable, "-m", "irons", "local", "image", *words]
        done = subprocess.run(
            argv, env=env, capture_output=True, text=True, check=False, timeout=_IMAGE_WITHIN
        )
        if done.returncode:
            raise SystemExit(f"the image could not be made: {done.stderr.strip()}")
    subprocess.run(
        [sys.executable, "-m", "irons", "local", "down"], env=env, capture_output=True, check=False
    )
    return tar
