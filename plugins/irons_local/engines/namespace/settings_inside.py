"""Replaces a file of a running sandbox's settings directory, by way of the sandbox's own mount namespace.

Where the settings directory was made, in the cell's mount namespace, it can be found only as long as the keeper that
made the cell lives: nothing inside keeps that namespace. The sandbox has the directory until it ends, read-only.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from irons_local.bundle.oci import CONFIG_DIRECTORY
from irons_local.linux import namespaces, syscalls
from irons_local.linux.processes import Process, is_alive

_WRITABLE = (
    syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
)
_UNKNOWN = 255
"""Exit code of a child that failed by something other than the kernel's refusal."""


def replace(init: Process, name: str, text: str) -> bool:
    """Replace a file of the settings directory, whole or not at all; return False where the sandbox has ended.

    Call it as a user who may enter the sandbox's user namespace, such as root of the one around it.

    Args:
        init: process 1 of the sandbox.
        name: The file's name.
        text: What it contains then; everyone inside may read it.

    Raises:
        OSError: A namespace cannot be entered, or the file cannot be written.
    """
    spaces: list[int] = []
    try:
        spaces.extend(
            os.open(f"/proc/{init.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "mnt")
        )
        # Only now is it known whose namespaces these are.
        if not is_alive(init):
            return False
        user, mount = spaces
        child = os.fork()
        if child == 0:
            _child(user, mount, name, text.encode())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except (FileNotFoundError, ProcessLookupError):
        return False
    finally:
        for space in spaces:
            os.close(space)
    if code:
        number = code if 0 < code < _UNKNOWN else errno.EIO
        raise OSError(number, os.strerror(number), name)
    return True


def _child(user: int, mount: int, name: str, data: bytes) -> NoReturn:
    """Write the file and exit with the error's number.

    From the second step on, paths are the sandbox's, so nothing may be imported.
    """
    code = _UNKNOWN
    with suppress(BaseException):
        try:
            namespaces.setns(user, namespaces.NEWUSER)
            namespaces.setns(mount, namespaces.NEWNS)
            # Root of the sandbox owns the directory. A copy of the mounts made by it, and by it alone, may be made writable.
            os.setresgid(0, 0, 0)
            os.setgroups([])
            os.setresuid(0, 0, 0)
            namespaces.unshare(namespaces.NEWNS)
            namespaces.mount("none", "/", flags=namespaces.MS_REC | syscalls.MS_PRIVATE)
            root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            os.fchdir(syscalls.open_beneath(root, CONFIG_DIRECTORY.lstrip("/"), os.O_PATH | os.O_DIRECTORY))
            # The kernel refuses this where something else than a mount is there.
            namespaces.mount("none", ".", flags=_WRITABLE)
            _write(name, data)
            code = 0
        except OSError as error:
            code = error.errno or _UNKNOWN
    os._exit(code)


def _write(name: str, data: bytes) -> None:
    """Replace a file in the working directory."""
    fresh = Path(f".{name}.new")
    fresh.unlink(missing_ok=True)
    file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    while data:
        data = data[os.write(file, data) :]
    # The unprivileged half of sshd reads authorized keys as the person who logs in.
    os.fchmod(file, 0o644)
    fresh.rename(name)
