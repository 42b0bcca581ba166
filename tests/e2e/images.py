"""Image files that the end-to-end tests build, each once, from this machine's own package mirrors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def build_tar(home: Path, tar: Path, *steps: Sequence[str]) -> Path:
    """Run `irons local image` with each of these words, one after the other, under a home that this makes; return the tar file, readable by all."""
    home.mkdir()
    env = {
        **os.environ,
        "HOME": str(home),
        "XDG_RUNTIME_DIR": "",
        "XDG_STATE_HOME": "",
        "IRONS_CONFIG": str(home / "none.toml"),
    }
    for words in steps:
        argv = [sys.executable, "-m", "irons", "local", "image", *words]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == 0, done.stderr
    tar.chmod(0o644)
    return tar


def build_vm_tar(place: Path, *include: str) -> Path:
    """Build an image for virtual machines.

    Args:
        place: a directory that every user can enter; what is made there has the name of the last package.
        include: packages next to those that every such image has.
    """
    tar = place / f"{include[-1]}.tar"
    building = ["build", "--for", "vm", *(word for name in include for word in ("--include", name))]
    exporting = ["export", str(tar), "--image", "debian-vm"]
    return build_tar(place / f"builder-of-{include[-1]}", tar, building, exporting, ["remove", "debian-vm"])
