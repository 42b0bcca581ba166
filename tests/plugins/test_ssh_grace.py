"""How long what `exec` ends has to end by itself: by the clock, however long it takes to find it."""

from __future__ import annotations

import secrets
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from irons_plugins.ssh.execute.remote_script import GRACE, end_line
from tests.machine import Machine

pytestmark = pytest.mark.process

_SLOW = 0.5
"""Seconds that each search takes, as on a busy machine."""


@pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"]], ids=lambda words: words[0])
def test_a_slow_search_does_not_make_the_grace_longer(
    tmp_path: Path, shell: list[str], machine: Machine
) -> None:
    """What ignores TERM gets KILL after as many searches as the grace has room for, and not after a number of rounds."""
    machine.require(shell[0])
    token = secrets.token_hex(16)
    searches = tmp_path / "searches"
    grep = tmp_path / "grep"
    real = shlex.quote(str(shutil.which("grep")))
    grep.write_text(f'#!/bin/sh\necho >>{shlex.quote(str(searches))}\nsleep {_SLOW}\nexec {real} "$@"\n')
    grep.chmod(0o755)
    script = "trap '' TERM; echo ready; while :; do sleep 1; done"
    env = {"PATH": f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}
    with subprocess.Popen(
        ["sh", "-c", script], env={**env, "IRONS_EXEC": token}, stdout=subprocess.PIPE
    ) as stubborn:
        try:
            assert stubborn.stdout is not None
            assert stubborn.stdout.readline() == b"ready\n"
            given = shlex.split(end_line(token))
            at = given.index("sh")
            done = subprocess.run(
                [*shell, *given[at + 1 :]], env=env, capture_output=True, check=False, timeout=120
            )
        finally:
            stubborn.kill()
    assert stubborn.returncode == -9
    assert (done.returncode, done.stderr) == (0, b"")
    # One for TERM, those within the grace and one beyond it, one for KILL, and two that look whether it worked.
    assert len(searches.read_text().splitlines()) <= GRACE / _SLOW + 5
