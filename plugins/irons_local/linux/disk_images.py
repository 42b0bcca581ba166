"""The disk limit of a sandbox: a file system of that size in a sparse file, which its changes lie in.

The file is made here, by mkfs(8), and nothing but the kernel's own file system ever writes to it: what a sandbox does
in it are calls on files. It is mounted in the cell's mount namespace alone, by the machine's root; the loop device goes
with the mount. An ordinary user may mount neither, so there the limit is refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from irons_local.errors import EngineError
from irons_local.limits import Limits
from irons_local.linux import namespaces, syscalls
from irons_local.linux.programs import search_path

FILE = "disk.img"
PLACE = "changes"
"""The directory of a sandbox that its file system is mounted on, in the cell's mount namespace alone."""
UPPER, WORK = "upper", "work"
LEAST = 16 << 20
"""Bytes that the file system itself can do with."""

LOOP_DEVICES = "/dev/loop-control"
"""Where loop devices are asked for (loop(4)); containers mostly have none."""

_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_AUTOCLEAR = 4
_TRIES = 64


def check(limits: Limits, uid: int) -> None:
    """Refuse a disk limit that cannot be enforced.

    Raises:
        EngineError: the daemon does not run as root, or a program or the loop devices are missing.
    """
    if limits.disk is None:
        return
    if uid != 0:
        raise EngineError(
            "limit",
            "the namespace engine can limit the disk only where irons runs as root",
            "an engine with virtual machines enforces --disk for ordinary users too (--engine vm, where there is one)",
        )
    if limits.disk < LEAST:
        raise EngineError("input", f"disk can't be {limits.disk}: the least is {LEAST}")
    _mkfs()
    if not has_loop_devices():
        raise EngineError(
            "machine",
            f"{LOOP_DEVICES}, which --disk needs, cannot be opened",
            "see `irons doctor`: disk-limits",
        )


def has_loop_devices() -> bool:
    """Tell whether this process may ask for a loop device."""
    return os.access(LOOP_DEVICES, os.R_OK | os.W_OK)


def make(home: Path, size: int) -> None:
    """Make the file system of a sandbox, and the directory that it will be mounted on.

    Raises:
        EngineError: mkfs(8) failed.
        OSError: the file cannot be made.
    """
    path = home / FILE
    (home / PLACE).mkdir(mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.truncate(descriptor, size)
    finally:
        os.close(descriptor)
    words = [
        _mkfs(),
        "-q",
        "-F",
        "-m",
        "0",
        "-E",
        "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1",
        str(path),
    ]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise EngineError("failed", f"mkfs.ext4: {lines[-1] if lines else done.returncode}")


def facts(home: Path, limits: Limits) -> Mapping[str, str]:
    """What `status` says of the limit, next to its size: what is used of it, or that it is not enforced."""
    if limits.disk is None:
        return {}
    try:
        return {"disk_used": str((home / FILE).stat().st_blocks * 512)}
    except OSError:
        return {"disk_note": "not enforced: it was made by an irons that could not"}


def mount(image: Path, place: Path, flags: int = 0) -> None:
    """Mount the file system on a directory of this process's mount namespace, and make what an overlay needs in it.

    Raises:
        OSError: there is no free loop device, or the kernel refuses.
    """
    backing = os.open(image, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        device = _loop(backing)
    finally:
        os.close(backing)
    try:
        number = os.minor(os.fstat(device).st_rdev)
        given = syscalls.MS_NODEV | syscalls.MS_NOSUID | flags
        namespaces.mount(f"/dev/loop{number}", str(place), "ext4", given, "discard,errors=remount-ro")
    finally:
        # The mount holds it from here on, and it goes with the last mount.
        os.close(device)
    if not flags & syscalls.MS_RDONLY:
        for name, mode in ((UPPER, 0o755), (WORK, 0o700)):
            (place / name).mkdir(mode=mode, exist_ok=True)


def _loop(backing: int) -> int:
    """A loop device (loop(4)) over a file, which ends when nothing uses it."""
    control = os.open(LOOP_DEVICES, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            number = fcntl.ioctl(control, _GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            # struct loop_config: fd, block size, struct loop_info64 with lo_flags at 52, eight reserved words.
            config = bytearray(struct.pack("=II", backing, 0) + bytes(232 + 64))
            struct.pack_into("=I", config, 8 + 52, _AUTOCLEAR)
            try:
                fcntl.ioctl(device, _CONFIGURE, config)
            except OSError as error:
                os.close(device)
                # Someone else took it in between.
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no free loop device")


def _mkfs() -> str:
    program = shutil.which("mkfs.ext4", path=search_path())
    if program is None:
        raise EngineError("machine", "mkfs.ext4 is not installed", "see `irons doctor`: disk-limits")
    return program
