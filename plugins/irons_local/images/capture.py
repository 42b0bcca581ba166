"""Capturing a sandbox's files as a snapshot: its changes become a layer, and the snapshot's record names that.

A stopped sandbox's changes move into the layer, or are cloned where the file system shares blocks, as `saving` has it. A
running one's are cloned or copied while it is frozen.

The order is that of `saving`, so that a process killed at any step leaves a whole sandbox, with a whole snapshot or with none:
first what needs room (the layer, the record as a draft), then only renames.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from irons_local.bundle.machine import Machine
from irons_local.errors import EngineError
from irons_local.images.inside import cloning, pairs
from irons_local.images.layers import DEEPEST, Layers
from irons_local.images.record import Image
from irons_local.images.saving import clone_changes, explained, has_changes, prepare, settle
from irons_local.images.snapshots import Snapshot, Snapshots
from irons_local.linux import disk_images
from irons_local.linux.remove_tree import remove_tree
from irons_local.linux.userns_call import call
from irons_local.progress import Progress

_KEYS = "irons_local.images.inside.keys:count"
_WHAT = "the snapshot"


@dataclass(frozen=True, slots=True)
class Capture:
    """A sandbox on its way to a snapshot; whoever captures holds it, and nothing is swept.

    Attributes:
        home: the sandbox's directory.
        machine: its record.
        parent: the image it is based on.
        layers: where layers are.
        snapshots: where snapshots are.
    """

    home: Path
    machine: Machine
    parent: Image
    layers: Layers
    snapshots: Snapshots

    def check(self) -> None:
        """Refuse what cannot be captured.

        Raises:
            EngineError: with what to do.
        """
        name = self.machine.name
        if (self.home / disk_images.FILE).exists():
            raise EngineError(
                "input",
                f"{name} has a disk of its own (--disk), of which no snapshot can be made",
                f"irons local image save {name} copies it while it is stopped",
            )
        if len(self.machine.layers) + len(self.parent.layers) + 1 > DEEPEST:
            raise EngineError(
                "limit",
                f"{name} consists of {DEEPEST} layers already, and one more is too many",
                f"irons local image save {name} makes one image of them; layers that no snapshot has are merged while {name} is stopped",
            )
        self.layers.trees((*self.machine.layers, *self.parent.layers))

    async def stopped(self, snapshot: Snapshot, progress: Progress, *, empties: bool = False) -> Snapshot:
        """Capture a sandbox that does not run.

        Args:
            snapshot: the record to complete.
            progress: called with the progress.
            empties: leave nothing in the sandbox's own directory, also where blocks could be shared.

        Returns:
            The record, with its layers.

        Raises:
            EngineError: there is no room, or the files cannot be captured; nothing has changed then.
        """
        self.check()
        made: list[str] = []
        drafts: list[Path] = []
        try:
            moves, layers = False, self.machine.layers
            if has_changes(self.home):
                layer = self.layers.begin("changes", redirects=self.machine.redirects)
                made.append(layer.id)
                layers = (layer.id, *layers)
                moves = empties or self.machine.redirects or not pairs.is_possible(self.layers.root)
                if not moves:
                    await clone_changes(self.home, self.layers.filling(layer.id), progress, copies=_WHAT)
                    self.layers.filled(layer.id)
            whole = await self._counted(replace(snapshot, layers=layers), moves=moves)
            drafts.append(self.snapshots.begin(whole))
            if moves:
                prepare(self.home)
                replace(self.machine, layers=layers).write(self.home)
                await asyncio.shield(settle(self.home, self.layers))
            self.snapshots.finish(drafts[0], whole.id)
        except BaseException as error:
            await self._undo(made, drafts)
            if isinstance(error, OSError):
                raise explained(error, _WHAT) from error
            raise
        return whole

    async def running(
        self,
        snapshot: Snapshot,
        progress: Progress,
        frozen: Callable[[], AbstractAsyncContextManager[None]],
    ) -> Snapshot:
        """Capture a sandbox that runs: its changes are copied, and again, while it is frozen, what has changed since.

        Args:
            snapshot: the record to complete.
            progress: called with the progress.
            frozen: keeps the sandbox's processes from running.

        Returns:
            The record, with its layers.

        Raises:
            EngineError: there is no room, or the files cannot be captured; nothing has changed then.
        """
        self.check()
        made: list[str] = []
        drafts: list[Path] = []
        try:
            layer = self.layers.begin("changes", redirects=self.machine.redirects)
            made.append(layer.id)
            whole = replace(snapshot, layers=(layer.id, *self.machine.layers))
            filling = self.layers.filling(layer.id)
            await self._twice(filling, progress, frozen)
            self.layers.filled(layer.id)
            whole = await self._counted(whole, moves=False)
            drafts.append(self.snapshots.begin(whole))
            self.snapshots.finish(drafts[0], whole.id)
        except BaseException as error:
            await self._undo(made, drafts)
            if isinstance(error, OSError):
                raise explained(error, _WHAT) from error
            raise
        return whole

    async def _counted(self, snapshot: Snapshot, *, moves: bool) -> Snapshot:
        """Return the record with the number of keys in its layers, of which the first is still the sandbox's own where it `moves`."""
        trees = [self.layers.tree(layer) for layer in snapshot.layers]
        if moves:
            trees[0] = self.home / "upper"
        if not trees:
            return snapshot
        found = await call(
            "b", _KEYS, {"open": {str(number): str(tree) for number, tree in enumerate(trees)}}
        )
        return replace(snapshot, keys=found["keys"])

    async def _twice(
        self, target: Path, progress: Progress, frozen: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        ready = asyncio.Event()

        def heard(line: str, done: float | None) -> None:
            if line == cloning.READY:
                ready.set()
            else:
                progress(line, done)

        read, write = os.pipe2(os.O_CLOEXEC)
        copying = asyncio.create_task(
            clone_changes(self.home, target, heard, copies=_WHAT, go=read), name="copying"
        )
        waiting = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait((copying, waiting), return_when=asyncio.FIRST_COMPLETED)
            if copying.done():
                await copying
            async with frozen():
                os.write(write, b"g")
                await copying
                if self.machine.redirects:
                    await asyncio.to_thread(_copy_marks, self.home / "upper", target)
        finally:
            for task in (copying, waiting):
                task.cancel()
            await asyncio.gather(copying, waiting, return_exceptions=True)
            os.close(read)
            os.close(write)

    async def _undo(self, made: list[str], drafts: list[Path]) -> None:
        # What a record names already must stay, even where a later step failed.
        named = Machine.read(self.home).layers
        # What cannot be removed now goes with the next sweep, and must not hide why this failed.
        for layer in made:
            if layer not in named:
                with suppress(EngineError, OSError):
                    await asyncio.shield(self.layers.remove(layer))
        for draft in drafts:
            with suppress(EngineError, OSError):
                await asyncio.shield(remove_tree(draft))


def _copy_marks(source: Path, target: Path) -> None:
    with ExitStack() as stack:
        both = []
        for path in (source, target):
            both.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
            stack.callback(os.close, both[-1])
        pairs.copy_marks(*both)
