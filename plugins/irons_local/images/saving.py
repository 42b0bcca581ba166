"""Saving a stopped sandbox as an image without a copy: its changes become a layer under a thin mask.

Where the file system can share blocks, the layer is a clone of the changes, and the sandbox goes on as it is. Elsewhere
its changes move into the layer, which has a price: an overlay cannot rename a directory that lies in a layer.

The steps, in this order, so that a process killed at any of them leaves a whole image and a whole sandbox, or no
image and a whole sandbox. First all that needs room: the layer's record, the mask, the image's record, an empty
directory `upper.next`, the sandbox's new record. Then only renames: the sandbox's record, which names the layer;
`upper` into the layer; `upper.next` in its place; the image. What a kill leaves between them, `settle` finishes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from irons_local.bundle.machine import Machine
from irons_local.errors import EngineError
from irons_local.images.inside import mask, pairs
from irons_local.images.layers import DEEPEST, FILLING, Kind, Layer, Layers
from irons_local.images.record import Image
from irons_local.linux import disk_images, syscalls
from irons_local.linux.idmap import IdMapError, outer_map
from irons_local.linux.remove_tree import remove_tree
from irons_local.linux.userns_call import call
from irons_local.linux.userns_main import Say
from irons_local.progress import Progress

DRAFT = ".layered-"
"""How the directory of an image begins that is being saved; only a sweep removes one that was left."""

_CLONE = "irons_local.images.inside.cloning:clone"
_HIDE = "irons_local.images.inside.mask:hide"
_MOVE = f"{__name__}:move"
NEXT = "upper.next"
"""An empty directory that is about to take the place of a sandbox's changes."""


@dataclass(frozen=True, slots=True)
class Saving:
    """A stopped sandbox on its way to an image; whoever saves holds it, and nothing is swept.

    Attributes:
        home: the sandbox's directory.
        machine: its record.
        parent: the image it is based on.
        lower: the directories below its own changes, topmost first.
        layers: where layers are.
        images: the directory of the images.
    """

    home: Path
    machine: Machine
    parent: Image
    lower: Sequence[Path]
    layers: Layers
    images: Path

    def is_possible(self) -> bool:
        """False where the changes can only be copied: there are too many layers, or they lie on another disk."""
        if (self.home / disk_images.FILE).exists():
            return False
        deep = len(self.machine.layers) + len(self.parent.layers) + 2
        self.layers.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        return deep <= DEEPEST and self._upper.stat().st_dev == self.layers.root.stat().st_dev

    async def save(self, name: str, progress: Progress) -> Image:
        """Make the image.

        Raises:
            EngineError: the sandbox's files cannot be an image, or there is no room; nothing has changed then.
        """
        made: list[str] = []
        draft = self.images / f"{DRAFT}{secrets.token_hex(8)}"
        try:
            return await self._save(name, draft, made, progress)
        except BaseException as error:
            # What a record names already must stay, even where a later step failed.
            named = Machine.read(self.home).layers
            for layer in made:
                if layer not in named:
                    await asyncio.shield(self.layers.remove(layer))
            await asyncio.shield(remove_tree(draft))
            if isinstance(error, OSError):
                raise explained(error, "the image") from error
            raise

    async def _save(self, name: str, draft: Path, made: list[str], progress: Progress) -> Image:
        layers, below, moves = self.machine.layers, self._upper, False
        if has_changes(self.home):
            layer = self._begin("changes", made)
            layers = (layer.id, *layers)
            # Where directories of layers can be renamed, a sandbox loses nothing by having its changes in one.
            moves = self.machine.redirects or not pairs.is_possible(self.layers.root)
            if not moves:
                await clone_changes(self.home, self.layers.filling(layer.id), progress)
                below = self.layers.filled(layer.id)
        mask_of = self._begin("mask", made)
        found = await self._mask(mask_of, below, progress)
        image = replace(
            Image.of(
                self.images,
                name,
                f"saved from {self.machine.name}",
                {**found, **self.parent.lasting, "size": self.parent.size},
            ),
            base=self.parent.base or self.parent.id,
            layers=(mask_of.id, *layers, *self.parent.layers),
            redirects=self.machine.redirects,
        )
        image.begin(draft)
        if moves:
            prepare(self.home)
            replace(self.machine, layers=layers).write(self.home)
            await asyncio.shield(settle(self.home, self.layers))
        image.finish(draft)
        return image

    def _begin(self, kind: Kind, made: list[str]) -> Layer:
        layer = self.layers.begin(kind, redirects=self.machine.redirects)
        made.append(layer.id)
        return layer

    @property
    def _upper(self) -> Path:
        return self.home / "upper"

    async def _mask(self, layer: Layer, changes: Path, progress: Progress) -> dict[str, Any]:
        """Make the files of the mask over the sandbox's changes; gives what was found of the image."""
        home = self.layers.home(layer.id)
        tree, work = home / FILLING, home / "work"
        _directory(tree)
        _directory(work)
        with ExitStack() as stack:
            top = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            stack.callback(os.close, top)
            os.fchmod(top, 0o755)
            given = [top]
            for descriptor in mask.begin(
                top, syscalls.OPAQUE_OF_ROOT if layer.redirects else syscalls.OPAQUE
            ):
                stack.callback(os.close, descriptor)
                given.append(descriptor)
            give(given)
            request = {
                "layers": [str(path) for path in (changes, *self.lower)],
                "upper": str(tree),
                "work": str(work),
                "give": given,
                "mask": top,
                "redirects": layer.redirects,
            }
            found = await call("b", _HIDE, request, fds=given, progress=progress)
        await remove_tree(work)
        self.layers.filled(layer.id)
        return found


