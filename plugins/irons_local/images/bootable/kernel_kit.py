"""Takes a kernel kit out of an image's files, as their owner (`linux.userns_main`): kernel, initial RAM disk, modules and busybox.

The files are read beneath the image and through no link, and nothing of them is run.
"""

from __future__ import annotations

import lzma
import os
import re
import stat
from typing import Any

from irons_local.bundle.oci import BUSYBOX, MODPROBE, MODULES
from irons_local.errors import EngineError
from irons_local.images.bootable import initrd
from irons_local.linux import syscalls
from irons_local.linux.userns_main import Say

_BUSYBOX = ("usr/bin/busybox", "bin/busybox")
_MODULES = ("usr/lib/modules", "lib/modules")
_FILE_AT_MOST = 64 << 20
_KERNEL_AT_MOST = 256 << 20
_MODULES_AT_MOST = 1 << 30
_HINT = "irons local image build --for vm makes one that has"


def take(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """Write kernel and initial RAM disk to open files, and what is on the kit's disk besides its programs into a directory.

    Args:
        request: descriptors: `rootfs` of the image's files, `tree` of an empty directory, `kernel` and `initrd` of the files to write.

    Raises:
        EngineError: the image has no kernel, no modules or no static busybox.
    """
    rootfs, tree = request["rootfs"], request["tree"]
    os.umask(0o022)
    release = _kernel(rootfs, request["kernel"])
    busybox = _busybox(rootfs)
    home, modules = _modules(rootfs, release)
    try:
        with os.fdopen(os.dup(request["initrd"]), "wb") as file:
            file.write(initrd.build(busybox, modules))
        _write(tree, BUSYBOX, busybox, 0o755)
        os.symlink(BUSYBOX, MODPROBE, dir_fd=tree)
        os.mkdir(MODULES, dir_fd=tree)
        _copy(home, _enter(tree, MODULES), release, _MODULES_AT_MOST)
    finally:
        os.close(home)
    return {"release": release}


def kernels(rootfs: int) -> list[str]:
    """Names of the kernels in an image's `/boot`; none where that cannot be read."""
    try:
        boot = syscalls.open_beneath(rootfs, "boot", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return []
    try:
        return [name for name in os.listdir(boot) if name.startswith("vmlinuz-")]  # noqa: PTH208 (a descriptor)
    finally:
        os.close(boot)


def _kernel(rootfs: int, target: int) -> str:
    """Copy the newest kernel; gives its release."""
    found = kernels(rootfs)
    if not found:
        raise EngineError("image", "the image has no kernel (/boot/vmlinuz-…)", _HINT)
    name = max(found, key=_version)
    with os.fdopen(os.dup(target), "wb") as file:
        file.write(_read(rootfs, f"boot/{name}", _KERNEL_AT_MOST))
    return name.removeprefix("vmlinuz-")


def _version(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _busybox(rootfs: int) -> bytes:
    for path in _BUSYBOX:
        try:
            program = _read(rootfs, path, _FILE_AT_MOST)
        except OSError:
            continue
        if initrd.is_static(program):
            return program
    raise EngineError("image", "the image has no static busybox, which starts a virtual machine", _HINT)


def _modules(rootfs: int, release: str) -> tuple[int, list[tuple[str, bytes]]]:
    """The directory of a kernel's modules, and those of the initial RAM disk, in the order in which they are loaded."""
    for directory in _MODULES:
        try:
            home = syscalls.open_beneath(rootfs, f"{directory}/{release}", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            text = _read(home, "modules.dep", _FILE_AT_MOST).decode(errors="replace")
            return home, [_module(path, _read(home, path, _FILE_AT_MOST)) for path in initrd.load_order(text)]
        except OSError:
            os.close(home)
    raise EngineError("image", f"the image has no modules of its kernel {release}", _HINT)


def _module(path: str, content: bytes) -> tuple[str, bytes]:
    name = path.rpartition("/")[2]
    if name.endswith(".xz"):
        return name.removesuffix(".xz"), lzma.decompress(content)
    return name, content


def _copy(source: int, into: int, name: str, left: int) -> int:
    """Copy the files and directories in a directory to a new one, `name` in `into`, which is closed; gives how many bytes of `left` remain."""
    try:
        os.mkdir(name, dir_fd=into)
        target = _enter(into, name)
    finally:
        os.close(into)
    try:
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below = _enter(source, entry.name)
                    try:
                        left = _copy(below, os.dup(target), entry.name, left)
                    finally:
                        os.close(below)
                elif entry.is_file(follow_symlinks=False):
                    content = _read(source, entry.name, min(left, _FILE_AT_MOST))
                    left -= len(content)
                    _write(target, entry.name, content, 0o644)
    finally:
        os.close(target)
    return left


def _enter(directory: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)


def _write(directory: int, name: str, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, mode, dir_fd=directory), "wb") as file:
        file.write(content)


def _read(directory: int, path: str, most: int) -> bytes:
    descriptor = syscalls.open_beneath(directory, path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a file")
        content = file.read(most + 1)
    if len(content) > most:
        raise EngineError("image", f"/{path} of the image is larger than {most:,} bytes")
    return content
