"""Where the programs of this machine are that the backend runs."""

from __future__ import annotations

import os

from irons_local.problems import Problem


def search_path() -> str:
    """Where system programs are looked for: also where an ordinary user's PATH does not lead."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])


def program(name: str, check: str) -> str:
    """The path of a system program.

    Raises:
        Problem: it is not installed; `check` is the `irons doctor` check that says how to get it.
    """
    for directory in search_path().split(os.pathsep):
        path = os.path.join(directory or ".", name)  # noqa: PTH118 (text in, text out, for exec)
        if os.access(path, os.X_OK):
            return path
    raise Problem(f"{name} is not installed", check)
