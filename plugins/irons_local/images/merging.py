"""Merging layers that one sandbox alone names into one layer, so that its chain stays short.

The merged layer is made next to the others, in a directory that no sweep touches while its maker lives: whole, checked, and on the
host's disk. Then the layer gets its name, and the sandbox's record names it in the place of those that it was made of: one
rename, before and after which the sandbox reads the same. What nothing names any more goes with the next sweep. A snapshot that was
taken in between names the old layers, and keeps them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from irons_local.bundle.machine import Machine
from irons_local.images.inside.stacking import stacked
from irons_local.images.layers import TREE, Kind, Layers
from irons_local.images.saving import give
from irons_local.linux import syscalls
from irons_local.linux.remove_tree import remove_tree
from irons_local.linux.userns_call import call

_STACK = "irons_local.images.inside.stacking:stack"

Fill = Callable[[Sequence[Path], Path], Awaitable[None]]
"""Makes a layer's directory of those of several, topmost first."""


class Merged(NamedTuple):
    """A layer that is not in its place yet.

    Attributes:
        layer: its id.
        home: its directory.
        run: the layers that it was made of, topmost first.
    """

    layer: str
    home: Path
    run: tuple[str, ...]


def longest_run(layers: Sequence[str], others: Collection[str]) -> tuple[str, ...]:
    """The longest row of neighbours of which none is among the `others`; the topmost of several."""
    best: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    for layer in layers:
        run = () if layer in others else (*run, layer)
        best = max(best, run, key=len)
    return best


@asynccontextmanager
async def merged(
    layers: Layers, run: tuple[str, ...], kind: Kind, fill: Fill, *, redirects: bool = False
) -> AsyncIterator[Merged | None]:
    """Make one layer of several; it is removed at the end, unless `adopt` put it in its place.

    Args:
        layers: where layers are.
        run: the layers, topmost first, neighbours in a record.
        kind: what they hold.
        fill: makes the files.
        redirects: see `Layer`.

    Yields:
        The layer; None where these are fewer than two.

    Raises:
        EngineError: a layer is gone, or the disk is full.
        OSError: something cannot be read or written.
    """
    if len(run) < 2:
        yield None
        return
    with layers.draft(kind, redirects=redirects) as (layer, home):
        try:
            await fill(layers.trees(run), home / TREE)
            await asyncio.to_thread(_written, home)
            yield Merged(layer.id, home, run)
        finally:
            await asyncio.shield(remove_tree(home))


def _written(home: Path) -> None:
    """Have all of a layer on the host's disk, also for a power loss. Raises OSError where it is not."""
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(descriptor)
    finally:
        os.close(descriptor)


def place_of(machine: Machine, run: tuple[str, ...]) -> int | None:
    """At which place the layers of a run are in a machine's record; None where they are not, or not as neighbours."""
    places = range(len(machine.layers) - len(run) + 1)
    return next((at for at in places if machine.layers[at : at + len(run)] == run), None)


def adopt(layers: Layers, home: Path, made: Merged) -> bool:
    """Name a merged layer in a sandbox's record in the place of those that it was made of; gives whether it was.

    Args:
        layers: where layers are; nothing sweeps.
        home: the sandbox's directory; it is held, and nothing reads its layers that would miss one of the old ones.
        made: the layer.

    Raises:
        EngineError: the record cannot be read, or a layer is gone.
        OSError: something cannot be written.
    """
    machine = Machine.read(home)
    at = place_of(machine, made.run)
    if at is None:
        return False
    # Whoever removed one of them may have done so while it was read.
    layers.trees(made.run)
    layers.adopt(made.home, made.layer)
    chain = (*machine.layers[:at], made.layer, *machine.layers[at + len(made.run) :])
    replace(machine, layers=chain).write(home)
    return True


async def stack_files(trees: Sequence[Path], target: Path, *, redirects: bool) -> None:
    """Make a directory of those of several layers of files; a `Fill` once `redirects` is given (see `Machine`)."""
    os.mkdir(target, 0o700)  # noqa: PTH102 (a Path would be taken for one that blocks, which this does not)
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        give([descriptor])
        if redirects:
            await asyncio.to_thread(_stacked, trees, descriptor)
            return
        # By its path too: links can only be made where both are reached through one mount.
        request = {
            "open": {"target": str(target), **{str(number): str(tree) for number, tree in enumerate(trees)}},
            "count": len(trees),
            "give": [descriptor],
        }
        await call("b", _STACK, request, fds=[descriptor])
    finally:
        os.close(descriptor)


def _stacked(trees: Sequence[Path], target: int) -> None:
    """`stacked` by the machine's root itself, which alone can read its marks."""
    with ExitStack() as stack:
        opened = []
        for tree in trees:
            opened.append(os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
            stack.callback(os.close, opened[-1])
        stacked(opened, target, redirects=True)
