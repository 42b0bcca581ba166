"""The kernel kits on this machine: what every virtual machine boots, with any image, made once of an image of Debian.

The newest is used, so that a kernel that is built later serves all machines from their next start on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeGuard

from irons.files import write_whole
from irons_local.errors import EngineError
from irons_local.images.bootable import kernel_kit
from irons_local.images.catalog import MACHINE, Image, Images
from irons_local.images.kit.collect import VERSION as PROGRAMS
from irons_local.images.kit.store import MadeKit
from irons_local.images.locks import holding, locked
from irons_local.linux import syscalls
from irons_local.linux.idmap import outer_map
from irons_local.linux.remove_tree import remove_tree
from irons_local.linux.userns_call import call
from irons_local.progress import Progress, unheard
from irons_local.times import now

_COLLECT = "irons_local.images.kit.collect:collect"
_TAKE = "irons_local.images.bootable.kernel_kit:take"
_DISK = "irons_local.images.bootable.disk:make"
_ROOM = 32 << 20
_VERSION = 2
"""Of what a kit has in it besides the programs of `images.kit`; it is counted on where something is added."""
_MORE = {"resize2fs": ["usr/sbin/resize2fs", "sbin/resize2fs"]}
"""A program that the SSH server's kit has no use for: a machine's file system grows to the size of its disk."""
_PREFIX, _DRAFT, _LOCK = "kernel_", ".kernel-", ".kernel-lock"
_FILE = "kernel.json"
_TREE = "tree"
_FILES = ("disk", "kernel", "initrd")

_log = logging.getLogger(__name__)


class KernelKit(NamedTuple):
    """A kit on the disk.

    Attributes:
        programs: the SSH server and the programs on its disk.
        kernel, initrd: paths of the kernel and its initial RAM disk.
        disk: path of the file system with the programs and the modules, to be read only.
        release: the kernel's, as `uname -r` says it.
        is_current: whether it has in it what a kit of this irons has.
        number: how many kits were made before it, of those that were there: clocks go back.
        seen: ids of the images that were there when it was made.
    """

    programs: MadeKit
    kernel: Path
    initrd: Path
    disk: Path
    release: str
    is_current: bool
    number: int = 0
    seen: frozenset[str] = frozenset()

    @classmethod
    def read(cls, home: Path) -> Self | None:
        """The kit of a directory; None where there is none, or it cannot be read."""
        try:
            body = json.loads((home / _FILE).read_bytes())
            disk, kernel, initrd = (home / name for name in _FILES)
            made = int(body["created_at"])
            programs = MadeKit(home.name, str(body["image"]), made, tuple(body["names"]), home)
            current = body["version"] == [_VERSION, PROGRAMS]
            number, seen = int(body.get("number", 0)), frozenset(map(str, body.get("seen", ())))
            return cls(programs, kernel, initrd, disk, str(body["release"]), current, number, seen)
        except (OSError, ValueError, TypeError, KeyError):
            return None


def newest(images: Images) -> KernelKit | None:
    """The kit that was made last."""
    return max(_all(images), key=lambda kit: (kit.number, kit.programs.created_at), default=None)


@contextlib.contextmanager
def held(kit: KernelKit) -> Iterator[bool]:
    """Keep a kit from being removed, where it is there still; gives whether it is."""
    with holding(kit.disk.parent) as is_held:
        yield is_held and (kit.disk.parent / _FILE).exists()


def base(images: Images) -> Image | None:
    """The image that a kit is made of: the default one for virtual machines, or the newest with a kernel that was built here."""
    default = images.find(MACHINE)
    if default is not None and default.is_base and _has_kernel(default):
        return default
    built = (image for image in images.listed() if image.is_base and image.is_built)
    return next((image for image in built if _has_kernel(image)), None)


async def prepare(images: Images, progress: Progress = unheard) -> None:
    """Build the image that a kit is made of, where there is neither a kit nor one.

    Raises:
        EngineError: it could not be built.
    """
    if newest(images) is None and base(images) is None:
        progress(f"there is no kernel for virtual machines yet: building the image {MACHINE}, once", None)
        await images.build(MACHINE, machine=True, progress=progress, share=True)


async def ensure(images: Images, progress: Progress = unheard) -> KernelKit:
    """The kit of the image that kits are made of, made where there is none; the images must be kept while it runs.

    Raises:
        EngineError: there is neither a kit nor an image to make one of, or it could not be made.
    """
    image, found = base(images), newest(images)
    if _is_fit(found, image):
        return found
    try:
        return await _made(images, image, progress)
    except EngineError as error:
        if found is None:
            raise
        _log.warning("the kernel of virtual machines could not be made again: %s", error)
        return found


async def _made(images: Images, image: Image | None, progress: Progress) -> KernelKit:
    async with locked(images.root / _LOCK, progress=progress):
        found = newest(images)
        if _is_fit(found, image):
            return found
        if image is None:
            raise EngineError(
                "image",
                "there is no kernel for virtual machines",
                "irons local image build --for vm makes one",
            )
        progress("preparing the kernel of virtual machines, once", None)
        try:
            await _sweep(images, kept="")
            await _make(images, image, progress)
            found = newest(images)
            if found is None:
                raise EngineError("failed", "the kernel kit could not be made")
            await _sweep(images, kept=found.programs.id)
        except OSError as error:
            raise EngineError("failed", f"the kernel kit could not be written: {error.strerror}") from error
        return found


def _is_fit(found: KernelKit | None, image: Image | None) -> TypeGuard[KernelKit]:
    """Whether a kit is there, and no better one can be made of that image."""
    if found is None or image is None:
        return found is not None
    return found.is_current and image.id in found.seen


async def _make(images: Images, image: Image, progress: Progress) -> None:
    draft = images.root / f"{_DRAFT}{secrets.token_hex(8)}"
    before = newest(images)
    seen = sorted(entry.name for entry in images.root.iterdir() if entry.name.startswith("img_"))
    try:
        (draft / _TREE).mkdir(parents=True, mode=0o755)
        draft.chmod(0o700)
        with contextlib.ExitStack() as stack:
            request: dict[str, Any] = {}
            for name, path in (("rootfs", image.rootfs), ("tree", draft / _TREE)):
                request[name] = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                stack.callback(os.close, request[name])
            for name in _FILES:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                request[name] = os.open(draft / name, flags, 0o644)
                stack.callback(os.close, request[name])
            # Every user inside runs its programs, independent of the umask here.
            os.fchmod(request["tree"], 0o755)
            given = tuple(request[name] for name in ("tree", *_FILES))
            if os.geteuid() == 0:
                idmap = outer_map()
                for descriptor in given:
                    os.fchown(descriptor, idmap.host_uid(1), idmap.host_gid(1))
            rootfs, tree, disk = request["rootfs"], request["tree"], request["disk"]
            # They become those of a sandbox's root, as which QEMU reads them later: by way of mounts that are read-only.
            made = await call("b", _TAKE, {**request, "give": given}, fds=(rootfs, *given))
            wanted = {"rootfs": rootfs, "kit": tree, "more": _MORE}
            found = await call("b", _COLLECT, wanted, fds=(rootfs, tree))
            wanted = {"rootfs": tree, "disk": disk, "room": _ROOM, "what": "the kernel kit"}
            await call("b", _DISK, wanted, fds=(tree, disk), progress=progress)
            await asyncio.to_thread(syscalls.syncfs, tree)
        await remove_tree(draft / _TREE)
        body = {**made, "image": image.id, "created_at": now(), "names": found["names"]}
        body |= {"version": [_VERSION, PROGRAMS], "seen": seen, "number": before.number + 1 if before else 0}
        write_whole(draft / _FILE, json.dumps(body), durable=True, parents=False)
        draft.rename(images.root / f"{_PREFIX}{secrets.token_hex(8)}")
    finally:
        await asyncio.shield(remove_tree(draft))


async def _sweep(images: Images, kept: str) -> None:
    """Remove what was interrupted, and with `kept` every kit but that: what runs has its files open. The lock is held.

    One that a start holds goes with the next sweep.
    """
    for entry in list(images.root.iterdir()):
        if entry.name.startswith(_DRAFT) and entry.name != _LOCK:
            await remove_tree(entry)
        elif kept and entry.name.startswith(_PREFIX) and entry.name != kept:
            with holding(entry, alone=True) as is_held:
                if is_held:
                    await remove_tree(entry)


def _all(images: Images) -> list[KernelKit]:
    try:
        homes = [path for path in images.root.iterdir() if path.name.startswith(_PREFIX)]
    except FileNotFoundError:
        return []
    return [kit for kit in map(KernelKit.read, homes) if kit is not None]


def _has_kernel(image: Image) -> bool:
    try:
        rootfs = os.open(image.rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return bool(kernel_kit.kernels(rootfs))
    finally:
        os.close(rootfs)