def _directory(path: Path) -> None:
    path.mkdir(mode=0o700)


def has_changes(home: Path) -> bool:
    """Whether a sandbox's own directory holds anything."""
    try:
        return any((home / "upper").iterdir())
    except PermissionError:
        # A sandbox that closed its own root directory has changed it.
        return True


async def clone_changes(
    home: Path, tree: Path, progress: Progress, *, copies: str = "", go: int | None = None
) -> None:
    """Copy a sandbox's changes to a new directory, sharing their blocks.

    Args:
        home: the sandbox's directory.
        tree: the directory to make.
        progress: called with the progress.
        copies: what is being made, where data may be copied if the file system shares no blocks; "" refuses that.
        go: descriptor through which something comes when the changes do not change any more; see `cloning.clone`.

    Raises:
        EngineError: there is no room, or the changes cannot be copied.
    """
    _directory(tree)
    target = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        give([target])
        request: dict[str, Any] = {
            "open": {"source": str(home / "upper")},
            "target": target,
            "give": [target],
            **({"copies": copies} if copies else {}),
            **({} if go is None else {"go": go}),
        }
        given = [target] if go is None else [target, go]
        await call("b", _CLONE, request, fds=given, progress=progress)
    finally:
        os.close(target)


def prepare(home: Path) -> None:
    """Make the directory that a sandbox's further changes will go to, with the rights of the one before."""
    fresh = home / NEXT
    fresh.mkdir(mode=0o700, exist_ok=True)
    fresh.chmod(stat.S_IMODE((home / "upper").stat().st_mode))


async def settle(home: Path, layers: Layers) -> None:
    """Finish what a save began once the sandbox's record names its layer; the sandbox is held and does not run.

    Raises:
        EngineError: the record cannot be read, or the files cannot be moved.
    """
    fresh, upper = home / NEXT, home / "upper"
    if not fresh.is_dir():
        return
    top = Machine.read(home).layers[:1]
    with contextlib.suppress(FileNotFoundError):
        if top and layers.home(top[0]).is_dir() and not layers.tree(top[0]).exists():
            await _moved(upper, layers.tree(top[0]))
    if upper.exists():
        # The save had not come as far as that.
        fresh.rmdir()
    else:
        fresh.rename(upper)


async def _moved(source: Path, target: Path) -> None:
    """Rename a directory; one that a sandbox owns can only be moved by root of the namespace it belongs to."""
    try:
        os.rename(source, target)  # noqa: PTH104 (a Path would be taken for one that blocks, which this does not)
    except PermissionError:
        with ExitStack() as stack:
            places = []
            for path in (source.parent, target.parent):
                places.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                stack.callback(os.close, places[-1])
            request = {"places": places, "names": [source.name, target.name]}
            await call("a", _MOVE, request, fds=places)


def move(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """Rename a directory, for `userns_main`: `names` in the directories behind the descriptors `places`."""
    (source, target), (old, new) = request["places"], request["names"]
    os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)
    return {}


def give(descriptors: Sequence[int]) -> None:
    """Let directories belong to a sandbox's root where that takes the machine's root."""
    if os.geteuid():
        return
    try:
        ids = outer_map()
    except IdMapError as error:
        raise EngineError("machine", str(error), "see `irons doctor`: subordinate-ids") from error
    for descriptor in descriptors:
        os.fchown(descriptor, ids.host_uid(1), ids.host_gid(1))


def explained(error: OSError, what: str) -> EngineError:
    """Return why `what` could not be written, for people."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EngineError("limit", f"the disk is full: {what} does not fit")
    return EngineError("failed", f"{what} could not be written: {error.strerror}")
