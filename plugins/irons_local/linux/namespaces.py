"""The few system calls on namespaces and processes that Python's standard library does not have."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

NEWNS = 0x00020000
NEWUSER = 0x10000000
NEWNET = 0x40000000

MS_REC = 0x4000
MS_SLAVE = 0x80000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_FOWNER = 3
CAP_FSETID = 4
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_SETFCAP = 31
OF_MOUNTER = (CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SYS_ADMIN, CAP_SETFCAP)
"""What the mounter of an overlay with redirects needs of the machine's rights, since the kernel works with them."""

_CAPABILITY_VERSION = 0x20080522
_LIMITED = "the limit of namespaces (user.max_…_namespaces) is reached"
_NS_GET_USERNS = 0xB701
_NS_GET_PARENT = 0xB702
_SIOCGSKNS = 0x894C
_BOOT = Path("/proc/sys/kernel/random/boot_id")

libc = ctypes.CDLL(None, use_errno=True)
"""The C library; what it returns is for `checked`."""


def checked(result: int, what: str) -> int:
    """Return the result of a call of the C library.

    Raises:
        OSError: it failed; `what` is what the error names.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` names for new ones (unshare(2)).

    Raises:
        OSError: the kernel refuses.
    """
    if libc.unshare(flags) < 0:
        number = ctypes.get_errno()
        # The kernel's word for a limit of namespaces is that of a full disk.
        why = _LIMITED if number == errno.ENOSPC else os.strerror(number)
        raise OSError(number, why, "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Enter the namespace a descriptor stands for (setns(2)); `kind` is one of the `NEW…` constants.

    Raises:
        OSError: the kernel refuses.
    """
    checked(libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str = "") -> None:
    """Mount (mount(2)).

    Raises:
        OSError: the kernel refuses; its filename is the target.
    """
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    result = libc.mount(*encoded, ctypes.c_ulong(flags), os.fsencode(data) if data else None)
    checked(result, target)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process (prctl(2)).

    Raises:
        OSError: the kernel refuses.
    """
    zero = ctypes.c_ulong(0)
    checked(libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), "prctl")


def capset(*kept: int) -> None:
    """Have these capabilities, permitted and effective, and no others (capset(2)).

    Raises:
        OSError: one of them is not permitted any more.
    """
    mask = sum(1 << number for number in kept)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    checked(libc.capset(header, data), "capset")


def owner_of(namespace: int) -> int:
    """A descriptor of the user namespace that owns a namespace (ioctl_ns(2)).

    Raises:
        OSError: it is outside of what this process may see.
    """
    return _ioctl(namespace, _NS_GET_USERNS)


def parent_of(namespace: int) -> int:
    """A descriptor of the user namespace above a user namespace (ioctl_ns(2)).

    Raises:
        OSError: `EPERM` where that is outside of what this process may see.
    """
    return _ioctl(namespace, _NS_GET_PARENT)


def network_of(sock: int) -> int:
    """A descriptor of the network namespace a socket belongs to (`SIOCGSKNS`, socket(7)).

    Raises:
        OSError: this process has no rights over that namespace.
    """
    return _ioctl(sock, _SIOCGSKNS)


def _ioctl(descriptor: int, request: int) -> int:
    found = fcntl.ioctl(descriptor, request)
    os.set_inheritable(found, False)
    return found


class Birth(NamedTuple):
    """What names a process for good, since a pid alone comes round again, its parent now, and its terminal (0: none)."""

    started: int
    parent: int
    terminal: int = 0


def birth(pid: int) -> Birth | None:
    """Start time (clock ticks since boot), parent and terminal of a process (proc(5) stat); None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else Birth(int(fields[19]), int(fields[1]), int(fields[4]))


def identity(pid: int) -> dict[str, Any]:
    """What tells a process from every other one, also after a reboot; for `is_same`."""
    return {"pid": pid, "started": started(pid), "boot": _BOOT.read_text("utf-8").strip()}


def is_same(noted: dict[str, Any]) -> bool:
    """Whether the process of an `identity` still runs."""
    pid = int(noted["pid"])
    return noted == {**noted, **identity(pid)} and noted["started"] is not None


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it is gone."""
    found = birth(pid)
    return found.started if found else None
