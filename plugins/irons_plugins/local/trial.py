"""Whether this machine does what a sandbox needs, found out by doing it, in namespaces that end with the trial.

Runs by `engines.inside` in namespace A. Each step answers with "" or with what the kernel, or a program, said.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from irons_plugins.local import namespaces
from irons_plugins.local.cellnet import Ports, rules
from irons_plugins.local.engines.inside import Say

NEWPID = 0x20000000


def trial(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """Try everything, for `inside`; gives `overlay`, `rules` and `proc`.

    Args:
        request: `nft`, the program's path, or "" to leave the rules out.
        _say: not used.
    """
    steps: dict[str, Callable[[], None]] = {"overlay": _overlay, "proc": _proc}
    if request["nft"]:
        steps["rules"] = lambda: _rules(request["nft"])
    found: dict[str, Any] = {}
    for name, step in steps.items():
        try:
            step()
            found[name] = ""
        except OSError as error:
            found[name] = error.strerror or str(error)
    return found


def _overlay() -> None:
    namespaces.mount("tmpfs", "/run", "tmpfs")
    place = Path(tempfile.mkdtemp(dir="/run"))
    for name in ("lower", "upper", "work", "all"):
        (place / name).mkdir()
    options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work,userxattr"
    namespaces.mount("overlay", str(place / "all"), "overlay", data=options)


def _proc() -> None:
    """A fresh /proc, which the kernel gives only where the one that is there hides nothing."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            namespaces.unshare(NEWPID)
            status = _in_fork(_mount_proc)
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, os.strerror(code))


def _mount_proc() -> int:
    try:
        namespaces.mount("proc", "/run", "proc")
    except OSError as error:
        return error.errno or 1
    return 0


def _in_fork(work: Callable[[], int]) -> int:
    """A number that a child of ours exits with."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _rules(nft: str) -> None:
    namespaces.unshare(namespaces.NEWNET)
    done = subprocess.run([nft, "-f", "-"], input=rules(Ports()), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise OSError(lines[0] if lines else f"nft: {done.returncode}")
