"""Whether this machine does what a sandbox needs, found out by doing it, in namespaces that end with the trial.

Runs by `linux.userns_main` in namespace A. Each step answers with "" or with the error of the kernel or of a program.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from irons_local.cell.layout import Ports
from irons_local.cell.nft import rules
from irons_local.linux import namespaces
from irons_local.linux.namespaces import libc
from irons_local.linux.userns_main import Say

NEWPID = 0x20000000
_CLONE_FS, _NEWUTS = 0x200, 0x04000000
_NUMBERS = {
    "x86_64": (56, 155, 250),
    "aarch64": (220, 41, 219),
    "riscv64": (220, 41, 219),
    "armv7l": (120, 218, 311),
    "ppc64le": (120, 203, 271),
}
"""Numbers of `clone`, `pivot_root` and `keyctl`, for which the C library has no functions."""


def trial(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """Try everything, for `userns_main`; gives `overlay`, `calls`, `rules` and `proc`.

    Args:
        request: `nft`, the program's path, or "" to leave the rules out.
        _say: not used.
    """
    steps: dict[str, Callable[[], None]] = {"calls": _calls, "overlay": _overlay, "proc": _proc}
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


def _calls() -> None:
    """The system calls that a filter of a container may refuse though namespaces can be made, each with what does nothing.

    A kernel that takes them finds fault with the arguments; a filter does not look that far.
    """
    nowhere = b"/run/irons-is-not-here"
    probes: dict[str, Callable[[], int]] = {
        "setns": lambda: _refused(libc.setns(-1, 0)),
        "umount2": lambda: _refused(libc.umount2(nowhere, 0)),
        "sethostname": lambda: _in_fork(_call_it_something),
    }
    numbers = _NUMBERS.get(platform.machine())
    if numbers is not None:
        clone, pivot_root, keyctl = map(ctypes.c_long, numbers)
        # Two flags that exclude each other.
        both = ctypes.c_long(namespaces.NEWNS | _CLONE_FS)
        probes["clone"] = lambda: _refused(libc.syscall(clone, both, None, None, None, None))
        probes["pivot_root"] = lambda: _refused(libc.syscall(pivot_root, nowhere, nowhere))
        # A kernel without keyrings is well: crun then makes none.
        probes["keyctl"] = lambda: _refused(libc.syscall(keyctl, 0, -3, 0), errno.EPERM)
    for name, probe in probes.items():
        if number := probe():
            raise OSError(f"{name}: {os.strerror(number)}")


def _refused(result: int, *refusals: int) -> int:
    """The errno of a call that was refused as such; 0 where the kernel looked at its arguments."""
    number = ctypes.get_errno() if result < 0 else 0
    return number if number in (refusals or (errno.EPERM, errno.ENOSYS)) else 0


def _call_it_something() -> int:
    namespaces.unshare(_NEWUTS)
    return _refused(libc.sethostname(b"trial", 5))


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
