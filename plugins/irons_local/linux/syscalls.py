"""The system calls that only an engine needs, next to those of `irons_local.linux.namespaces` (section 2 manuals)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from irons_local.linux.namespaces import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, checked, libc, prctl

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_PRIVATE = 0x40000

OVERLAY = "userxattr"
"""The overlay that a user namespace may mount: it cannot rename a directory of a lower layer."""

OVERLAY_OF_ROOT = "redirect_dir=on,index=off,metacopy=off,nfs_export=off"
"""The overlay of the machine's root, which can; what the others of these do is left as it is with `OVERLAY`."""

OPAQUE, OPAQUE_OF_ROOT = "user.overlay.opaque", "trusted.overlay.opaque"
"""What makes a directory hide those of the layers below, in either overlay (overlayfs.rst)."""

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08

_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 0x01, 0x02
_FICLONE = 0x40049409
_SYS_OPENAT2 = 437


def die_with_parent(signal_number: int) -> None:
    """Have this process signalled when its parent ends; forgotten when its user id changes (prctl(2))."""
    prctl(PR_SET_PDEATHSIG, signal_number)


def stay_reachable() -> None:
    """Let this process's files in /proc belong to its own user again; a change of user id took them away."""
    prctl(PR_SET_DUMPABLE, 1)


def syncfs(descriptor: int) -> None:
    """Have the file system of a descriptor written out.

    Raises:
        OSError: it could not be.
    """
    checked(libc.syncfs(descriptor), "syncfs")


def free_beginning(descriptor: int, size: int) -> None:
    """Give the blocks of a file's beginning back: its size stays, and zeros are read there (fallocate(2)).

    Raises:
        OSError: the file system keeps no holes, among others.
    """
    mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    checked(libc.fallocate(descriptor, mode, ctypes.c_int64(0), ctypes.c_int64(size)), "fallocate")


def clone(target: int, source: int) -> None:
    """Let a file share the blocks of another one, all of its data at once (`FICLONE`, ioctl_ficlone(2)).

    Args:
        target: descriptor of the file that gets the data.
        source: descriptor of the file that has it.

    Raises:
        OSError: the file system shares no blocks, among others.
    """
    fcntl.ioctl(target, _FICLONE, source)


def open_beneath(directory: int, path: str, flags: int) -> int:
    """Open a path that may neither leave `directory` nor pass through a link of any kind (openat2(2)).

    Raises:
        OSError: it does, or cannot be opened.
    """
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, resolve)
    buffer = ctypes.create_string_buffer(how, len(how))
    result = libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(directory),
        ctypes.c_char_p(os.fsencode(path)),
        buffer,
        ctypes.c_size_t(len(how)),
    )
    return checked(int(result), path)
