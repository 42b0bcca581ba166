"""The root file systems that sandboxes start from: built, imported, saved from a sandbox, exported, removed.

Each is a directory `img_…` with `image.json` and, unless it only names layers over another one, `rootfs`; it is put
in its place by one rename when all of it is on the disk, and what is being made is called `.new-…`. Two images may
have one name: the newer is meant. One without a name, or with a name that was used again, stays for as long as a
sandbox or another image uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import stat
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from irons_local.bundle.machine import Machine
from irons_local.errors import EngineError
from irons_local.images import saving
from irons_local.images.drafts import drafted
from irons_local.images.layers import Layers
from irons_local.images.locks import locked, locked_now
from irons_local.images.record import ROOTFS, Image, check_name
from irons_local.images.snapshots import FILE as SNAPSHOT
from irons_local.images.snapshots import Snapshots
from irons_local.images.sources import debian, fetching
from irons_local.images.sources.mmdebstrap import debootstrap, piped
from irons_local.images.sources.reference import Reference
from irons_local.linux import disk_images, syscalls
from irons_local.linux.idmap import IdMapError, is_machines_root, outer_map
from irons_local.linux.remove_tree import remove_tree
from irons_local.linux.userns_call import call
from irons_local.linux.userns_main import STAGE
from irons_local.progress import Progress, unheard
from irons_local.times import now

__all__ = ["DEFAULT", "MACHINE", "Image", "Images"]

DEFAULT = "debian"
MACHINE = "debian-vm"
"""The image that virtual machines start from where none is named."""
_UNPACK = "irons_local.images.inside.unpack:unpack"
_PACK = "irons_local.images.inside.pack:pack"
_LOCK = ".lock"
_BUSY_WITHIN = 5.0
"""Seconds within which someone else is done with a sandbox for a moment, such as with naming a merged layer."""

_USE_LOCK = ".use-lock"


class Images:
    """The images of one user."""

    def __init__(self, root: Path, sandboxes: Path) -> None:
        self._root = root
        self._sandboxes = sandboxes
        self.layers = Layers.beside(root)
        self.snapshots = Snapshots.beside(root)

    @property
    def root(self) -> Path:
        """The directory that holds them."""
        return self._root

    @property
    def build_log(self) -> Path:
        """What the programs of the last build printed."""
        return self._root.with_name("logs") / "image-build.log"

    def listed(self) -> Sequence[Image]:
        """The images that have a name, newest first."""
        newest: dict[str, Image] = {}
        for image in sorted(self._all(), key=lambda image: image.created_at):
            if image.name:
                newest[image.name] = image
        return sorted(newest.values(), key=lambda image: -image.created_at)

    def find(self, name: str) -> Image | None:
        """The image of that name."""
        return next((image for image in self.listed() if image.name == name), None)

    def named(self, name: str) -> Image:
        """The image of that name.

        Raises:
            EngineError: there is none, or a newer irons made it.
        """
        image = self.find(name)
        if image is None:
            self._refuse_newer(name)
            raise EngineError("absent", f"there is no image {name}")
        return image

    def _refuse_newer(self, name: str) -> None:
        """Say so where the image of that name has a record that only a newer irons can read."""
        for entry in _entries(self._root):
            if entry.startswith("img_") and Image.name_of_newer(self._root / entry) == name:
                raise EngineError(
                    "state",
                    f"a newer irons made the image {name}, and this one cannot read its record",
                    "install the newer irons again to use it",
                )

    def base(self) -> Image | None:
        """The image whose SSH server serves all: the default one, or the one below it, or the newest that was built."""
        default = self.find(DEFAULT)
        if default is not None and default.base:
            default = Image.read(self._root / default.base)
        if default is not None and default.is_base:
            return default
        return next((image for image in self.listed() if image.is_base and image.is_built), None)

    def by_id(self, identifier: str) -> Image:
        """The image of that id, its name used again or not.

        Raises:
            EngineError: it is gone.
        """
        image = Image.read(self._root / identifier)
        if image is None:
            raise EngineError("image", f"the image {identifier} is gone")
        return image

    def lower(self, image: Image) -> list[Path]:
        """The directories that an image's files are in, topmost first.

        Raises:
            EngineError: one of them is gone, or it is the disk of a virtual machine.
        """
        if image.disk:
            raise EngineError(
                "image",
                f"the image {image.name} is the disk of a virtual machine, of which no file is read here",
                "create --engine vm --image starts another machine from it",
            )
        base = self.by_id(image.base) if image.base else image
        return [*self.layers.trees(image.layers), base.rootfs]

    def size(self, image: Image) -> int | None:
        """Bytes of an image's files, those that a layer hides included; None until its layers are counted."""
        named = set(image.layers)
        sizes = [layer.size for layer in self.layers.listed() if layer.id in named]
        counted = [size for size in sizes if size is not None]
        return image.size + sum(counted) if len(counted) == len(named) else None

    def redirects(self, image: Image) -> bool:
        """Whether an image's files are mounted as the machine's root does; where it has no layers, that is for choice.

        Raises:
            EngineError: they must be, and this process is not the machine's root.
        """
        root = is_machines_root()
        if image.redirects and not root:
            raise EngineError(
                "machine",
                f"the layers of the image {image.name} can only be read by the machine's root, outside of user namespaces",
            )
        return root if not image.layers else image.redirects

    async def ensure(self, name: str, default: str = "", progress: Progress = unheard) -> Image:
        """The image of that name; the default one, for "", is made where there is none.

        Args:
            name: the image's, or "".
            default: path of an archive to make the default image of; "" builds it.
            progress: called with the progress.

        Raises:
            EngineError: there is no such image, or it could not be made.
        """
        image = self.find(name or DEFAULT)
        if image is not None:
            return image
        if name and name != DEFAULT:
            self._refuse_newer(name)
            known = ", ".join(sorted(image.name for image in self.listed())) or "none yet"
            raise EngineError("image", f"there is no image {name}", f"images: {known}")
        progress("there is no default image yet: making one, once", None)
        if default:
            return await self.import_(Path(default), DEFAULT, progress=progress, share=True)
        return await self.build(progress=progress, share=True)

    async def build(
        self,
        name: str = DEFAULT,
        *,
        mirror: str | None = None,
        include: Sequence[str] = (),
        machine: bool = False,
        progress: Progress = unheard,
        share: bool = False,
    ) -> Image:
        """Build a lean Debian; takes 20 to 60 seconds, with a kernel of its own up to three minutes.

        Args:
            name: what to call it.
            mirror: URL of the package mirror; the host's own where it is a Debian or Ubuntu.
            include: further packages.
            machine: add a kernel and an init, so that virtual machines can boot it.
            progress: called with the progress.
            share: take one of that name that another process has made.

        Raises:
            EngineError: it could not be built; nothing is left of it.
        """
        recipe = debian.recipe(mirror, include, machine=machine)
        async with self._making(name, progress, share=share) as draft:
            if isinstance(draft, Image):
                return draft
            read, write = os.pipe2(os.O_CLOEXEC)
            unpacking = self._unpack(draft, read, unheard, stream=True)
            found = await piped(debootstrap(recipe, write, self.build_log, progress), write, unpacking, read)
            return Image.put(draft, self._root, name, f"built from {recipe.suite}", found)

    async def import_(
        self, archive: Path, name: str, *, progress: Progress = unheard, share: bool = False
    ) -> Image:
        """Make an image of an archive: Docker, OCI, or a plain tar of a root file system.

        Raises:
            EngineError: the archive cannot be read, is refused, or is not a machine with an SSH server.
        """
        try:
            descriptor = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise EngineError("input", f"{archive}: {error.strerror}") from error
        try:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise EngineError("input", f"{archive} is a directory", "an image is made of a tar archive")
            return await self.import_from(descriptor, name, archive.name, progress=progress, share=share)
        finally:
            os.close(descriptor)

    async def import_from(
        self, archive: int, name: str, source: str, *, progress: Progress = unheard, share: bool = False
    ) -> Image:
        """`import_` of an open, seekable file, which the caller closes; `source` says what it is."""
        async with self._making(name, progress, share=share) as draft:
            if isinstance(draft, Image):
                return draft
            found = await self._unpack(draft, archive, progress, stream=False)
            return Image.put(draft, self._root, name, f"imported from {source}", found)

    async def pull(
        self, reference: str, name: str = "", *, progress: Progress = unheard, share: bool = False
    ) -> Image:
        """Make an image of one at a registry.

        Args:
            reference: which, such as `python:3.12` or `registry.example/app@sha256:…`.
            name: what to call it; "" for the reference.
            progress: called with the progress.
            share: take one of that name that another process has made.

        Raises:
            EngineError: it cannot be fetched, is not the one of its digest, or is refused; nothing is left of it.
        """
        where = Reference.parse(reference)
        if where is None:
            raise EngineError("input", f"{reference!r} is not an image at a registry", "such as python:3.12")
        async with self._making(name or reference, progress, share=share) as draft:
            if isinstance(draft, Image):
                return draft
            progress(f"asking for {where.address}", None)
            digest = await fetching.digest_of(where)
            archive = draft / "fetched" / "archive.tar"
            archive.parent.mkdir(mode=0o700)
            await fetching.fetch(where, digest, archive, progress)
            descriptor = os.open(archive, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = await self._unpack(draft, descriptor, progress, stream=False)
            finally:
                os.close(descriptor)
            await remove_tree(archive.parent)
            found["digest"] = digest
            return Image.put(draft, self._root, name or reference, f"pulled from {where.address}", found)

    async def export(self, name: str, path: Path, *, progress: Progress = unheard) -> None:
        """Write an image as a plain tar archive; `path` is it whole, or what it was before.

        Raises:
            EngineError: there is none of that name, or the archive cannot be written.
        """
        with drafted(path) as archive:
            await self.export_to(name, archive, progress=progress)

    async def export_to(self, name: str, archive: int, *, progress: Progress = unheard) -> None:
        """`export` to an open file, which the caller closes."""
        await self.pack(self.named(name), archive, progress=progress)

    async def pack(self, image: Image, archive: int, *, progress: Progress = unheard) -> None:
        """Write the files of an image, its name used again or not, as a plain tar archive to an open file.

        Raises:
            EngineError: it cannot be read, or the disk is full.
        """
        if image.disk:
            self.lower(image)
        request: dict[str, Any] = {"archive": archive, "size": image.size, "without_keys": False}
        if image.layers:
            layers = [str(path) for path in self.lower(image)]
            request |= {"layers": layers, "redirects": self.redirects(image)}
            await call("b", _PACK, request, fds=(archive,), progress=progress)
            return
        rootfs = os.open(image.rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            request["rootfs"] = rootfs
            await call("b", _PACK, request, fds=(archive, rootfs), progress=progress)
        finally:
            os.close(rootfs)

    async def save(self, sandbox: str, name: str, *, progress: Progress = unheard) -> Image:
        """Make an image of a stopped sandbox of the `namespace` engine, without host keys and authorized keys; see also `engines.vm.saved`.

        Args:
            sandbox: its id.
            name: what to call the image.
            progress: called with the progress.

        Raises:
            EngineError: it runs, is absent or damaged, or the image cannot be written.
        """
        check_name(name)
        home = self._sandboxes / sandbox
        if not (home / "upper").is_dir() and not (home / saving.NEXT).is_dir():
            raise EngineError("absent", f"there is no sandbox {sandbox} of this engine")
        async with Machine.held(home, _BUSY_WITHIN):
            if Machine.running(home) is not None:
                raise EngineError("state", f"sandbox {sandbox} runs", "stop it first")
            async with self.keeping():
                await saving.settle(home, self.layers)
                work = self._saving(home)
                if work.is_possible():
                    return await work.save(name, progress)
            return await self._copy(work, name, progress)

    def _saving(self, home: Path) -> saving.Saving:
        machine = Machine.read(home)
        parent = self.by_id(machine.image)
        lower = [*self.layers.trees(machine.layers), *self.lower(parent)]
        return saving.Saving(home, machine, parent, lower, self.layers, self._root)

    async def _copy(self, work: saving.Saving, name: str, progress: Progress) -> Image:
        """Save a sandbox whose changes cannot become a layer, by copying all its files."""
        disk = work.home / disk_images.FILE
        upper = Path(STAGE) / disk_images.UPPER if disk.exists() else work.home / "upper"
        laid = [upper] if Machine.is_laid(work.home) else []
        layers = [str(path) for path in (*laid, *work.lower)]
        async with self._making(name, progress, share=False) as draft:
            if isinstance(draft, Image):
                return draft
            read, write = os.pipe2(os.O_CLOEXEC)
            request = {
                "archive": write,
                "layers": layers,
                "size": work.parent.size,
                "without_keys": True,
                "redirects": work.machine.redirects,
            }
            if disk.exists() and laid:
                request["disk"] = str(disk)
            packing = call("b", _PACK, request, fds=(write,), progress=progress)
            found = await piped(packing, write, self._unpack(draft, read, unheard, stream=True), read)
            found.update(work.parent.lasting)
            return Image.put(draft, self._root, name, f"saved from {work.machine.name}", found)

    @contextlib.asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """Keep images from being removed, so that what was found can be used."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with locked(self._root / _USE_LOCK, shared=True):
            yield

    async def remove(self, name: str) -> None:
        """Remove an image.

        Raises:
            EngineError: there is none of that name, or a sandbox uses it.
        """
        if not self._root.is_dir():
            raise EngineError("absent", f"there is no image {name}")
        async with locked(self._root / _USE_LOCK):
            image = self.named(name)
            users = self._users(image.id)
            if users:
                raise EngineError(
                    "state", f"image {name} is in use by {', '.join(sorted(users))}", "destroy them first"
                )
            held = self.snapshots.using(image.id)
            if held:
                raise EngineError(
                    "state",
                    f"image {name} is in use by the snapshot {', '.join(sorted(held))}",
                    "irons snapshot remove removes one",
                )
            if any(other.base == image.id for other in self._all()):
                # It is removed with the last image that uses it.
                replace(image, name="").write(image.home)
            else:
                await self._discard(image)
            await self._sweep_unnamed()

    async def recover(self) -> None:
        """Remove what was interrupted, and images and layers that nothing uses any more."""
        if not self._root.is_dir():
            return
        with locked_now(self._root / _LOCK) as held:
            # Where someone makes an image just now, what looks interrupted is theirs.
            if held:
                await self._sweep()
        await self.sweep()

    async def sweep(self) -> None:
        """Remove the images and layers that nothing uses any more."""
        if not self._root.is_dir():
            return
        async with locked(self._root / _USE_LOCK):
            await self._sweep_unnamed()

    async def _sweep_unnamed(self) -> None:
        """Remove what no name leads to; the lock is held."""
        for entry in _entries(self._root):
            if entry.startswith(saving.DRAFT):
                await remove_tree(self._root / entry)
        await self.snapshots.sweep()
        references = self._references()
        if references is None:
            # What a damaged record names is not known, and must not go before its sandbox does.
            return
        named = {image.id for image in self.listed()}
        images = {image.id: image for image in self._all()}
        kept = {each for each in images if each in named or each in references}
        for _ in range(2):
            # A disk is over an image that may itself have layers over another one.
            kept |= {images[each].base for each in kept & images.keys()}
        for each in images.keys() - kept:
            await self._discard(images[each])
        layers = {layer for each in kept & images.keys() for layer in images[each].layers}
        await self.layers.sweep(layers | references)

    async def _discard(self, image: Image) -> None:
        """Remove the files of an image; nothing may name it."""
        gone = self._root / f".gone-{image.id}"
        image.home.rename(gone)
        await remove_tree(gone)

    async def _sweep(self) -> None:
        """Remove what no one makes or removes any more; the lock is held."""
        for entry in _entries(self._root):
            if entry.startswith((".new-", ".gone-")):
                await remove_tree(self._root / entry)

    def _all(self) -> list[Image]:
        found = (Image.read(self._root / entry) for entry in _entries(self._root) if entry.startswith("img_"))
        return [image for image in found if image is not None]

    def _users(self, image: str) -> set[str]:
        """Names of the sandboxes that are based on an image."""
        found: set[str] = set()
        for home in self._homes():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                body = json.loads((home / "machine.json").read_bytes())
                if body["image"] == image:
                    found.add(body["name"])
        return found

    def named_but_for(self, sandbox: str) -> set[str] | None:
        """Ids that any record names but that of one sandbox; None where one of them is damaged."""
        references = self._references(but=sandbox)
        if references is None:
            return None
        return references | {layer for image in self._all() for layer in image.layers}

    def _references(self, but: str = "") -> set[str] | None:
        """Ids that records name which are not read otherwise; None where one of them is damaged.

        Those are the records of the sandboxes, all `but` one, and the snapshots, and of images that a newer irons made.
        """
        found: set[str] = set()
        for home in self._homes():
            if home.name == but:
                continue
            try:
                # Not by `Machine`: what a newer irons wrote counts, too.
                body = json.loads((home / "machine.json").read_bytes())
                found |= {body["image"], *body.get("layers", ())}
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                if (home / "upper").is_dir() or (home / saving.NEXT).is_dir() or Machine.is_virtual(home):
                    return None
        for home in self.snapshots.homes():
            try:
                body = json.loads((home / SNAPSHOT).read_bytes())
                found |= {body["image"], *body["layers"]}
            except (OSError, ValueError, KeyError, TypeError):
                return None
        for entry in _entries(self._root):
            if entry.startswith("img_") and Image.read(self._root / entry) is None:
                try:
                    found |= Image.names(self._root / entry)
                except (OSError, ValueError, TypeError, AttributeError):
                    return None
        return found

    def _homes(self) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return [home for home in self._sandboxes.iterdir() if home.name.startswith("sb_")]
        return []

    @contextlib.asynccontextmanager
    async def _making(self, name: str, progress: Progress, *, share: bool) -> AsyncIterator[Path | Image]:
        """A directory to make an image in, alone; or the image that another process has made."""
        check_name(name)
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        begun = now()
        async with locked(self._root / _LOCK, progress=progress):
            await self._sweep()
            other = self.find(name)
            if share and other is not None and other.created_at >= begun:
                yield other
                return
            draft = self._root / f".new-{secrets.token_hex(8)}"
            try:
                (draft / ROOTFS).mkdir(parents=True, mode=0o755)
                draft.chmod(0o700)
                yield draft
            except OSError as error:
                raise EngineError("failed", f"the image could not be written: {error.strerror}") from error
            finally:
                await asyncio.shield(remove_tree(draft))

    async def _unpack(self, draft: Path, archive: int, progress: Progress, *, stream: bool) -> dict[str, Any]:
        rootfs = os.open(draft / ROOTFS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            idmap = outer_map()
            if os.geteuid() == 0:
                os.fchown(rootfs, idmap.host_uid(1), idmap.host_gid(1))
            size = 0 if stream else os.fstat(archive).st_size
            request = {"archive": archive, "rootfs": rootfs, "stream": stream, "size": size, "give": [rootfs]}
            found = await call("b", _UNPACK, request, fds=(archive, rootfs), progress=progress)
            # The rename that follows must not reach the disk before the files do.
            await asyncio.to_thread(syscalls.syncfs, rootfs)
            return found
        except IdMapError as error:
            raise EngineError("machine", str(error), "see `irons doctor`: subordinate-ids") from error
        finally:
            os.close(rootfs)


def _entries(directory: Path) -> list[str]:
    try:
        return sorted(path.name for path in directory.iterdir())
    except FileNotFoundError:
        return []
