"""The system calls an engine needs that Python 3.11 does not offer, each under its own name (section 2 manuals)."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

_SYS_OPENAT2 = 437
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` names for new ones; raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Enter the namespace behind a descriptor; `kind` is its CLONE_ flag or 0; raises OSError."""
    _check(_libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str = "") -> None:
    """Mount a file system, or change a mount; raises OSError."""
    _check(
        _libc.mount(
            source.encode(),
            os.fsencode(target),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            options.encode() if options else None,
        ),
        f"mount {kind or source} at {target}",
    )


def die_with_parent(signal_number: int) -> None:
    """Have this process signalled when its parent ends; forgotten when its user id changes."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def stay_reachable() -> None:
    """Let this process's files in /proc belong to its own user again; a change of user id took them away."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")


def syncfs(descriptor: int) -> None:
    """Have the file system of a descriptor written out; raises OSError."""
    _check(_libc.syncfs(descriptor), "syncfs")


def open_beneath(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """Open a path that may neither leave `directory` nor pass through a symbolic link; raises OSError."""
    how = struct.pack(
        "QQQ", flags | os.O_CLOEXEC, mode, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    )
    buffer = ctypes.create_string_buffer(how, len(how))
    return _check(
        int(
            _libc.syscall(
                ctypes.c_long(_SYS_OPENAT2),
                ctypes.c_int(directory),
                ctypes.c_char_p(os.fsencode(path)),
                buffer,
                ctypes.c_size_t(len(how)),
            )
        ),
        f"open {path}",
    )
