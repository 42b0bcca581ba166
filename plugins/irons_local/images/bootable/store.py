"""What virtual machines boot from, kept in the directory of the image that it was made of, as `vm`.

It is made once per image, by the first machine that needs it, and goes with the image.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from irons_local.errors import EngineError
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
_FILES = ("disk", "kernel", "initrd")


class Bootable(NamedTuple):
    """What a machine of an image boots from.

    Attributes:
        disk: path of the file system, to be read only.
        kernel, initrd: paths of the kernel and its initial RAM disk.
        release: the kernel's, as `uname -r` says it.
        size: bytes of the disk.
    """

    disk: Path
    kernel: Path
    initrd: Path
    release: str
    size: int

    @classmethod
    def read(cls, image: Image) -> Self | None:
        """What was made of an image; None where nothing was, or it is damaged."""
        home = image.home / _DIRECTORY
        try:
            body = json.loads((home / _RECORD).read_bytes())
            disk, kernel, initrd = (home / name for name in _FILES)
            return cls(disk, kernel, initrd, str(body["kernel"]), int(body["size"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None


async def ensure(images: Images, image: Image, progress: Progress = unheard) -> Bootable:
    """What a machine of an image boots from, made where it is not there; the image must be kept while it runs.

    Raises:
        EngineError: the image cannot be booted, or it could not be written.
    """
    found = Bootable.read(image)
    if found is not None:
        return found
    async with locked(image.home / _LOCK, progress=progress):
        found = Bootable.read(image)
        if found is None:
            progress(f"preparing {image.name} for virtual machines, once", None)
            try:
                await _make(images, image, progress)
            except OSError as error:
                raise EngineError("failed", f"the disk of {image.name}: {error.strerror}") from error
            found = Bootable.read(image)
    if found is None:
        raise EngineError("failed", f"the disk of {image.name} could not be made")
    return found


def _give(files: Sequence[int]) -> None:
    """Give files to a sandbox's root where only the machine's root may."""
    if os.geteuid() == 0:
        idmap = outer_map()
        for descriptor in files:
            os.fchown(descriptor, idmap.host_uid(1), idmap.host_gid(1))


async def _make(images: Images, image: Image, progress: Progress) -> None:
    for entry in image.home.iterdir():
        if entry.name.startswith(_DRAFT):
            await remove_tree(entry)
    draft = image.home / f"{_DRAFT}{secrets.token_hex(4)}"
    draft.mkdir(mode=0o700)
    try:
        with contextlib.ExitStack() as stack:
            request: dict[str, Any] = {}
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            for name in _FILES:
                request[name] = os.open(draft / name, flags, 0o644)
                stack.callback(os.close, request[name])
            files = tuple(request.values())
            _give(files)
            # They become those of a sandbox's root, as which QEMU reads them later: by way of mounts that are read-only.
            request["give"] = files
            if image.layers:
                request["layers"] = [str(path) for path in images.lower(image)]
                request["redirects"] = images.redirects(image)
                made = await call("b", _MAKE, request, fds=files, progress=progress)
            else:
                rootfs = os.open(image.rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                stack.callback(os.close, rootfs)
                request["rootfs"] = rootfs
                made = await call("b", _MAKE, request, fds=(*files, rootfs), progress=progress)
            await asyncio.to_thread(syscalls.syncfs, files[0])
        (draft / _RECORD).write_text(json.dumps(made), encoding="utf-8")
        draft.rename(image.home / _DIRECTORY)
    except BaseException:
        await asyncio.shield(remove_tree(draft))
        raise
