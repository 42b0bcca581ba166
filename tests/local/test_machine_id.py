"""The boot step that gives a sandbox an identity of its own: run here in an /etc of the test's."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from tests.machine import Machine

from irons_local.bundle.boot_steps import IDENTIFIED

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    "shell", [["dash"], ["bash", "--posix"], ["busybox", "sh"]], ids=lambda words: words[0]
)
def test_a_sandbox_gets_an_identity_once(tmp_path: Path, shell: list[str], machine: Machine) -> None:
    """Where the file is missing or empty it is made, as machine-id(5) has it; one that is there, or a link, stays."""
    machine.require(shell[0])
    program = shutil.which(shell[0])
    assert program is not None
    etc = tmp_path / "etc"
    path = etc / "machine-id"

    def start() -> None:
        script = IDENTIFIED.script.replace("/etc", str(etc))
        done = subprocess.run(
            [program, *shell[1:], "-c", script], env={"PATH": "/nowhere"}, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    start()
    assert not etc.exists(), "an image of a single program"
    etc.mkdir()
    start()
    first = path.read_text()
    assert re.fullmatch(r"[0-9a-f]{32}\n", first)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    start()
    assert path.read_text() == first
    path.chmod(0o644)
    path.write_text("")
    start()
    assert path.read_text() not in ("", first)
    path.unlink()
    path.symlink_to("nowhere")
    start()
    assert path.is_symlink()
    assert not path.exists()
