"""Merging the layers of an engine's sandboxes: in the background, and before a snapshot for which there are too many."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from irons_local.bundle.machine import Machine
from irons_local.engines.homes import Homes, is_unfinished, reserved
from irons_local.errors import EngineError
from irons_local.images import merging
from irons_local.images.catalog import Images
from irons_local.images.layers import Kind

_log = logging.getLogger(__name__)

_LEAST = 4
"""Layers that are worth a merge in the background, which may copy all that they have."""


@dataclass(frozen=True, slots=True)
class Chains:
    """What an engine knows of the layers of its sandboxes.

    Attributes:
        kind: what they hold.
        most: how many a sandbox may have; from half as many on they are merged.
        depth: how many a machine has, those of its image included where they count.
        is_free: tells whether those of a sandbox, by its directory, can be replaced as it is now.
        fill: what makes the files of one out of those of several of a machine.
        put: puts a merged one in the place of those it was made of, and gives whether it did; the sandbox is held and nothing sweeps.
    """

    kind: Kind
    most: int
    depth: Callable[[Machine], int]
    is_free: Callable[[Path], bool]
    fill: Callable[[Machine], merging.Fill]
    put: Callable[[Path, merging.Merged], Awaitable[bool]]


class Merges:
    """The merges of one engine, of which one goes on at a time.

    Args:
        images: its images and layers.
        homes: the directories of all sandboxes.
        locks: the engine's, by sandbox.
        chains: what it knows of its sandboxes.
    """

    def __init__(
        self, images: Images, homes: Homes, locks: MutableMapping[str, asyncio.Lock], chains: Chains
    ) -> None:
        self._images = images
        self._homes = homes
        self._locks = locks
        self._chains = chains
        self._task: asyncio.Task[None] | None = None
        self._waiting: set[str] = set()

    def soon(self, sandbox: str = "") -> None:
        """Look in the background whether a sandbox, or any of them, has layers to merge, and merge them."""
        self._waiting |= {sandbox} if sandbox else {home.name for home in self._homes.entries()}
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="merging layers")

    async def make_room(self, home: Path) -> None:
        """Merge layers of a sandbox that has as many as it may; it is held, and its record keeps its layers from being swept.

        Where that fails, it has as many as before.
        """
        try:
            machine = Machine.read(home)
            if self._chains.depth(machine) < self._chains.most or not self._chains.is_free(home):
                return
            async with self._merged(home, machine, 2) as made:
                if made is not None:
                    # Only for this: others wait for it, and what a merge copies takes long.
                    async with self._images.keeping():
                        await self._chains.put(home, made)
        except (EngineError, OSError) as error:
            _log.warning("its layers are not merged: %s", error, extra={"sandbox": home.name})

    async def _work(self) -> None:
        while self._waiting:
            home = self._homes.at(self._waiting.pop())
            try:
                if not is_unfinished(home) and home.is_dir() and self._chains.is_free(home):
                    await self._in_background(home)
            except (EngineError, OSError) as error:
                # It reads the same either way, and the next time may succeed.
                _log.warning("its layers are not merged: %s", error, extra={"sandbox": home.name})
            # Many sandboxes must not keep the others' requests waiting.
            await asyncio.sleep(0)

    async def _in_background(self, home: Path) -> None:
        machine = Machine.read(home)
        if self._chains.depth(machine) < self._chains.most // 2:
            return
        async with self._merged(home, machine, _LEAST) as made:
            if made is None:
                return
            async with self._locks[home.name], reserved(home), self._images.keeping():
                if not self._chains.is_free(home) or not await self._chains.put(home, made):
                    return
        _log.info("merged %d layers", len(made.run), extra={"sandbox": home.name})
        await self._images.sweep()

    def _merged(
        self, home: Path, machine: Machine, least: int
    ) -> AbstractAsyncContextManager[merging.Merged | None]:
        others = self._images.named_but_for(home.name)
        # What a damaged record names is not known.
        run = () if others is None else merging.longest_run(machine.layers, others)
        return merging.merged(
            self._images.layers,
            run if len(run) >= least else (),
            self._chains.kind,
            self._chains.fill(machine),
            redirects=machine.redirects,
        )
