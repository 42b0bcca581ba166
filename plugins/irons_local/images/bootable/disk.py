"""Makes what a virtual machine boots from, as the owner of an image's files (`linux.userns_main`).

An image's files are a stranger's: they are read beneath the image and through no link, and nothing of them is run.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import subprocess
from typing import Any

from irons_local.errors import EngineError
from irons_local.images.bootable import initrd
from irons_local.linux import syscalls
from irons_local.linux.programs import search_path
from irons_local.linux.userns_main import Say

_BUSYBOX = ("usr/bin/busybox", "bin/busybox")
_MODULES = ("usr/lib/modules", "lib/modules")
_MODULE_AT_MOST = 8 << 20
_KERNEL_AT_MOST = 256 << 20
_BLOCK = 4096
_ROOM = 192 << 20
"""Bytes of a new file system beyond its files: for its tables and journal, and to start before it has grown."""
_CHUNK = 1 << 20


def make(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Write disk, kernel and initial RAM disk of an image to open files.

    Args:
        request: descriptors: `rootfs` of the image's files, `disk`, `kernel` and `initrd` of the files to write.
        say: called with the progress.

    Raises:
        EngineError: the image has no kernel, no static busybox or no init.
    """
    rootfs = request["rootfs"]
    say("taking the kernel of the image", None)
    release = _kernel(rootfs, request["kernel"])
    with os.fdopen(os.dup(request["initrd"]), "wb") as file:
        file.write(initrd.build(_busybox(rootfs), _modules(rootfs, release)))
    say("making the disk of the image", None)
    size = _size(rootfs)
    _make_file_system(rootfs, request["disk"], size)
    return {"kernel": release, "size": size}


def _kernel(rootfs: int, target: int) -> str:
    """Copy the newest kernel; gives its release."""
    try:
        boot = syscalls.open_beneath(rootfs, "boot", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        found: list[str] = []
    else:
        try:
            found = [name for name in os.listdir(boot) if name.startswith("vmlinuz-")]  # noqa: PTH208 (a descriptor)
        finally:
            os.close(boot)
    if not found:
        raise EngineError(
            "image",
            "the image has no kernel (/boot/vmlinuz-…)",
            "irons local image build --for vm makes one that has",
        )
    name = max(found, key=_version)
    with os.fdopen(os.dup(target), "wb") as file:
        file.write(_read(rootfs, f"boot/{name}", _KERNEL_AT_MOST))
    return name.removeprefix("vmlinuz-")


def _version(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _busybox(rootfs: int) -> bytes:
    for path in _BUSYBOX:
        try:
            program = _read(rootfs, path, _MODULE_AT_MOST)
        except OSError:
            continue
        if initrd.is_static(program):
            return program
    raise EngineError(
        "image",
        "the image has no static busybox, which starts a virtual machine",
        "irons local image build --for vm makes one that has",
    )


def _modules(rootfs: int, release: str) -> list[tuple[str, bytes]]:
    for directory in _MODULES:
        home = f"{directory}/{release}"
        try:
            text = _read(rootfs, f"{home}/modules.dep", _MODULE_AT_MOST).decode(errors="replace")
        except OSError:
            continue
        paths = initrd.load_order(text)
        return [_module(path, _read(rootfs, f"{home}/{path}", _MODULE_AT_MOST)) for path in paths]
    raise EngineError(
        "image",
        f"the image has no modules of its kernel {release}",
        "irons local image build --for vm makes one that has",
    )


def _module(path: str, content: bytes) -> tuple[str, bytes]:
    name = path.rpartition("/")[2]
    if name.endswith(".xz"):
        return name.removesuffix(".xz"), lzma.decompress(content)
    return name, content


def _read(rootfs: int, path: str, most: int) -> bytes:
    descriptor = syscalls.open_beneath(rootfs, path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a file")
        content = file.read(most + 1)
    if len(content) > most:
        raise EngineError("image", f"/{path} of the image is larger than {most:,} bytes")
    return content


def _size(rootfs: int) -> int:
    """Bytes of a file system for these files, each in whole blocks, and inodes of 256 bytes."""
    total = 0
    for _, directories, files, directory in os.fwalk(".", dir_fd=rootfs):
        for name in files:
            blocks = os.stat(name, dir_fd=directory, follow_symlinks=False).st_size // _BLOCK + 2
            total += blocks * _BLOCK
        total += _BLOCK * 2 * (1 + len(directories))
    total = total * 11 // 10 + _ROOM
    return total - total % _CHUNK


def _make_file_system(rootfs: int, disk: int, size: int) -> None:
    program = shutil.which("mke2fs", path=search_path())
    if program is None:
        raise EngineError("machine", "mke2fs (e2fsprogs) is not installed", "see `irons doctor`: vm")
    os.ftruncate(disk, size)
    for descriptor in (rootfs, disk):
        os.set_inheritable(descriptor, True)
    words = [
        program,
        *("-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-m", "0", "-L", "irons"),
        *("-E", "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard"),
        *("-d", f"/proc/self/fd/{rootfs}", f"/proc/self/fd/{disk}"),
    ]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, check=False, pass_fds=(rootfs, disk)
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise EngineError("failed", f"mke2fs: {lines[-1] if lines else done.returncode}")
