"""What virtual machines of an image boot from: the kernel kit, and a disk that is kept in the image's directory, as `vm`.

The disk is made once per image, by the first machine that needs it, and goes with the image. An older irons put the image's own kernel
next to it, which its machines boot then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from irons_local.errors import EngineError
from irons_local.images.bootable import kernel_kits
from irons_local.images.bootable.kernel_kits import KernelKit
from irons_local.images.catalog import Image, Images
from irons_local.images.locks import locked
from irons_local.linux import syscalls
from irons_local.linux.idmap import outer_map
from irons_local.linux.remove_tree import remove_tree
from irons_local.linux.userns_call import call
from irons_local.progress import Progress, unheard

_MAKE = "irons_local.images.bootable.disk:make"
_DIRECTORY = "vm"
_DRAFT = ".vm-new-"
_LOCK = ".vm-lock"
_RECORD = "boot.json"
_DISK = "disk"


class Bootable(NamedTuple):
    """What a machine of an image boots from.

    Attributes:
        disk: path of the file system, to be read only.
        kernel, initrd: paths of the kernel and its initial RAM disk.
        release: the kernel's, as `uname -r` says it.
        size: bytes of the disk.
        kit: what these are of; None where they are the image's own.
    """

    disk: Path
    kernel: Path
    initrd: Path
    release: str
    size: int
    kit: KernelKit | None = None


class _Made(NamedTuple):
    """What is kept of an image: bytes of its disk, and the release of the kernel next to it, "" where that is the kit's."""

    size: int
    release: str

    @classmethod
    def read(cls, image: Image) -> Self | None:
        try:
            body = json.loads((image.home / _DIRECTORY / _RECORD).read_bytes())
            return cls(int(body["size"]), str(body.get("kernel", "")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


async def prepare(images: Images, image: Image | None, progress: Progress = unheard) -> None:
    """Have what a kernel kit is made of, where a machine needs one; no image is kept while that is built.

    Args:
        images: the images.
        image: the machine's; None for one of a snapshot, whose image is known only once it is kept.
        progress: called with the progress.

    Raises:
        EngineError: it could not be built. Of a machine of a snapshot `ensure` says it, where it needs one.
    """
    found = None if image is None else _Made.read(image)
    if found is not None and found.release:
        return
    try:
        await kernel_kits.prepare(images, progress)
    except EngineError:
        if image is not None:
            raise


def disk_of(image: Image) -> Path:
    """The file system that machines of an image start from.

    Raises:
        EngineError: it was not made yet, or is damaged.
    """
    if _Made.read(image) is None:
        raise EngineError("image", f"the disk of the image {image.name or image.id} is gone")
    return image.home / _DIRECTORY / _DISK


async def ensure(images: Images, image: Image, progress: Progress = unheard) -> Bootable:
    """What a machine of an image boots from, made where it is not there; the image must be kept while it runs.

    Raises:
        EngineError: there is no kernel, or something could not be written.
    """
    found = _Made.read(image)
    home = image.home / _DIRECTORY
    if found is not None and found.release:
        return Bootable(home / _DISK, home / "kernel", home / "initrd", found.release, found.size)
    kit = await kernel_kits.ensure(images, progress)
    if found is None:
        found = await _disk(images, image, progress)
    return Bootable(home / _DISK, kit.kernel, kit.initrd, kit.release, found.size, kit)


@contextlib.asynccontextmanager
async def held(images: Images, image: Image) -> AsyncIterator[Bootable]:
    """Give what a machine of an image boots from, and keep it from being removed; raises like `ensure`."""
    while True:
        found = await ensure(images, image)
        with contextlib.nullcontext(True) if found.kit is None else kernel_kits.held(found.kit) as is_there:
            if is_there:
                yield found
                return


async def _disk(images: Images, image: Image, progress: Progress) -> _Made:
    async with locked(image.home / _LOCK, progress=progress):
        found = _Made.read(image)
        if found is None:
            progress(f"preparing {image.name} for virtual machines, once", None)
            try:
                await _make(images, image, progress)
            except OSError as error:
                raise EngineError("failed", f"the disk of {image.name}: {error.strerror}") from error
            found = _Made.read(image)
    if found is None:
        raise EngineError("failed", f"the disk of {image.name} could not be made")
    return found


def _give(descriptor: int) -> None:
    """Give a file to a sandbox's root where only the machine's root may."""
    if os.geteuid() == 0:
        idmap = outer_map()
        os.fchown(descriptor, idmap.host_uid(1), idmap.host_gid(1))


async def _make(images: Images, image: Image, progress: Progress) -> None:
    for entry in image.home.iterdir():
        if entry.name.startswith(_DRAFT):
            await remove_tree(entry)
    draft = image.home / f"{_DRAFT}{secrets.token_hex(4)}"
    draft.mkdir(mode=0o700)
    try:
        with contextlib.ExitStack() as stack:
            disk = os.open(draft / _DISK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            stack.callback(os.close, disk)
            _give(disk)
            # It becomes that of a sandbox's root, as which QEMU reads it later: by way of a mount that is read-only.
            request: dict[str, Any] = {"disk": disk, "give": [disk]}
            if image.layers:
                request["layers"] = [str(path) for path in images.lower(image)]
                request["redirects"] = images.redirects(image)
                found = await call("b", _MAKE, request, fds=(disk,), progress=progress)
            else:
                rootfs = os.open(image.rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                stack.callback(os.close, rootfs)
                request["rootfs"] = rootfs
                found = await call("b", _MAKE, request, fds=(disk, rootfs), progress=progress)
            await asyncio.to_thread(syscalls.syncfs, disk)
        (draft / _RECORD).write_text(json.dumps(found), encoding="utf-8")
        draft.rename(image.home / _DIRECTORY)
    except BaseException:
        await asyncio.shield(remove_tree(draft))
        raise
