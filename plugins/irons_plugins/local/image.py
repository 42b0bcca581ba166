"""The root file systems that sandboxes start from: built, imported, saved from a sandbox, exported, removed.

Each is a directory `img_…` with `rootfs` and `image.json`, put in its place by one rename when all of it is on the
disk; what is being made is called `.new-…`. Two images may have one name: the newer is meant, the older stays
for as long as a sandbox stands on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from irons_plugins.local.engines import EngineError, Progress, kernel, unheard
from irons_plugins.local.engines.call import call
from irons_plugins.local.engines.machine import Machine
from irons_plugins.local.engines.removal import remove_tree
from irons_plugins.local.idmap import IdMapError, outer_map
from irons_plugins.local.images import debian
from irons_plugins.local.images.building import debootstrap, piped
from irons_plugins.local.images.locks import locked, locked_now
from irons_plugins.local.images.record import ROOTFS, Image, check_name, now

__all__ = ["DEFAULT", "Image", "Images"]

DEFAULT = "debian"
_UNPACK = "irons_plugins.local.images.unpack:unpack"
_PACK = "irons_plugins.local.images.pack:pack"
_LOCK = ".lock"
_USE_LOCK = ".use-lock"


class Images:
    """The images of one user."""

    def __init__(self, root: Path, sandboxes: Path) -> None:
        self._root = root
        self._sandboxes = sandboxes

    def listed(self) -> Sequence[Image]:
        """The images that have a name, newest first."""
        newest: dict[str, Image] = {}
        for image in sorted(self._all(), key=lambda image: image.created_at):
            newest[image.name] = image
        return sorted(newest.values(), key=lambda image: -image.created_at)

    def find(self, name: str) -> Image | None:
        """The image of that name."""
        return next((image for image in self.listed() if image.name == name), None)

    def by_id(self, identifier: str) -> Image:
        """The image of that id, its name used again or not.

        Raises:
            EngineError: it is gone.
        """
        image = Image.read(self._root / identifier)
        if image is None:
            raise EngineError("image", f"the image {identifier} is gone")
        return image

    async def ensure(self, name: str, default: str = "", progress: Progress = unheard) -> Image:
        """The image of that name; the default one, for "", is made where there is none.

        Args:
            name: the image's, or "".
            default: path of an archive to make the default image of; "" builds it.
            progress: told how far it is.

        Raises:
            EngineError: there is no such image, or it could not be made.
        """
        image = self.find(name or DEFAULT)
        if image is not None:
            return image
        if name and name != DEFAULT:
            known = ", ".join(sorted(image.name for image in self.listed())) or "none yet"
            raise EngineError("image", f"there is no image {name}", f"images: {known}")
        progress("there is no image yet: making one, once", None)
        if default:
            return await self.import_(Path(default), DEFAULT, progress=progress, share=True)
        return await self.build(progress=progress, share=True)

    async def build(
        self,
        name: str = DEFAULT,
        *,
        mirror: str | None = None,
        include: Sequence[str] = (),
        progress: Progress = unheard,
        share: bool = False,
    ) -> Image:
        """Build a lean Debian; takes 20 to 60 seconds.

        Args:
            name: what to call it.
            mirror: URL of the package mirror; the host's own where it is a Debian or Ubuntu.
            include: further packages.
            progress: told how far it is.
            share: be content with one of that name that somebody else makes meanwhile.

        Raises:
            EngineError: it could not be built; nothing is left of it.
        """
        recipe = debian.recipe(mirror, include)
        async with self._making(name, progress, share=share) as draft:
            if isinstance(draft, Image):
                return draft
            read, write = os.pipe2(os.O_CLOEXEC)
            unpacking = self._unpack(draft, read, unheard, stream=True)
            found = await piped(debootstrap(recipe, write, progress), write, unpacking, read)
            return Image.put(draft, self._root, name, f"built from {recipe.suite}", found)

    async def import_(
        self, archive: Path, name: str, *, progress: Progress = unheard, share: bool = False
    ) -> Image:
        """Make an image of an archive: Docker, OCI, or a plain tar of a root file system.

        Raises:
            EngineError: the archive cannot be read, is refused, or is no machine with an SSH server.
        """
        try:
            descriptor = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise EngineError("input", f"{archive}: {error.strerror}") from error
        try:
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

    async def export(self, name: str, path: Path, *, progress: Progress = unheard) -> None:
        """Write an image as a plain tar archive; `path` is it whole, or what it was before.

        Raises:
            EngineError: there is none of that name, or the archive cannot be written.
        """
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            archive = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise EngineError("input", f"{path.parent}: {error.strerror}") from error
        try:
            await self.export_to(name, archive, progress=progress)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(archive)

    async def export_to(self, name: str, archive: int, *, progress: Progress = unheard) -> None:
        """`export` to an open file, which the caller closes."""
        image = self.find(name)
        if image is None:
            raise EngineError("absent", f"there is no image {name}")
        rootfs = os.open(image.rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            request = {"archive": archive, "rootfs": rootfs, "size": image.size, "without_keys": False}
            await call("b", _PACK, request, fds=(archive, rootfs), progress=progress)
        finally:
            os.close(rootfs)

    async def save(self, sandbox: str, name: str, *, progress: Progress = unheard) -> Image:
        """Make an image of a stopped sandbox of the `namespace` engine, without host keys and authorized keys.

        Args:
            sandbox: its id.
            name: what to call the image.
            progress: told how far it is.

        Raises:
            EngineError: it runs, is absent or damaged, or the image cannot be written.
        """
        home = self._sandboxes / sandbox
        if not (home / "upper").is_dir():
            raise EngineError("absent", f"there is no sandbox {sandbox} of this engine")
        async with Machine.held(home):
            if Machine.running(home) is not None:
                raise EngineError("state", f"sandbox {sandbox} runs", "stop it first")
            return await self._save(home, name, progress)

    async def _save(self, home: Path, name: str, progress: Progress) -> Image:
        machine = Machine.read(home)
        base = self.by_id(machine.image)
        layers = [str(home / "upper"), str(base.rootfs)] if Machine.is_laid(home) else [str(base.rootfs)]
        async with self._making(name, progress, share=False) as draft:
            if isinstance(draft, Image):
                return draft
            read, write = os.pipe2(os.O_CLOEXEC)
            request = {"archive": write, "layers": layers, "size": base.size, "without_keys": True}
            packing = call("b", _PACK, request, fds=(write,), progress=progress)
            found = await piped(packing, write, self._unpack(draft, read, unheard, stream=True), read)
            return Image.put(draft, self._root, name, f"saved from {machine.name}", found)

    @contextlib.asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """Meanwhile no image is removed, so that what was found can be put to use."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with locked(self._root / _USE_LOCK, shared=True):
            yield

    async def remove(self, name: str) -> None:
        """Remove an image.

        Raises:
            EngineError: there is none of that name, or a sandbox stands on it.
        """
        if not self._root.is_dir():
            raise EngineError("absent", f"there is no image {name}")
        async with locked(self._root / _USE_LOCK):
            image = self.find(name)
            if image is None:
                raise EngineError("absent", f"there is no image {name}")
            users = self._in_use().get(image.id)
            if users:
                raise EngineError(
                    "state", f"image {name} is in use by {', '.join(sorted(users))}", "destroy them first"
                )
            gone = self._root / f".gone-{image.id}"
            image.home.rename(gone)
            await remove_tree(gone)

    async def recover(self) -> None:
        """Remove what was interrupted, and older images that no sandbox stands on any more."""
        if not self._root.is_dir():
            return
        with locked_now(self._root / _LOCK) as held:
            # Where somebody makes an image just now, what looks interrupted is theirs.
            if not held:
                return
            named = {image.id for image in self.listed()}
            used = self._in_use()
            for image in self._all():
                if image.id not in named and image.id not in used:
                    image.home.rename(self._root / f".gone-{image.id}")
            await self._sweep()

    async def _sweep(self) -> None:
        """Remove what nobody makes or removes any more; the lock is held."""
        for entry in _entries(self._root):
            if entry.startswith((".new-", ".gone-")):
                await remove_tree(self._root / entry)

    def _all(self) -> list[Image]:
        found = (Image.read(self._root / entry) for entry in _entries(self._root) if entry.startswith("img_"))
        return [image for image in found if image is not None]

    def _in_use(self) -> dict[str, set[str]]:
        """Names of the sandboxes by the id of the image they stand on."""
        used: dict[str, set[str]] = {}
        with contextlib.suppress(FileNotFoundError):
            for home in self._sandboxes.iterdir():
                with contextlib.suppress(OSError, ValueError, KeyError):
                    body = json.loads((home / "machine.json").read_bytes())
                    used.setdefault(body["image"], set()).add(body["name"])
        return used

    @contextlib.asynccontextmanager
    async def _making(self, name: str, progress: Progress, *, share: bool) -> AsyncIterator[Path | Image]:
        """A directory to make an image in, alone; or the image that somebody else made meanwhile."""
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
            await asyncio.to_thread(kernel.syncfs, rootfs)
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
