"""Whether this machine can run sandboxes: asked before the first one is made, and once something has failed.

Doctor's checks take a third of a second, so they are not run before each create on a machine that works.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from irons_local.doctor.checks import DoctorCheck, examine
from irons_local.errors import CellError, EngineError
from irons_local.linux.idmap import IdMapError, outer_map
from irons_local.linux.programs import search_path
from irons_local.paths import Paths

_MACHINES = frozenset({"machine", "failed", "timeout"})
_MOST_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")
_CLONE = Path("/proc/sys/kernel/unprivileged_userns_clone")
_ALWAYS = ("crun", "nft", "ssh-keygen")
_FOR_BUILDING = frozenset({"mmdebstrap"})
_FOR_THE_NETWORK = frozenset({"names", "internet"})
"""A sandbox is made without them, and is of use without a way out."""


def obstacle(paths: Paths, *, building: bool = False) -> DoctorCheck | None:
    """Run doctor's checks and return the first one that fails; None where all pass.

    Args:
        paths: the backend's directories.
        building: an image is to be built, which takes programs that sandboxes do without.
    """
    needless = _FOR_THE_NETWORK if building else _FOR_THE_NETWORK | _FOR_BUILDING
    return next((check for check in examine(paths) if not check.ok and check.name not in needless), None)


def doubtful() -> bool:
    """Whether something is missing that can be seen in no time: a program, subordinate ids, or leave to make namespaces.

    Asked before each create; `obstacle` then says what it is, in doctor's words.
    """
    uid = os.geteuid()
    path = search_path()
    programs = _ALWAYS if uid == 0 else (*_ALWAYS, "newuidmap", "newgidmap")
    if any(shutil.which(name, path=path) is None for name in programs):
        return True
    try:
        outer_map()
        if _MOST_NAMESPACES.read_text("ascii").strip() == "0":
            return True
        return uid != 0 and _CLONE.exists() and _CLONE.read_text("ascii").strip() == "0"
    except (IdMapError, OSError, ValueError):
        return True


def refused(check: DoctorCheck) -> EngineError:
    """The error that ends with doctor's words, and has its fix as the hint."""
    return EngineError("machine", f"this machine cannot run sandboxes: {check.what}", check.fix)


def cause(error: Exception, paths: Paths) -> DoctorCheck | None:
    """The failed check that explains an error; None where the error is not one that a machine causes.

    Args:
        error: what went wrong.
        paths: the backend's directories.
    """
    may_be = (
        error.code in _MACHINES if isinstance(error, EngineError) else isinstance(error, CellError | OSError)
    )
    return obstacle(paths) if may_be else None


def explained(error: EngineError, paths: Paths) -> EngineError:
    """The same error with doctor's words at its end, where a failed check explains it."""
    check = cause(error, paths)
    if check is None:
        return error
    return EngineError(error.code, f"{error.message}: {check.what}", check.fix)
