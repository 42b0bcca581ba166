"""Layers: directories of files that never change once something names them, shared by images and sandboxes.

On disk, in `layers/ly_…`: `layer.json`, `tree`, the files as one lower directory of an overlay, and `seal.2`, which says what these
were when they were counted. Files that are not all there yet are in `filling`, which becomes `tree`. Nothing counts references: a layer lives as long as the record of an image or a sandbox names it, and `Layers.sweep` removes the rest.
A layer is named by records only, so that a process that is killed leaves one that is whole, or one that nothing names.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from irons.files import write_whole
from irons_local.errors import EngineError
from irons_local.linux.remove_tree import remove_tree
from irons_local.linux.userns_call import call
from irons_local.times import now

__all__ = ["DEEPEST", "FILLING", "TREE", "Layer", "Layers"]

DEEPEST = 20
"""Layers above a base image, at most: each is one more place to look for a name that is not there."""

TREE = "tree"
FILLING = "filling"
"""What `tree` is called until all files are in it: until then it is neither counted nor sealed."""

_COUNT = "irons_local.images.inside.counting:count"
_SEALS = "irons_local.images.inside.counting:seals"
_SEAL = "seal.2"
"""Of another name than that of older versions, which this one does not read: such layers are sealed again."""

_CHECKED_FOR = 5.0
"""Seconds for which a check counts, so that many copies of one snapshot need one."""

_FILE = "layer.json"
_VERSION = 1
_GONE = ".gone-"
_DRAFT = ".draft-"

Kind = Literal["changes", "mask", "disk"]


@dataclass(frozen=True, slots=True)
class Layer:
    """What `layer.json` holds.

    Attributes:
        id: `ly_` and 16 hexadecimal digits.
        created_at: microseconds since 1970, UTC.
        kind: `changes` a sandbox's, `mask` what hides something of the layers below it, `disk` what a virtual machine wrote.
        size: bytes of its files without holes; None until they are counted.
        used: bytes of its blocks; None until they are counted.
        redirects: it may say of a directory what it was called below, as only the machine's root can read it.
    """

    id: str
    created_at: int
    kind: Kind
    size: int | None = None
    used: int | None = None
    redirects: bool = False

    @classmethod
    def read(cls, home: Path) -> Self | None:
        """The layer of a directory; None where its record is missing, damaged or of a newer version."""
        try:
            body: dict[str, Any] = json.loads((home / _FILE).read_bytes())
            return cls(**body) if body.pop("version") == _VERSION else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, home: Path) -> None:
        """Write the record, whole or not at all."""
        # Not forced to the disk, which would wait for a sandbox's gigabytes: what it says can be found again.
        write_whole(home / _FILE, json.dumps({"version": _VERSION, **asdict(self)}), parents=False)


class Layers:
    """The layers of one user.

    Args:
        root: their directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._checked: dict[str, float] = {}

    @classmethod
    def beside(cls, images: Path) -> Self:
        """The layers that belong to a directory of images."""
        return cls(images.with_name("layers"))

    @property
    def root(self) -> Path:
        """Their directory."""
        return self._root

    def begin(self, kind: Kind, *, redirects: bool = False) -> Layer:
        """Make a layer without files; nothing may sweep until a record names it.

        Args:
            kind: what it will hold.
            redirects: see `Layer`.

        Raises:
            OSError: it cannot be written.
        """
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        layer = Layer(f"ly_{secrets.token_hex(8)}", now(), kind, redirects=redirects)
        home = self.home(layer.id)
        home.mkdir(mode=0o700)
        layer.write(home)
        return layer

    @contextlib.contextmanager
    def draft(self, kind: Kind, *, redirects: bool = False) -> Iterator[tuple[Layer, Path]]:
        """Make a layer where no sweep looks for layers; `adopt` puts it in its place, and whoever asked removes it otherwise.

        Args:
            kind: what it will hold.
            redirects: see `Layer`.

        Yields:
            The layer, and its directory, which is locked: a sweep removes one whose maker was killed.

        Raises:
            OSError: it cannot be written.
        """
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        layer = Layer(f"ly_{secrets.token_hex(8)}", now(), kind, redirects=redirects)
        home = self._root / f"{_DRAFT}{layer.id}"
        home.mkdir(mode=0o700)
        with _locked(home):
            layer.write(home)
            yield layer, home

    def adopt(self, home: Path, layer: str) -> None:
        """Put a draft whose files are all on the disk in its place, also for a power loss; nothing may sweep until it is named.

        Raises:
            OSError: it cannot be moved.
        """
        home.rename(self.home(layer))
        root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(root)
        finally:
            os.close(root)

    def home(self, layer: str) -> Path:
        """The directory of a layer."""
        return self._root / layer

    def tree(self, layer: str) -> Path:
        """The directory that holds a layer's files."""
        return self._root / layer / TREE

    def trees(self, layers: Iterable[str]) -> list[Path]:
        """The directories of several layers, in the same order.

        Raises:
            EngineError: one of them is not there.
        """
        found = [self.tree(layer) for layer in layers]
        for path in found:
            if not path.is_dir():
                raise EngineError("image", f"the layer {path.parent.name} is gone from {self._root}")
        return found

    def filling(self, layer: str) -> Path:
        """The directory that holds a layer's files until `filled`."""
        return self._root / layer / FILLING

    def filled(self, layer: str) -> Path:
        """Say that all of a layer's files are in `filling`; gives where they are now.

        Raises:
            OSError: they cannot be moved.
        """
        return self.filling(layer).rename(self.tree(layer))

    async def check(self, layers: Iterable[str]) -> None:
        """Refuse layers whose files are not what they were when they were counted.

        Nothing is known of one that is not counted yet. One that was whole a few seconds ago is not looked at again.

        Raises:
            EngineError: a file of one has come, gone or changed, or cannot be read.
        """
        at = time.monotonic()
        recent = {each for each, when in self._checked.items() if at - when < _CHECKED_FOR}
        sealed = {each: seal for each in layers if each not in recent and (seal := self._seal(each))}
        if not sealed:
            return
        found = await call("a", _SEALS, {"open": {each: str(self.tree(each)) for each in sealed}})
        changed = [each for each, seal in sealed.items() if found.get(each) != seal]
        self._checked = {each: self._checked[each] for each in recent} | dict.fromkeys(
            sealed.keys() - set(changed), at
        )
        if changed:
            raise EngineError(
                "image",
                f"files of the layer {changed[0]} in {self._root} were changed or removed on the disk",
            )

    def _seal(self, layer: str) -> str:
        try:
            return (self.home(layer) / _SEAL).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""

    def listed(self) -> list[Layer]:
        """Every layer that can be read."""
        found = (Layer.read(self._root / entry) for entry in self._entries() if entry.startswith("ly_"))
        return [layer for layer in found if layer is not None]

    def changed(self) -> int:
        """A number that changes when a layer comes or goes; 0 where there never was one."""
        try:
            return self._root.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    async def count(self) -> bool:
        """Count and seal the files of every layer that has not been counted; gives whether all have been now.

        Raises:
            EngineError: the files of one cannot be read.
        """
        left = False
        for layer in self.listed():
            if layer.size is not None and self._seal(layer.id):
                continue
            tree = self.tree(layer.id)
            if not tree.is_dir():
                # It is being made.
                left = True
                continue
            # Its files may go while they are counted, and so may its place after that.
            with contextlib.suppress(FileNotFoundError):
                found = await call("a", _COUNT, {"open": {"tree": str(tree)}})
                write_whole(self.home(layer.id) / _SEAL, found["seal"], parents=False)
                replace(layer, size=found["size"], used=found["used"]).write(self.home(layer.id))
        return not left

    async def remove(self, layer: str) -> None:
        """Remove a layer that nothing names; one that is gone already is passed over.

        Raises:
            OSError: something could not be removed.
            EngineError: the same, where subordinate ids own the files.
        """
        gone = self._root / f"{_GONE}{layer}"
        with contextlib.suppress(FileNotFoundError):
            self.home(layer).rename(gone)
        await remove_tree(gone)

    async def sweep(self, named: Collection[str]) -> None:
        """Remove every layer that is not `named`, and what an interrupted removal left; raises like `remove`."""
        for entry in self._entries():
            if entry.startswith(_GONE) or (entry.startswith(_DRAFT) and not _is_locked(self._root / entry)):
                await remove_tree(self._root / entry)
            elif entry.startswith("ly_") and entry not in named:
                await self.remove(entry)

    def _entries(self) -> list[str]:
        try:
            return sorted(path.name for path in self._root.iterdir())
        except FileNotFoundError:
            return []


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_locked(directory: Path) -> bool:
    """True of a directory that someone has locked; false of one that is gone."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
